//! [`Reserved`]: a place in the queue, to be filled without a lock.
#![allow(unsafe_code, reason = "slices of shared memory")]

use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline};

use crate::error::PutError;
use crate::queue::Queue;
use multiproc_ring::Payload;
use multiproc_ring::{MOST, Refusal, Reservation};

/// So many places of a queue may be reserved at once, by all processes together.
pub const MAX_RESERVED: usize = MOST;

/// Places for messages that are written where they lie.
impl Queue<[u8]> {
    /// Reserves the next place for a message of `length` bytes, waiting for room as long as it takes, and while [`MAX_RESERVED`] places are reserved. To write into it takes no lock, so others put and get
    /// meanwhile; but the place is in the order, so what was put behind it is got after it.
    ///
    /// Killed before [`commit`](Reserved::commit), this process has put nothing, and those who wait for the message go on at once. Stopped, it holds up those who get.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// let mut place = queue.reserve(6)?;
    /// place.write_at(0, b"put");
    /// assert!(queue.try_get_bytes().is_err(), "not yet");
    /// place.write_at(3, b"in!");
    /// place.commit()?;
    /// assert_eq!(queue.get_bytes()?, b"putin!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`PutError`]: closed, too large, no space; busy when this thread has reserved all that can be.
    pub fn reserve(&self, length: usize) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::NEVER)
    }

    /// Reserves the next place if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, busy (also when [`MAX_RESERVED`] places are reserved), closed, too large, no space.
    pub fn try_reserve(&self, length: usize) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::NOW)
    }

    /// Reserves the next place, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, busy (also when [`MAX_RESERVED`] places are reserved), closed, too large, no space.
    pub fn reserve_timeout(&self, length: usize, timeout: Duration) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::after(timeout))
    }

    fn reserve_until(&self, length: usize, deadline: Deadline) -> Result<Reserved<'_>, PutError<()>> {
        match self.view().reserve(length, deadline) {
            Ok(reservation) => Ok(Reserved { queue: self, reservation, length, written: 0, thread: PhantomData }),
            Err(refusal) => Err(self.put_error((), refusal, length)),
        }
    }
}

/// A place in a queue, this thread's until it is [committed](Self::commit) or dropped; dropped, it is passed over.
///
/// It counts as a message ([`len`](Queue::len), capacity, [`counters`](Queue::counters)) from the beginning, and until a get has passed over it. What is not written holds rubbish: bytes of older messages.
/// Forgotten ([`mem::forget`](std::mem::forget)), it holds up those who get until this thread ends.
///
/// As [`io::Write`] it takes bytes from the beginning on, as many as it has room for.
#[must_use = "dropped without commit, it is passed over"]
pub struct Reserved<'a> {
    queue: &'a Queue<[u8]>,
    reservation: Reservation,
    length: usize,
    /// By `io::Write`.
    written: usize,
    /// A lock is its thread's.
    thread: PhantomData<*const ()>,
}

impl Reserved<'_> {
    /// Bytes of the message.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes bytes from `offset` on. In a forked child, whose parent's place it is, nothing is written.
    ///
    /// # Panics
    ///
    /// If they do not all lie inside.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(end.is_some_and(|end| end <= self.length), "{} bytes at {offset} of {}", bytes.len(), self.length);
        if let Some(payload) = self.payload() {
            payload.write_at(offset, bytes);
        }
    }

    /// The bytes themselves: one piece, and where the queue lives in memory that cannot grow perhaps another; the second is empty otherwise. Both are empty in a forked child.
    ///
    /// # Safety
    ///
    /// - No other process writes to this place meanwhile. (None does that uses this crate; shared memory is no protection against one that scribbles.)
    /// - If they are lent to other threads: this thread does not end before those are done. With it the place would become a hole, and be used again.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// let mut place = queue.reserve(5)?;
    /// // SAFETY: nobody scribbles here.
    /// let [first, second] = unsafe { place.as_mut_slices() };
    /// first.fill(b'x');
    /// second.fill(b'x');
    /// place.commit()?;
    /// assert_eq!(queue.get_bytes()?, b"xxxxx");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_mut_slices(&mut self) -> [&mut [u8]; 2] {
        let Some(payload) = self.payload() else { return [&mut [], &mut []] };
        let [(first, before), (second, behind)] = payload.pieces();
        // SAFETY: inside the mapped log; ours alone, by the protocol and by the caller's promise; any byte is a byte.
        let first = unsafe { std::slice::from_raw_parts_mut(first, before) };
        // SAFETY: as above; the pieces do not overlap.
        let second = unsafe { std::slice::from_raw_parts_mut(second, behind) };
        [first, second]
    }

    /// Makes it a message, also of a queue that was closed meanwhile. Killed in it, this process has put the whole message or none.
    ///
    /// # Errors
    ///
    /// [`PutError::Broken`] in a forked child: the place is its parent's.
    pub fn commit(self) -> Result<(), PutError<()>> {
        let committed = self.queue.view().commit(self.reservation);
        let not_held = || self.queue.put_error((), Refusal::Lock(AcquireError::NotHeld), self.length);
        let result = if committed { Ok(()) } else { Err(not_held()) };
        std::mem::forget(self);
        result
    }

    fn payload(&self) -> Option<Payload<'_>> {
        self.queue.view().payload_of(self.reservation)
    }
}

impl Write for Reserved<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.length - self.written);
        self.write_at(self.written, &bytes[..count]);
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.queue.view().give_up(self.reservation);
    }
}

impl fmt::Debug for Reserved<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserved").field("queue", self.queue).field("len", &self.length).finish()
    }
}
