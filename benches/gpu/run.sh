#!/usr/bin/env bash
# Verifies and measures everything on a machine with a GPU, in parts that can be interrupted and resumed.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here" || exit 2

usage() {
    cat <<'END'
Usage: run.sh [OPTIONS] [PART]...

Runs every part that has not finished yet, or the named parts even if they have, and writes the results after each.
Each part is a process of its own. An interrupted part runs again the next time. The first part checks the device and
the compiler; if it fails, no other part runs.

Options:
  --list           Print every part and its state, and exit
  --failed         Also run the parts that have failed before
  --limit SECONDS  Stop after this time; a part that is running then counts as interrupted
  --out DIR        Folder of the results [default: runs/<date>-kernels-and-steps-<gpu>, or the last such folder of the same build]
  --sim            Use the simulator in place of a GPU: small shapes, no times
  -h, --help       Print this help

The CUDA programs need NVRTC: set LTM_NVRTC_DIR, or have it where the loader, an installed toolkit or python3's packages
provide it. cuBLASLt and PyTorch are compared where they are installed.

Exit status: 0 if every part passed, 1 if a part failed, 2 for a wrong option, 3 if parts are left to run.
END
}

mistake() {
    echo "error: $1; see run.sh --help" >&2
    exit 2
}

mode=cuda
once=()
limit=
out=
list=
failed_too=
wanted=()
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --list) list=yes ;;
    --failed) failed_too=yes ;;
    --sim) mode=sim once=(--once) ;;
    --limit | --out)
        [ $# -ge 2 ] || mistake "$1 needs a value"
        [ "$1" = --out ] && out=$2 || limit=$2
        shift
        ;;
    -*) mistake "unknown option $1" ;;
    *) wanted+=("$1") ;;
    esac
    shift
done
[[ -z $limit || $limit =~ ^[1-9][0-9]*$ ]] || mistake "--limit takes a number of seconds above 0, found $limit"
deadline=${limit:+$((SECONDS + limit))}

query() { nvidia-smi --query-gpu="$1" --format=csv,noheader --id=0; }
if [ $mode = sim ]; then
    gpu=simulator
    driver="none (simulator)"
    clocks="none"
elif ! gpu=$(query name) || [ -z "$gpu" ]; then
    echo "error: nvidia-smi finds no GPU; without one, run.sh --sim checks this folder on the simulator" >&2
    exit 1
else
    driver=$(query driver_version)
    clocks=$(query clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit)
fi

# NVIDIA's packages for Python keep each library in a folder of its own.
wheels=$(python3 -c 'import glob, nvidia; print(":".join(glob.glob(list(nvidia.__path__)[0] + "/*/lib")))' 2>/dev/null || true)
libraries=${LTM_NVRTC_DIR:-}:${LD_LIBRARY_PATH:-}:/usr/local/cuda/lib64:$wheels
[ $mode = sim ] && libraries=$here/sim:$libraries
# An empty entry would mean the current folder.
export LD_LIBRARY_PATH=$(echo "$libraries" | sed 's/::*/:/g; s/^://; s/:$//')
export LTM_DEVICE=cuda LTM_FIXTURES=$here/fixtures LTM_KERNEL_CACHE=${LTM_KERNEL_CACHE:-$here/kernel-cache}

# The folder of the results: one started by the same build goes on.
name=kernels-and-steps-$(echo "$gpu" | tr -c 'A-Za-z0-9\n' - | tr A-Z a-z)
run=$out
if [ -z "$run" ]; then
    run=runs/$(date -u +%Y-%m-%d)-$name
    for earlier in runs/*-"$name"; do
        cmp -s commit "$earlier/commit" && run=$earlier
    done
fi
if [ -e "$run/commit" ] && ! cmp -s commit "$run/commit"; then
    echo "error: $run holds the results of commit $(cat "$run/commit"), this folder is $(cat commit); use another --out" >&2
    exit 2
fi
mkdir -p "$run"/{state,logs,lines,dumps} && run=$(cd "$run" && pwd) && cp commit "$run/commit" || exit 2

# Every part: `<name> <command> <arguments>`. Standard output of a part whose name starts with `device`, `kernels-`, `steps-` or
# `peers-` is JSON lines for raw.jsonl. Tests run one process per group, benches one per op, so that an error that leaves
# the device unusable for its process ends that part alone.
list_parts() {
    echo "device ./gpu device ${once[*]-}"
    local test group op model precision part
    for test in tests/*; do
        for group in $("$test" --list 2>/dev/null | sed -n 's/: test$//p' | sed 's/::.*//' | sort -u); do
            echo "test-${test#tests/}-$group run_tests $test $group"
        done
    done
    echo "compare compare_dumps"
    for precision in f32 mixed; do
        echo "parity-$precision ./ltm parity --device cuda --precision $precision $(echo fixtures/*.safetensors)"
    done
    for op in $(./gpu kernels --list); do
        echo "kernels-$op ./gpu kernels ${once[*]---measured $run/lines/device.jsonl} $op"
    done
    if [ $mode = sim ]; then
        echo "steps-toy ./gpu steps --once"
        return
    fi
    for model in ltm-small ltm-medium ltm-large; do
        for precision in mixed f32; do
            echo "steps-$model-$precision ./gpu steps --model $model --precision $precision --measured $run/lines/device.jsonl"
        done
    done
    for part in $(python3 peers.py --list 2>/dev/null); do
        echo "peers-$part python3 peers.py $part"
    done
}
# The tests of one module, or one test that is in no module. `exec`, so that a time limit ends the program itself.
run_tests() {
    if "$1" --list 2>/dev/null | grep -q "^$2::"; then
        exec "$1" "$2::"
    else
        exec "$1" --exact "$2"
    fi
}
compare_dumps() { exec ./gpu compare sim/kernels.jsonl "$run"/dumps/test-ltm-kernels-*.jsonl; }
export -f run_tests compare_dumps
export run

