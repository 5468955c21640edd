#!/usr/bin/env bash
# Checks that the workspace, including tests and benches, compiles for a Mac, as far as possible without one: `cargo check` links nothing.
# --install first adds the target's standard library. Prints SKIPPED and succeeds if it is not available.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-apple-darwin
[ "${1:-}" = --install ] && rustup target add "$target" || true
if ! rustc --print target-libdir --target "$target" | xargs -I{} test -d {}; then
    echo "SKIPPED: the standard library for $target is not installed (rustup target add $target)"
    exit 0
fi
if [ "$(uname)" != Darwin ]; then
    # Some dependencies compile C for the target, which only a Mac's compiler can do; nothing is linked here, so the C code is not needed.
    export CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true RANLIB_aarch64_apple_darwin=true
fi
cargo check --release --workspace --all-targets --target "$target"
