//! Takes variables out of the environment so that nothing of them is left in the process.
//!
//! Unsetting a variable only forgets the way to it: its bytes stay in memory, where `/proc/self/environ` shows
//! them. Starting the executable again without them costs 2 ms, which is a third of what a decision takes.

use std::ffi::{CStr, c_char};

#[expect(
    unsafe_code,
    reason = "the library that std is made with has it; no crate of ours names libc"
)]
unsafe extern "C" {
    /// POSIX's: the array of `NAME=value`, whose end is a null pointer.
    static mut environ: *mut *mut c_char;
}

/// Overwrites all variables whose names start with `prefix` and takes them out of the environment.
///
/// To be called while the process has no other thread, and before anything has kept a pointer into the
/// environment or set a variable: what this overwrites is the memory that the kernel made for the new process, to
/// which the C library and Rust's copy nothing.
#[expect(unsafe_code, reason = "no library overwrites the environment's own memory")]
pub(super) fn erase(prefix: &[u8]) {
    // SAFETY: `environ` and what it points to are valid C strings that only this thread uses, as the function
    // demands; the kernel maps them writable. The array only becomes shorter, in place.
    unsafe {
        let mut next = environ;
        if next.is_null() {
            return;
        }
        let mut kept = next;
        while !(*next).is_null() {
            let length = CStr::from_ptr(*next).to_bytes().len();
            if CStr::from_ptr(*next).to_bytes().starts_with(prefix) {
                for position in 0..length {
                    // Volatile: nothing in this program reads it again.
                    (*next).add(position).write_volatile(0);
                }
            } else {
                *kept = *next;
                kept = kept.add(1);
            }
            next = next.add(1);
        }
        *kept = std::ptr::null_mut();
    }
}
