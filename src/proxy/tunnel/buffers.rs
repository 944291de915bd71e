//! Buffers that flows borrow while bytes move, and return when idle.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::dial::Descriptors;

use super::splice::Pipes;

/// A store of idle buffers.
///
/// The limit applies to idle buffers, not to borrowed ones: a flow with bytes to move never waits
/// for another flow, and the number of flows is limited elsewhere.
pub(crate) struct Buffers {
    large: Shelf,
    small: Shelf,
    pipes: Pipes,
}

/// The size of a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Size {
    /// 256 KiB, for bulk.
    Large,
    /// 16 KiB.
    Small,
}

/// A borrowed buffer: not zeroed, may hold another flow's data until written; returned when
/// dropped.
pub(crate) struct Buffer<'b> {
    shelf: &'b Shelf,
    bytes: Box<[u8]>,
}

/// Buffers of one size.
struct Shelf {
    idle: Mutex<Vec<Box<[u8]>>>,
    kept: usize,
    bytes: usize,
}

impl Buffers {
    /// Keeps up to `small` and `large` idle buffers of each size.
    pub(crate) fn new(small: usize, large: usize) -> Self {
        Self {
            large: Shelf::new(large, Size::Large),
            small: Shelf::new(small, Size::Small),
            pipes: Pipes::default(),
        }
    }

    /// Keeps the usual number of each size; pipes are made within the budget.
    pub(crate) fn within(budget: Arc<Descriptors>) -> Self {
        Self {
            pipes: Pipes::within(budget),
            ..Self::default()
        }
    }

    /// Returns an idle buffer, or a new one.
    pub(crate) fn take(&self, size: Size) -> Buffer<'_> {
        self.of(size).take()
    }

    /// The number of idle buffers of a size.
    pub(crate) fn idle(&self, size: Size) -> usize {
        self.of(size).with_idle(|idle| idle.len())
    }

    /// The pipes for moving bytes in the kernel.
    pub(crate) fn pipes(&self) -> &Pipes {
        &self.pipes
    }

    fn of(&self, size: Size) -> &Shelf {
        match size {
            Size::Large => &self.large,
            Size::Small => &self.small,
        }
    }
}

/// Enough idle buffers for the work of one or two threads.
impl Default for Buffers {
    fn default() -> Self {
        Self::new(64, 16)
    }
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers")
            .field("small", &self.idle(Size::Small))
            .field("large", &self.idle(Size::Large))
            .finish()
    }
}

impl Size {
    /// The size in bytes.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Large => 256 * 1024,
            Self::Small => 16 * 1024,
        }
    }
}

impl Shelf {
    fn new(kept: usize, size: Size) -> Self {
        Self {
            idle: Mutex::default(),
            kept,
            bytes: size.bytes(),
        }
    }

    fn take(&self) -> Buffer<'_> {
        let idle = self.with_idle(Vec::pop);
        Buffer {
            shelf: self,
            bytes: idle.unwrap_or_else(|| vec![0; self.bytes].into()),
        }
    }

    /// A panic elsewhere cannot leave the list half changed, so a poisoned lock is still good.
    fn with_idle<T>(&self, act: impl FnOnce(&mut Vec<Box<[u8]>>) -> T) -> T {
        act(&mut self.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Deref for Buffer<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let kept = self.shelf.kept;
        self.shelf.with_idle(|idle| {
            if idle.len() < kept {
                idle.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_when_dropped_and_is_lent_again() {
        let buffers = Buffers::new(2, 2);
        let first = buffers.take(Size::Small);
        let place = first.as_ptr();
        drop(first);
        assert_eq!(buffers.idle(Size::Small), 1);
        assert_eq!(buffers.take(Size::Small).as_ptr(), place);
    }

    #[test]
    fn no_more_are_kept_than_was_asked() {
        let buffers = Buffers::new(1, 0);
        drop((
            buffers.take(Size::Small),
            buffers.take(Size::Small),
            buffers.take(Size::Large),
        ));
        assert_eq!(
            (buffers.idle(Size::Small), buffers.idle(Size::Large)),
            (1, 0)
        );
    }

    #[test]
    fn sizes_are_as_named() {
        let buffers = Buffers::default();
        assert_eq!(buffers.take(Size::Small).len(), 16 * 1024);
        assert_eq!(buffers.take(Size::Large).len(), 256 * 1024);
    }
}
