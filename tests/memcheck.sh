#!/usr/bin/env bash
# The kernels' whole suite under valgrind's memcheck: every row of every table, on the instruction sets that valgrind knows (AVX2 and
# scalar, NEON; it hides AVX-512 from the program). Maps and weights are allocated to the last lane, so that a step too far is seen.
# The emulated GPU kernels have guards of their own. Says SKIPPED, and succeeds, where there is no valgrind.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: memcheck: no valgrind here (apt-get install valgrind)"
    exit 0
fi

host=$(rustc --print host-tuple | tr a-z- A-Z_)
# The red zone is the widest there is: a kernel that is a pixel or a row off must not land in the next allocation.
export "CARGO_TARGET_${host}_RUNNER=valgrind --quiet --error-exitcode=99 --redzone-size=4096"
# Valgrind runs one thread at a time anyhow.
cargo test --release --config 'profile.release.debug="line-tables-only"' -p rtformer-kernels --lib -- --skip gpu:: --test-threads 1
