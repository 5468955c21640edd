#!/usr/bin/env bash
# Runs all measurements on a machine with an NVIDIA GPU, which needs no network, no compiler and no CUDA toolkit.
#
#   benches/gpu.sh --build     on a machine with Rust: builds the program and the GPU tests into target/gpu
#   benches/gpu.sh --check     a dry run on any machine: checks that all files exist and that every command works on the CPU
#   benches/gpu.sh             on a machine with a GPU: everything below, into benches/results/<gpu>.json and the README's table
#   benches/gpu.sh STEP..      only these steps: tests, sanitizer, figures, torch (resumes an interrupted run), merge
#
# Copy the repository with target/gpu to the GPU machine (x86-64 Linux, glibc 2.36 or newer), and copy benches/results/<gpu>.json and
# README.md back. Missing tools are reported as SKIPPED: compute-sanitizer (part of the CUDA toolkit) and PyTorch
# (PYTHON=python3 by default). Failures are recorded, the other measurements still run, and the exit code is 1.
# MODELS, SIZES, RUNS, WARMUP and ROUNDS shorten a run; RESULTS and README change where the output goes.
set -euo pipefail
cd "$(dirname "$0")/.."

gpu=target/gpu
rtformer=$gpu/rtformer
tests=$gpu/gpu-tests
newest_glibc=2.36
PYTHON=${PYTHON:-python3}
MODELS=${MODELS:-slim base}
SIZES=${SIZES:-2048x1024 1024x512 960x720}
RUNS=${RUNS:-200}
WARMUP=${WARMUP:-20}
ROUNDS=${ROUNDS:-5}
RESULTS=${RESULTS:-benches/results}
README=${README:-README.md}

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
    carries $rtformer
    carries $tests
}

# A program does not start with a glibc older than its newest symbol. The symbol names are in the file as plain text.
carries() {
    local needs
    needs=$(grep -aoE 'GLIBC_[0-9]+\.[0-9]+' "$1" | cut -d_ -f2 | sort -uV | tail -n 1)
    echo "$1: glibc ${needs:-none} or newer"
    if [ "$(printf '%s\n' "$needs" $newest_glibc | sort -V | tail -n 1)" != $newest_glibc ]; then
        echo "error: that is newer than $newest_glibc; build on an older system" >&2
        exit 1
    fi
}

needs() {
    for file in $rtformer $tests; do
        if [ ! -x $file ]; then
            echo "error: $file does not exist; run benches/gpu.sh --build on a machine with Rust" >&2
            exit 2
        fi
    done
}

# Records the command, its output and its exit code. A failure does not end the run, because GPU time is expensive.
failed=0
kept() {
    local file=$1 code=0
    shift
    echo "\$ $*" >"$file"
    "$@" 2>&1 | tee -a "$file" || code=$?
    echo "exit code $code" >>"$file"
    if [ $code != 0 ]; then
        echo "FAILED: $*"
        failed=1
    fi
}

