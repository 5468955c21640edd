#!/usr/bin/env bash
# Runs the kernels' suite under Miri: the first rows of every table, with the scalar definitions and, where Miri supports them, the AVX2
# bodies. Miri detects what a normal run cannot: aliasing violations, reads of uninitialised memory, and pointers that leave their
# allocation but not its page. Tests that it cannot run are marked in place: mapped files, code of other compilers, and those that would
# take minutes. Prints SKIPPED and succeeds if Miri is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: Miri is not installed (rustup toolchain install nightly --component miri rust-src)"
    exit 0
fi

# A separate folder, because everything is built with another compiler.
export CARGO_TARGET_DIR=target/miri
# Otherwise Miri adds random errors to sines and roots, which breaks tests of bitwise equality.
export MIRIFLAGS="-Zmiri-deterministic-floats"
[ "$(uname -m)" = x86_64 ] && export RUSTFLAGS="-C target-feature=+avx2,+fma,+f16c"
cargo +nightly miri test -p rtformer-kernels --lib -- --skip gpu:: "$@"
