//! [`Memory`]: where a ring and its log are; [`RingObject`]: an object in shared memory that has them.

use std::ops::Range;

use multiproc_shm::{Error, Object, Shared};

use crate::log::Log;
use crate::side_table::SideTable;
use crate::view::Ring;

/// Where a ring and its log are.
pub trait Memory {
    fn ring(&self) -> &Ring;

    fn log(&self) -> Log<'_>;

    /// Sets memory aside for these words, or tells that there is none.
    fn populate(&self, words: Range<u32>) -> Result<(), Error>;

    /// Gives the memory of these words back; what cannot be given back is kept.
    fn give_back(&self, words: Range<u32>);

    /// What lies behind the log of a queue; it has memory as far as the ring says that it was used.
    fn side_table(&self) -> Option<&SideTable> {
        None
    }

    /// Sets memory aside for that.
    fn populate_side_table(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// An object in shared memory that holds a ring.
pub trait RingObject: Object + Sized {
    /// The fixed part of the ring.
    fn ring(&self) -> &Ring;

    /// The log, as the handle's process has it mapped.
    fn log(shared: &Shared<Self>) -> Log<'_>;

    /// Bytes of the object that these words of the log take up.
    fn bytes_of(words: Range<u32>) -> Range<usize>;

    /// See [`Memory::side_table`].
    fn side_table(_shared: &Shared<Self>) -> Option<&SideTable> {
        None
    }

    /// See [`Memory::populate_side_table`].
    fn populate_side_table(_shared: &Shared<Self>) -> Result<(), Error> {
        Ok(())
    }
}

impl<B: RingObject> Memory for Shared<B> {
    #[inline(always)]
    fn ring(&self) -> &Ring {
        B::ring(self)
    }

    #[inline(always)]
    fn log(&self) -> Log<'_> {
        B::log(self)
    }

    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        Self::populate(self, B::bytes_of(words))
    }

    fn give_back(&self, words: Range<u32>) {
        // Where the file system cannot, it stays.
        let _ = Self::give_back(self, B::bytes_of(words));
    }

    #[inline]
    fn side_table(&self) -> Option<&SideTable> {
        B::side_table(self)
    }

    fn populate_side_table(&self) -> Result<(), Error> {
        B::populate_side_table(self)
    }
}
