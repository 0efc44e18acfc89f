//! [`Reserved`]: a message that is written in place, without a lock.
#![allow(unsafe_code, reason = "slices of shared memory")]

use std::fmt;
use std::io::{self, Write};
use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline};

use crate::error::PutError;
use crate::queue::Queue;
use multiproc_ring::Payload;
use multiproc_ring::{MAX_RESERVATIONS, Refusal, Reservation};

/// How many messages of a queue may be reserved at once, by all processes together.
pub const MAX_RESERVED: usize = MAX_RESERVATIONS;

/// Writing in place (zero-copy).
impl Queue<[u8]> {
    /// Reserves a message of `length` bytes at the end of the queue; waits for room, and while
    /// [`MAX_RESERVED`] messages are reserved. Writing into it takes no lock, so other processes put and get
    /// meanwhile. The order is kept: what is put behind it is got after it.
    ///
    /// If this process is killed before [`commit`](Reserved::commit), it has put nothing, and waiting
    /// consumers go on at once. If it is stopped, consumers wait behind it.
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
    /// [`PutError`]: `Closed`, `TooLarge`, `NoSpace`, `Broken`; `Busy` if this thread itself holds all [`MAX_RESERVED`] reservations.
    pub fn reserve(&self, length: usize) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::NEVER)
    }

    /// Reserves a message if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy` (also while [`MAX_RESERVED`] messages are reserved), `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn try_reserve(&self, length: usize) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::NOW)
    }

    /// Reserves a message; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy` (also while [`MAX_RESERVED`] messages are reserved), `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn reserve_timeout(&self, length: usize, timeout: Duration) -> Result<Reserved<'_>, PutError<()>> {
        self.reserve_until(length, Deadline::after(timeout))
    }

    fn reserve_until(&self, length: usize, deadline: Deadline) -> Result<Reserved<'_>, PutError<()>> {
        match self.view().reserve(length, deadline) {
            Ok(reservation) => {
                Ok(Reserved { queue: self, reservation, length, written: 0, thread: PhantomData })
            }
            Err(refusal) => Err(self.put_error((), refusal, length)),
        }
    }
}

/// A reserved message, owned by this thread until it is [committed](Self::commit) or dropped. Dropped, it is
/// an aborted record, which the next get skips.
///
/// It counts as a message ([`len`](Queue::len), capacity, [`counters`](Queue::counters)) from the reservation
/// on, and until a get has skipped it. Bytes that are not written are those of older messages. Forgotten
/// ([`mem::forget`](std::mem::forget)), it makes consumers wait until this thread ends.
///
/// [`io::Write`] writes from the first byte on, as many bytes as were reserved.
#[must_use = "dropped without commit, it puts nothing"]
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
    /// Returns the length of the message in bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes bytes, starting at `offset`. In a forked child nothing is written: the reservation is its
    /// parent's.
    ///
    /// # Panics
    ///
    /// If the range is not inside the message.
    pub fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset.checked_add(bytes.len());
        assert!(
            end.is_some_and(|end| end <= self.length),
            "{} bytes at {offset} of {}",
            bytes.len(),
            self.length
        );
        if let Some(payload) = self.payload() {
            payload.write_at(offset, bytes);
        }
    }

    /// Returns the bytes themselves. The second slice is empty, except in a queue in memory that cannot grow,
    /// where a message may wrap. Both are empty in a forked child.
    ///
    /// # Safety
    ///
    /// - No other process writes to these bytes meanwhile. (This crate never does; but shared memory is not
    ///   protected from a process that misbehaves.)
    /// - If the slices are lent to other threads, this thread does not end before those are done: with it the
    ///   reservation would be aborted, and its bytes reused.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// let mut place = queue.reserve(5)?;
    /// // SAFETY: no process misbehaves here.
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
        // SAFETY: inside the mapped log; ours alone, by the protocol and by the caller's promise; any byte is
        // a byte.
        let first = unsafe { std::slice::from_raw_parts_mut(first, before) };
        // SAFETY: as above; the pieces do not overlap.
        let second = unsafe { std::slice::from_raw_parts_mut(second, behind) };
        [first, second]
    }

    /// Puts the message, also if the queue was closed meanwhile. If this process is killed meanwhile, it has
    /// put the whole message or nothing.
    ///
    /// # Errors
    ///
    /// [`PutError::Broken`] in a forked child: the reservation is its parent's.
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
