#!/usr/bin/env bash
# All that is to be measured on a machine with an NVIDIA GPU, which needs no network, no compiler and no CUDA toolkit.
#
#   benches/gpu.sh --build     where there is Rust: builds the program and the GPU's tests into target/gpu
#   benches/gpu.sh --check     a dry run anywhere: are all files there, and does every command do what it should on the CPU?
#   benches/gpu.sh             where there is a GPU: tests, sanitizer, figures, PyTorch; into benches/results/<gpu>/
#
# Carry the repository with target/gpu to the GPU's machine (x86-64 Linux, glibc as old as the building machine's or newer).
# What is not there is said to be SKIPPED: compute-sanitizer (of the CUDA toolkit) and PyTorch (PYTHON=python3 by default).
set -euo pipefail
cd "$(dirname "$0")/.."

gpu=target/gpu
rtformer=$gpu/rtformer
tests=$gpu/gpu-tests
PYTHON=${PYTHON:-python3}
SIZES="2048x1024 1024x512 960x720"

step() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
have() { command -v "$1" >/dev/null 2>&1; }

build() {
    mkdir -p $gpu
    cargo build --release
    cp target/release/rtformer $rtformer
    local found
    found=$(cargo test --release --test gpu --no-run --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\/gpu-[0-9a-f]*\)".*/\1/p' | tail -n 1)
    cp "$found" $tests
    echo "built: $rtformer and $tests"
}

needs() {
    for file in $rtformer $tests; do
        if [ ! -x $file ]; then
            echo "error: $file is not there: benches/gpu.sh --build makes it, on a machine with Rust" >&2
            exit 2
        fi
    done
}

check() {
    needs
    step "the tests start, and say that there is no GPU or run on it"
    $tests --test-threads 1
    step "rtformer bench takes every flag that will be given"
    $rtformer bench --device cpu --variant slim --size 96x64 --stages mask,frame --runs 1 --warmup 0 --profile --json - >/dev/null
    step "PyTorch"
    if $PYTHON -c 'import torch, numpy, PIL' 2>/dev/null; then
        (cd benches/peers && $PYTHON -m doctest torch_gpu.py)
        $PYTHON benches/peers/torch_gpu.py --rtformer $rtformer --check
    else
        $PYTHON -m py_compile benches/peers/torch_gpu.py
        echo "SKIPPED: $PYTHON has no torch, numpy or PIL; torch_gpu.py was only compiled"
    fi
    echo "ready: nothing was measured"
}

measure() {
    needs
    if ! have nvidia-smi; then
        echo "error: no nvidia-smi, so no NVIDIA driver; --check is the dry run" >&2
        exit 2
    fi
    local name out
    name=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
    out=benches/results/$name
    mkdir -p "$out"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv | tee "$out/gpu.csv"

    step "tests"
    RTFORMER_REQUIRE=cuda $tests --test-threads 1 --nocapture | tee "$out/tests.txt"

    step "compute-sanitizer"
    if have compute-sanitizer; then
        for tool in memcheck racecheck; do
            RTFORMER_REQUIRE=cuda compute-sanitizer --tool $tool --error-exitcode 1 $tests --test-threads 1 kernels |
                tee "$out/$tool.txt"
        done
    else
        echo "SKIPPED: no compute-sanitizer"
    fi

    step "figures"
    for variant in slim base; do
        for size in $SIZES; do
            for precision in f16 f32; do
                $rtformer bench --device cuda --precision $precision --variant $variant --size "$size" --stages mask,frame \
                    --runs 200 --warmup 20 --profile --json "$out/$variant.$size.$precision.json"
            done
        done
    done

    step "PyTorch, in turns with ours"
    if $PYTHON -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
        $PYTHON benches/peers/torch_gpu.py --rtformer $rtformer --out "$out/torch.json" | tee "$out/torch.md"
    else
        echo "SKIPPED: $PYTHON has no torch with CUDA"
    fi
    step "done: $out"
}

case "${1:-}" in
    --build) build ;;
    --check) check ;;
    "") measure ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
