#!/usr/bin/env bash
# Everything that a machine with a GPU should prove, in one command: run.sh [--sim]
# Correctness first, then times; the results lie in runs/<date>-<gpu>/. With --sim the simulator's library in this folder
# stands in for the driver, at small shapes and without times: it shows that this script works.
# The CUDA programs need NVRTC: LTM_NVRTC_DIR, or where the loader finds libnvrtc.so.13 or .12.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here"

mode=cuda
libraries=${LTM_NVRTC_DIR:-/usr/local/cuda/lib64}
once=()
gpu=simulator
driver="none: the simulator"
clocks="none"
if [ "${1:-}" = --sim ]; then
    mode=sim
    libraries=$here/sim:$libraries
    once=(--once)
elif [ $# -gt 0 ]; then
    echo "run.sh takes --sim or nothing, got $1" >&2
    exit 2
else
    query() { nvidia-smi --query-gpu="$1" --format=csv,noheader --id=0; }
    gpu=$(query name)
    driver=$(query driver_version)
    clocks=$(query clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem)
fi
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export LTM_DEVICE=cuda
run=runs/$(date -u +%Y-%m-%d)-$(echo "$gpu" | tr -c 'A-Za-z0-9\n' - | tr A-Z a-z)
mkdir -p "$run"

echo "==> correctness"
for test in tests/*; do
    name=$(basename "$test")
    if "$test" >"$run/$name.log" 2>&1; then
        echo "$name: passed"
    else
        tail -n 40 "$run/$name.log"
        echo "$name failed: nothing is timed" >&2
        exit 1
    fi
done

echo "==> kernels"
./gpu kernels ${once[@]+"${once[@]}"} >"$run/raw.jsonl" 2>"$run/gpu.log" || {
    cat "$run/gpu.log"
    exit 1
}

if [ $mode = cuda ] && python3 -c 'import torch' 2>/dev/null; then
    echo "==> peers"
    python3 peers.py >"$run/peers.jsonl"
fi

{
    echo "# $gpu"
    echo
    echo "- command: \`run.sh${1:+ $1}\`"
    echo "- commit: $(cat commit)"
    echo "- driver: $driver"
    echo "- clocks (sm, memory, highest sm, highest memory): $clocks"
} >"$run/README.md"

# The lines are our own, with their fields in one order: no parser is needed.
table() {
    awk '{
        gsub(/[{}"]/, "")
        n = split($0, fields, ",")
        head = rule = row = "|"
        for (i = 1; i <= n; i++) {
            split(fields[i], pair, ":")
            head = head " " pair[1] " |"; rule = rule " --- |"; row = row " " pair[2] " |"
        }
        if (head != last) print (NR > 1 ? "\n" : "") head "\n" rule
        last = head
        print row
    }' "$1"
}
{
    echo "# Kernels"
    echo
    table "$run/raw.jsonl"
    if [ -s "$run/peers.jsonl" ]; then
        echo
        echo "# PyTorch, same machine, same shapes"
        echo
        table "$run/peers.jsonl"
    fi
} >"$run/summary.md"
cat "$run/summary.md"
echo "==> $run"
