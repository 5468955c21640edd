//! Catches panics in the decoders, which are safe code from other projects. A panic fails only its photo.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Whether this thread is inside a decoder.
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a decoder; returns `None` if it panics.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
    let before = DECODING.replace(true);
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    DECODING.set(before);
    decoded.ok()
}

/// Makes panics inside an image decoder silent.
///
/// Decoding turns such a panic into an error for its photo, but Rust first prints a message and possibly a backtrace. A
/// program may call this function once when it starts. The previous panic hook still prints panics anywhere else. The
/// library never calls this function.
///
/// ```
/// rtformer::pixels::hide_decoder_panics();
/// ```
pub fn hide_decoder_panics() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        // While a thread ends, its thread-local variables may already be destroyed.
        if !DECODING.try_with(Cell::get).unwrap_or(false) {
            print(info);
        }
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static PRINTED: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn only_panics_inside_a_decoder_are_silent() {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PRINTED.set(PRINTED.get() + 1);
            print(info);
        }));
        hide_decoder_panics();
        let inside = guarded(|| -> u8 { panic!("inside a decoder: must not be printed") });
        assert_eq!((inside, PRINTED.get()), (None, 0));
        assert_eq!(guarded(|| 7), Some(7));
        let outside = catch_unwind(|| panic!("after a decoder: is printed"));
        assert!(outside.is_err());
        assert_eq!(PRINTED.get(), 1);
        guarded(|| {
            // A panic on another thread is printed, even while this thread decodes.
            let other = std::thread::spawn(|| {
                let panicked = catch_unwind(|| panic!("on another thread: is printed"));
                (panicked.is_err(), PRINTED.get())
            });
            assert_eq!(other.join().unwrap(), (true, 1));
        });
        drop(panic::take_hook()); // restores the default hook
    }
}
