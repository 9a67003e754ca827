//! What a guest may use of memory, tables and instances.

use wasmtime::{ResourceLimiter, Result};

/// Bytes that one call between guest and host may copy out of the guest.
pub(super) const COPIED_BYTES: usize = 1024 * 1024;
/// Stack of the guest. The thread that calls needs more than this: interpreters in guests recurse.
pub(super) const STACK_BYTES: usize = 1024 * 1024;

/// Core instances of one component: Python's components have about 40.
const INSTANCES: usize = 64;
const TABLES: usize = 200;
const MEMORIES: usize = 16;
/// Elements of all tables together.
const TABLE_ELEMENTS: usize = 200_000;

/// The error of a guest that asked for more.
#[derive(Debug, thiserror::Error)]
#[error("the guest asked for more memory than it may have")]
pub(super) struct MemoryExceeded;

/// One store's account.
#[derive(Debug)]
pub(super) struct Limits {
    /// Bytes of all linear memories together that are still to be had.
    memory_left: usize,
    table_elements_left: usize,
}

impl Limits {
    pub(super) fn new(memory_mib: u32) -> Self {
        Self {
            memory_left: usize::try_from(memory_mib).unwrap_or(usize::MAX).saturating_mul(1 << 20),
            table_elements_left: TABLE_ELEMENTS,
        }
    }
}

impl ResourceLimiter for Limits {
    /// An error, rather than the `false` that makes `memory.grow` answer -1: a guest that goes on after a
    /// refused allocation mostly ends in an `unreachable`, which tells nobody what was wrong.
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current);
        match self.memory_left.checked_sub(more) {
            Some(left) => {
                self.memory_left = left;
                Ok(true)
            }
            None => Err(MemoryExceeded.into()),
        }
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> Result<bool> {
        let more = desired.saturating_sub(current);
        match self.table_elements_left.checked_sub(more) {
            Some(left) => {
                self.table_elements_left = left;
                Ok(true)
            }
            None => Err(MemoryExceeded.into()),
        }
    }

    fn instances(&self) -> usize {
        INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_share_one_budget() {
        let mut limits = Limits::new(1);
        assert!(limits.memory_growing(0, 512 << 10, None).unwrap());
        assert!(limits.memory_growing(0, 512 << 10, None).unwrap());
        let error = limits.memory_growing(512 << 10, (512 << 10) + 1, None).unwrap_err();
        assert!(error.downcast_ref::<MemoryExceeded>().is_some());
        assert!(limits.table_growing(0, TABLE_ELEMENTS, None).unwrap());
        assert!(limits.table_growing(0, 1, None).is_err());
    }
}
