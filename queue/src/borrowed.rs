//! [`Borrowed`]: a message that is read in place.
#![allow(unsafe_code, reason = "slices of shared memory")]

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::Deadline;

use crate::error::GetError;
use crate::queue::Queue;
use multiproc_ring::Payload;

/// Reading in place (zero-copy).
impl Queue<[u8]> {
    /// Passes the oldest message to `read` without a copy, and takes it; waits while the queue is empty.
    ///
    /// `read` runs under the lock of the consumers' side: other gets wait meanwhile (`try_` calls return
    /// `Busy`), puts go on. It must not get from the same queue, which is an error, nor wait for a thread
    /// that does. If `read` panics, or this process is killed in it, the message stays for another consumer.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// queue.put_bytes(b"a long one")?;
    /// let last = queue.get_with(|message| {
    ///     let mut last = [0; 3];
    ///     message.read_at(message.len() - 3, &mut last);
    ///     last
    /// })?;
    /// assert_eq!(&last, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `NoMemory`, `Broken`.
    pub fn get_with<R>(&self, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        self.get_with_until(Deadline::NEVER, read)
    }

    /// Passes the oldest message to `read` if there is one, and takes it; does not wait. As
    /// [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn try_get_with<R>(&self, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        self.get_with_until(Deadline::NOW, read)
    }

    /// Passes the oldest message to `read`, and takes it; waits at most `timeout` for one. As
    /// [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, `Closed`, `NoMemory`, `Broken`.
    pub fn get_with_timeout<R>(
        &self,
        timeout: Duration,
        read: impl FnOnce(Borrowed<'_>) -> R,
    ) -> Result<R, GetError> {
        self.get_with_until(Deadline::after(timeout), read)
    }

    fn get_with_until<R>(
        &self,
        deadline: Deadline,
        read: impl FnOnce(Borrowed<'_>) -> R,
    ) -> Result<R, GetError> {
        let show = |payload| read(Borrowed { payload, thread: PhantomData });
        self.view().get_with(deadline, show).map_err(|refusal| self.get_error(refusal))
    }
}

/// The oldest message of a queue, in place; see [`get_with`](Queue::get_with).
pub struct Borrowed<'a> {
    payload: Payload<'a>,
    thread: PhantomData<*const ()>,
}

impl Borrowed<'_> {
    /// Returns its length in bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Returns whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out, starting at `offset`.
    ///
    /// # Panics
    ///
    /// If the range is not inside the message.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) {
        self.payload.read_at(offset, target);
    }

    /// Returns a copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// Returns the bytes themselves. The second slice is empty, except in a queue in memory that cannot grow,
    /// where a message may wrap.
    ///
    /// # Safety
    ///
    /// - No other process writes to them meanwhile. (This crate never does; but shared memory is not
    ///   protected from a process that misbehaves.)
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// queue.put_bytes(&[3; 1000])?;
    /// let sum: usize = queue.get_with(|message| {
    ///     // SAFETY: no process misbehaves here.
    ///     let [first, second] = unsafe { message.as_slices() };
    ///     first.iter().chain(second).map(|byte| usize::from(*byte)).sum()
    /// })?;
    /// assert_eq!(sum, 3000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_slices(&self) -> [&[u8]; 2] {
        let [(first, before), (second, behind)] = self.payload.pieces();
        // SAFETY: inside the mapped log; no process writes there, by the protocol and by the caller's
        // promise.
        let first = unsafe { std::slice::from_raw_parts(first.cast_const(), before) };
        // SAFETY: as above.
        let second = unsafe { std::slice::from_raw_parts(second.cast_const(), behind) };
        [first, second]
    }
}

impl fmt::Debug for Borrowed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Borrowed").field("len", &self.len()).finish()
    }
}
