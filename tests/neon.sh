#!/usr/bin/env bash
# Tests NEON on a machine without it: cross-builds the kernels' whole suite and the network's parity with PaddleSeg for 64-bit Arm, and
# runs them under qemu. Prints SKIPPED and succeeds if the tools are missing; `--install` first tries to install them.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
sysroot=/usr/aarch64-linux-gnu # where Debian's cross compiler keeps the C library

skip() {
    echo "SKIPPED: NEON: $1"
    exit 0
}
have() {
    local tool
    for tool in aarch64-linux-gnu-gcc qemu-aarch64; do command -v $tool >/dev/null || return 1; done
}
have_target() { [ -d "$(rustc --print target-libdir --target "$target")" ]; }

case "$(uname -m)" in
aarch64 | arm64) skip "this machine supports it; use \`cargo test\`" ;;
esac

if [ "${1:-}" = --install ]; then
    have_target || timeout 300 rustup target add "$target" || true
    if ! have && command -v apt-get >/dev/null; then
        root=()
        [ "$(id -u)" = 0 ] || root=(sudo -n)
        get() { timeout 600 "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Acquire::Retries=1 "$@" >/dev/null; }
        { get update && get install --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user; } || true
    fi
fi
have_target || skip "the standard library for $target is not installed (rustup target add $target)"
have || skip "the cross compiler or the emulator is not installed (apt-get install gcc-aarch64-linux-gnu qemu-user)"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# The oldest 64-bit core: an instruction newer than NEON itself would fail on it.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu cortex-a53 -L $sysroot"
# The tested code is optimised as in a release; optimising all of candle would take much longer than the minute of tests it serves.
# gemm-f16 does not assemble without optimisation: its half-precision instructions must be inlined into the functions that enable them.
cross=(--release --target "$target"
    --config "profile.release.opt-level=0"
    --config "profile.release.package.rtformer-kernels.opt-level=3"
    --config "profile.release.package.libm.opt-level=3"
    --config "profile.release.package.gemm-f16.opt-level=1")

cargo clippy "${cross[@]}" -p rtformer-kernels --all-targets -- -D warnings
# This machine's compiler builds the emulated GPU kernels, for this machine.
cargo test "${cross[@]}" -p rtformer-kernels -- --skip gpu::
cargo test "${cross[@]}" --test parity