parts=()
commands=()
while read -r part command; do
    parts+=("$part")
    commands+=("$command")
done < <(list_parts)
for part in "${wanted[@]+"${wanted[@]}"}"; do
    printf '%s\n' "${parts[@]}" | grep -qxF -- "$part" || mistake "no part is called $part"
done

state() { cat "$run/state/$1" 2>/dev/null || echo "not run"; }
if [ -n "$list" ]; then
    for part in "${parts[@]}"; do printf '%-40s %s\n' "$part" "$(state "$part")"; done
    exit 0
fi

# Writes a file at once, so that an interruption leaves the old one.
replace() { cat >"$1.tmp" && mv "$1.tmp" "$1"; }

# Everything that is known so far: README.md, raw.jsonl and summary.md.
write_results() {
    local part
    for part in "${parts[@]}"; do
        cat "$run/lines/$part.jsonl" 2>/dev/null
    done | replace "$run/raw.jsonl"
    {
        echo "# $gpu"
        echo
        echo "- command: \`run.sh\`${once[0]+ --sim}"
        echo "- commit: $(cat commit)"
        echo "- driver: $driver"
        echo "- clocks (sm, memory, highest sm, highest memory) and power limit: $clocks"
        echo "- device and simulator: $(grep "results compared" "$run/logs/compare.log" 2>/dev/null || echo "not compared yet")"
        echo
        echo "| part | state |"
        echo "| --- | --- |"
        for part in "${parts[@]}"; do echo "| $part | $(state "$part") |"; done
    } | replace "$run/README.md"
    ./gpu summary "$run/raw.jsonl" | replace "$run/summary.md"
}

# Runs one part and records how it ended. Returns 3 if it was interrupted.
run_part() {
    local part=$1 command=$2 start=$SECONDS status how
    rm -f "$run/state/$part" "$run/lines/$part.jsonl" "$run/dumps/$part.jsonl"
    # A comparison of other results than these is void.
    case $part in test-ltm-kernels-*) rm -f "$run/state/compare" ;; esac
    local words
    read -ra words <<<"$command"
    case ${words[0]} in run_tests | compare_dumps) words=(bash -c "$command") ;; esac
    if [ -n "$deadline" ]; then
        # `timeout 0` would set no limit. In the foreground: Ctrl-C reaches the part.
        local left=$((deadline - SECONDS))
        words=(timeout --foreground --kill-after=10 $((left > 0 ? left : 1)) "${words[@]}")
    fi
    case $part in
    device | kernels-* | steps-* | peers-*)
        "${words[@]}" >"$run/lines/$part.jsonl" 2>"$run/logs/$part.log"
        ;;
    *) LTM_DUMP=$run/dumps/$part.jsonl "${words[@]}" >"$run/logs/$part.log" 2>&1 ;;
    esac
    status=$?
    if [ -n "$deadline" ] && [ $SECONDS -ge "$deadline" ] && [ $status -ge 124 ]; then
        echo "$part: interrupted by the time limit"
        return 3
    fi
    how=passed
    if [ $status -ne 0 ]; then
        how="FAILED, status $status"
        tail -n 40 "$run/logs/$part.log"
    fi
    echo "$part: $how ($((SECONDS - start)) s)"
    echo "$how ($((SECONDS - start)) s)" | replace "$run/state/$part"
}

trap 'write_results; echo "interrupted; run it again to continue: $run" >&2; exit 130' INT
trap 'write_results; exit 143' TERM

for i in "${!parts[@]}"; do
    part=${parts[$i]}
    if [ ${#wanted[@]} -gt 0 ]; then
        printf '%s\n' "${wanted[@]}" | grep -qxF -- "$part" || continue
    else
        case $(state "$part") in
        passed*) continue ;;
        FAILED*) [ -n "$failed_too" ] || continue ;;
        esac
    fi
    [ -z "$deadline" ] || [ $SECONDS -lt "$deadline" ] || break
    run_part "$part" "${commands[$i]}" || break
    write_results
    if [ "$part" = device ] && [[ $(state device) != passed* ]]; then
        rm -f "$run/state/device"
        exit 1
    fi
done
write_results

left=0
failed=0
for part in "${parts[@]}"; do
    case $(state "$part") in
    "not run") left=$((left + 1)) ;;
    FAILED*) failed=$((failed + 1)) ;;
    esac
done
cat "$run/README.md" "$run/summary.md"
echo "==> $run: ${#parts[@]} parts, $failed failed, $left left to run"
[ $failed -eq 0 ] || exit 1
[ $left -eq 0 ] || exit 3
