#!/usr/bin/env bash
# The kernels' suite under Miri: the first rows of every table, by the scalar definitions and, of what Miri knows, the AVX2 bodies. It
# sees what a run cannot: an aliasing rule that is broken, memory that nobody wrote, a pointer that strays inside its allocation's page.
# What it cannot run is marked where it is: mapped files, other compilers' code, and what would take it minutes.
# Says SKIPPED, and succeeds, where there is no Miri.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: Miri: not here (rustup toolchain install nightly --component miri rust-src)"
    exit 0
fi

# A folder of its own: everything is built for another compiler.
export CARGO_TARGET_DIR=target/miri
# Else Miri rounds sines and roots a little off, at random, and what must be equal to the bit is not.
export MIRIFLAGS="-Zmiri-deterministic-floats"
[ "$(uname -m)" = x86_64 ] && export RUSTFLAGS="-C target-feature=+avx2,+fma,+f16c"
cargo +nightly miri test -p rtformer-kernels --lib -- --skip gpu:: "$@"
