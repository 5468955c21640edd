#!/usr/bin/env bash
# Whether the workspace, its tests and benches too, compiles for a Mac, as far as can be told without one: `cargo check`, which links nothing.
# With --install it adds the target's standard library first. Says SKIPPED, and succeeds, where that cannot be had.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-apple-darwin
[ "${1:-}" = --install ] && rustup target add "$target" || true
if ! rustc --print target-libdir --target "$target" | xargs -I{} test -d {}; then
    echo "SKIPPED: the standard library for $target is not here (rustup target add $target)"
    exit 0
fi
if [ "$(uname)" != Darwin ]; then
    # Some dependencies compile C for the target, which only a Mac's compiler can, and which nothing here would be linked with.
    export CC_aarch64_apple_darwin=true AR_aarch64_apple_darwin=true RANLIB_aarch64_apple_darwin=true
fi
cargo check --release --workspace --all-targets --target "$target"
