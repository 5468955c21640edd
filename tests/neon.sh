#!/usr/bin/env bash
# NEON on a machine that has none: the kernels' whole suite and the network's parity with PaddleSeg, cross-built for 64-bit Arm and run
# under qemu. Says SKIPPED, and succeeds, where the tools are not to be had; `--install` installs those that are missing.
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
aarch64 | arm64) skip "this machine has it, and \`cargo test\` runs on it" ;;
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
have_target || skip "no standard library for $target here (rustup target add $target)"
have || skip "no cross compiler or no emulator here (apt-get install gcc-aarch64-linux-gnu qemu-user)"

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
# The oldest 64-bit core there is: an instruction that came later than NEON itself would not get past it.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu cortex-a53 -L $sysroot"
# What is under test is optimised as in a release; to optimise all of candle for a minute of tests would take many. gemm-f16 does not
# assemble without: its half-precision instructions must be inlined into the functions that have them.
cross=(--release --target "$target"
    --config "profile.release.opt-level=0"
    --config "profile.release.package.rtformer-kernels.opt-level=3"
    --config "profile.release.package.libm.opt-level=3"
    --config "profile.release.package.gemm-f16.opt-level=1")

cargo clippy "${cross[@]}" -p rtformer-kernels --all-targets -- -D warnings
# The emulated GPU kernels are built by this machine's compiler, for this machine.
cargo test "${cross[@]}" -p rtformer-kernels -- --skip gpu::
cargo test "${cross[@]}" --test parity
