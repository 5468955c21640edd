//! Panics of the decoders, which are safe code but not ours: one costs its photo and nothing else.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; `None` if it panics.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
    let before = DECODING.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(before);
    decoded.ok()
}

/// Makes panics inside an image decoder silent.
///
/// Decoding turns such a panic into an error for its photo, but Rust first prints a message and possibly a backtrace. A program may
/// call this once when it starts; panics anywhere else are still printed, by the hook that was installed before. The library never
/// calls it.
///
/// ```
/// rtformer::pixels::hide_decoder_panics();
/// ```
pub fn hide_decoder_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // The thread's variables may be gone already while it ends.
        if !DECODING.try_with(Cell::get).unwrap_or(false) {
            print(info);
        }
    }));
}
