#!/usr/bin/env bash
# Everything that a machine with a GPU should prove, in one command: run.sh [--sim]
# Correctness first, then times; the results lie in runs/<date>-<gpu>/, what the parts said in logs/. With --sim the simulator's library in this folder
# stands in for the driver, at small shapes and without times: it shows that this script works.
# The CUDA programs need NVRTC: LTM_NVRTC_DIR, or where the loader, an installed toolkit or python3's packages have it.
# cuBLASLt and PyTorch are compared with where they are found.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"

mode=cuda
once=()
gpu=simulator
driver="none: the simulator"
clocks="none"
if [ "${1:-}" = --sim ]; then
    mode=sim
    once=(--once)
elif [ $# -gt 0 ]; then
    echo "run.sh takes --sim or nothing, got $1" >&2
    exit 2
else
    query() { nvidia-smi --query-gpu="$1" --format=csv,noheader --id=0; }
    gpu=$(query name)
    driver=$(query driver_version)
    clocks=$(query clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem,power.limit)
fi

# NVIDIA's packages for Python keep each library in a folder of its own.
wheels=$(python3 -c 'import glob, nvidia; print(":".join(glob.glob(list(nvidia.__path__)[0] + "/*/lib")))' 2>/dev/null || true)
libraries=${LTM_NVRTC_DIR:-}:${LD_LIBRARY_PATH:-}:/usr/local/cuda/lib64:$wheels
if [ $mode = sim ]; then
    libraries=$here/sim:$libraries
fi
# An empty part of the path would be the folder we are in.
export LD_LIBRARY_PATH=$(echo "$libraries" | sed 's/::*/:/g; s/^://; s/:$//')
export LTM_DEVICE=cuda LTM_FIXTURES=$here/fixtures LTM_KERNEL_CACHE=${LTM_KERNEL_CACHE:-$here/kernel-cache}
run=runs/$(date -u +%Y-%m-%d)-$(echo "$gpu" | tr -c 'A-Za-z0-9\n' - | tr A-Z a-z)
rm -rf "$run" logs
mkdir -p "$run" logs
outcomes=()
failed=0

# Runs a part with its words in a log, tells how it ended, and goes on whatever happened.
part() {
    local name=$1 start=$SECONDS outcome=passed
    shift
    if ! "$@" >"logs/$name.log" 2>&1; then
        tail -n 40 "logs/$name.log"
        outcome=FAILED
        failed=1
    fi
    echo "$name: $outcome ($((SECONDS - start)) s)"
    outcomes+=("- $name: $outcome")
}

# As `part` for a program whose lines belong into a file of their own.
lines() {
    local file=$1
    shift
    part "$1" to_file "$file" "${@:2}"
}
to_file() { "${@:2}" >>"$run/$1"; }

# Without a device or a compiler all that follows would say the same.
./gpu kernels --once --rung 1 slice >logs/device.log 2>&1 || {
    cat logs/device.log
    exit 1
}

echo "==> correctness"
for test in tests/*; do
    part "$(basename "$test")" env LTM_DUMP="$here/logs/$(basename "$test").jsonl" "$test"
done
part compare ./gpu compare sim/kernels.jsonl logs/ltm-kernels.jsonl
tail -n 1 logs/compare.log
for precision in f32 mixed; do
    part "parity-$precision" ./ltm parity --device cuda --precision "$precision" fixtures/*.safetensors
done

echo "==> times"
lines raw.jsonl kernels ./gpu kernels ${once[@]+"${once[@]}"}
lines raw.jsonl steps ./gpu steps ${once[@]+"${once[@]}"}
if [ $mode = cuda ] && python3 -c 'import torch' 2>/dev/null; then
    lines raw.jsonl peers python3 peers.py
fi

{
    echo "# $gpu"
    echo
    echo "- command: \`run.sh${1:+ $1}\`"
    echo "- commit: $(cat commit)"
    echo "- driver: $driver"
    echo "- clocks (sm, memory, highest sm, highest memory) and power limit: $clocks"
    echo
    printf '%s\n' "${outcomes[@]}"
    echo "- device and simulator: $(tail -n 1 logs/compare.log)"
} >"$run/README.md"
./gpu summary "$run/raw.jsonl" >"$run/summary.md"
cat "$run/README.md" "$run/summary.md"
echo "==> $run"
exit $failed
