//! [`Memory`]: where a ring and its log are. [`RingObject`]: an object in shared memory that has them.

use std::ops::Range;

use multiproc_shm::{Error, Object, Shared};

use crate::log::Log;
use crate::words::{Ring, SideTable};

/// Where a ring and its log are.
pub trait Memory {
    /// Returns the fixed part of the ring.
    fn ring(&self) -> &Ring;

    /// Returns the log.
    fn log(&self) -> Log<'_>;

    /// Sets memory aside for these words of the log.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    fn populate(&self, words: Range<u32>) -> Result<(), Error>;

    /// Gives the memory of these words back; what cannot be given back is kept.
    fn give_back(&self, words: Range<u32>);

    /// Returns what lies behind the log, if this ring has members and reservations. It has memory as far as
    /// the ring [says](Ring::has_side_table).
    fn side_table(&self) -> Option<&SideTable> {
        None
    }

    /// Sets memory aside for the side table.
    ///
    /// # Errors
    ///
    /// The system has no memory.
    fn populate_side_table(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// An object in shared memory that holds a ring.
pub trait RingObject: Object + Sized {
    /// Returns the fixed part of the ring.
    fn ring(&self) -> &Ring;

    /// Returns the log as the handle's process has it mapped.
    fn log(shared: &Shared<Self>) -> Log<'_>;

    /// Returns the bytes of the object that these words of the log take up.
    fn bytes_of(words: Range<u32>) -> Range<usize>;

    /// Returns what [`Memory::side_table`] returns.
    fn side_table(_shared: &Shared<Self>) -> Option<&SideTable> {
        None
    }

    /// Does what [`Memory::populate_side_table`] does.
    ///
    /// # Errors
    ///
    /// The system has no memory.
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
        // Where the file system cannot give memory back, it is kept.
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
