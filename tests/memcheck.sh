#!/usr/bin/env bash
# Runs the kernels' whole suite under valgrind's memcheck: every row of every table, on the instruction sets that valgrind supports (AVX2
# and scalar, NEON; it hides AVX-512 from the program). Maps and weights are allocated to the last lane, so that an overrun is detected.
# The emulated GPU kernels have guards of their own. Prints SKIPPED and succeeds if valgrind is missing.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v valgrind >/dev/null; then
    echo "SKIPPED: memcheck: valgrind is not installed (apt-get install valgrind)"
    exit 0
fi

host=$(rustc --print host-tuple | tr a-z- A-Z_)
# The widest red zone that valgrind allows: an access that is off by a pixel or a row must not land in the next allocation.
export "CARGO_TARGET_${host}_RUNNER=valgrind --quiet --error-exitcode=99 --redzone-size=4096"
# In an incremental build, valgrind reports jumps on undefined values in loops of `resize_add` and `conv`. They are the compiler's: Miri, which
# sees the source, finds none there, and neither does valgrind in the build that is released.
export CARGO_INCREMENTAL=0
# The one skipped test compares CPUID with sysfs, and valgrind answers CPUID for a CPU of its own. Valgrind runs one thread at a time anyway.
cargo test --release --config 'profile.release.debug="line-tables-only"' -p rtformer-kernels --lib -- --test-threads 1 --skip gpu:: \
    --skip caches::tests::this_machine_has_plausible_caches