# One file per cell; file names carry no meaning. The arguments after the device are the "batch:precision" cells of each model and
# size. Only single frames are profiled.
figures() {
    local device=$1 variant size cell batch precision profile
    shift
    for variant in $MODELS; do
        for size in $SIZES; do
            for cell in "$@"; do
                batch=${cell%:*} precision=${cell#*:} profile=
                if [ "$cell" = "$1" ]; then profile=--profile; fi
                kept "$raw/$variant.$size.$batch.$precision.txt" $rtformer bench --device "$device" --precision "$precision" \
                    --variant $variant --size "$size" --batch "$batch" --stages mask,frame --runs "$RUNS" --warmup "$WARMUP" $profile \
                    --json "$raw/bench.$variant.$size.$batch.$precision.json"
            done
        done
    done
}

check() {
    needs
    raw=$gpu/check
    rm -rf $raw
    mkdir -p $raw/results
    SIZES=96x64 RUNS=1 WARMUP=0 RESULTS=$raw/results README=$raw/README.md
    step "the tests start, and either run on a GPU or report that there is none"
    kept $raw/tests.txt $tests --test-threads 1 --nocapture --skip emulated --skip stand_in
    step "rtformer bench accepts every flag that this script uses"
    figures cpu 1:f32 8:f32
    step "PyTorch"
    if $PYTHON -c 'import torch, numpy, PIL' 2>/dev/null; then
        (cd benches/peers && $PYTHON -m doctest torch_gpu.py)
        kept $raw/torch.txt $PYTHON benches/peers/torch_gpu.py --rtformer $rtformer --check --out $raw/torch.json
    else
        $PYTHON -m py_compile benches/peers/torch_gpu.py
        echo "SKIPPED: $PYTHON has no torch, numpy or PIL; torch_gpu.py was only compiled"
    fi
    step "the files are merged and tabulated"
    printf 'name, driver_version\nNo GPU at all, 0.0\n' >$raw/gpu.csv
    printf '========= ERROR SUMMARY: 0 errors\nexit code 0\n' >$raw/memcheck.txt
    cp README.md $README
    $PYTHON -m doctest benches/gpu_table.py
    merge
    if [ $failed != 0 ]; then exit 1; fi
    echo "ready: nothing was measured"
}

merge() {
    $PYTHON benches/gpu_table.py merge $raw --results "$RESULTS"
    $PYTHON benches/gpu_table.py table --results "$RESULTS" --readme "$README"
    $PYTHON benches/gpu_table.py table --results "$RESULTS" --check "$README"
}

# Skips the emulated tests, which need a compiler and no GPU.
gpu_tests() {
    RTFORMER_REQUIRE=cuda kept $raw/tests.txt $tests --test-threads 1 --nocapture --skip emulated --skip stand_in
}

# Runs every kernel, with the small shapes of its table.
sanitizer() {
    PATH=$PATH:/usr/local/cuda/bin
    if ! have compute-sanitizer; then
        echo "SKIPPED: no compute-sanitizer"
        return
    fi
    local tool
    for tool in memcheck racecheck initcheck; do
        RTFORMER_REQUIRE=cuda kept $raw/$tool.txt timeout 30m compute-sanitizer --tool $tool --error-exitcode 1 \
            $tests --test-threads 1 --exact kernels_agree_with_their_definitions
    done
}

torch() {
    if ! $PYTHON -c 'import numpy, PIL, torch; assert torch.cuda.is_available()' 2>/dev/null; then
        echo "SKIPPED: $PYTHON has no torch with CUDA, no numpy or no PIL"
        return
    fi
    kept $raw/torch.txt $PYTHON benches/peers/torch_gpu.py --rtformer $rtformer --models $MODELS --sizes $SIZES --rounds "$ROUNDS" \
        --out $raw/torch.json
}

measure() {
    needs
    if ! have nvidia-smi; then
        echo "error: nvidia-smi not found, so there is no NVIDIA driver; use --check for a dry run" >&2
        exit 2
    fi
    raw=$gpu/raw
    if [ $# = 0 ]; then
        rm -rf $raw
        set -- tests sanitizer figures torch merge
    fi
    mkdir -p $raw "$RESULTS"
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit --format=csv -i 0 | tee $raw/gpu.csv
    local one
    for one in "$@"; do
        step "$one"
        case $one in
            tests) gpu_tests ;;
            sanitizer) sanitizer ;;
            figures) figures cuda 1:f16 8:f16 1:f32 ;;
            torch) torch ;; # interleaved with rtformer
            merge) merge ;;
        esac
    done
    step "done: every file of this run is in $raw"
    exit $failed
}

for word in "$@"; do
    case $word in
        --build | --check | tests | sanitizer | figures | torch | merge) ;;
        *) sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
case "${1:-}" in
    --build) build ;;
    --check) check ;;
    *) measure "$@" ;;
esac
