//! [`Borrowed`]: a message, read where it lies.
#![allow(unsafe_code, reason = "slices of shared memory")]

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::Deadline;

use crate::error::GetError;
use crate::queue::Queue;
use multiproc_ring::Payload;

/// Messages that are read where they lie.
impl Queue<[u8]> {
    /// Shows the oldest message to `read`, without a copy, and takes it; waits for one as long as it takes.
    ///
    /// `read` runs with the lock of those who get, so other gets wait for it meanwhile (and `try_` calls find the queue busy), while puts go on. It must not get from the same queue, which is refused, nor wait for somebody who does.
    /// When it panics, or this process is killed in it, the message is still there for another.
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
    /// [`GetError`]: closed and empty.
    pub fn get_with<R>(&self, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        self.get_with_until(Deadline::NEVER, read)
    }

    /// Shows the oldest message to `read`, if there is one, and takes it; as [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn try_get_with<R>(&self, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        self.get_with_until(Deadline::NOW, read)
    }

    /// Shows the oldest message to `read`, waiting for one at most this long, and takes it; as [`get_with`](Self::get_with).
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, closed.
    pub fn get_with_timeout<R>(&self, timeout: Duration, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        self.get_with_until(Deadline::after(timeout), read)
    }

    fn get_with_until<R>(&self, deadline: Deadline, read: impl FnOnce(Borrowed<'_>) -> R) -> Result<R, GetError> {
        let show = |payload| read(Borrowed { payload, thread: PhantomData });
        self.view().get_with(deadline, show).map_err(|refusal| self.get_error(refusal))
    }
}

/// The oldest message of a queue, where it lies; in [`get_with`](Queue::get_with).
pub struct Borrowed<'a> {
    payload: Payload<'a>,
    thread: PhantomData<*const ()>,
}

impl Borrowed<'_> {
    /// Its bytes.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out, from `offset` on.
    ///
    /// # Panics
    ///
    /// If they do not all lie inside.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) {
        self.payload.read_at(offset, target);
    }

    /// A copy of all.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read_at(0, &mut bytes);
        bytes
    }

    /// The bytes themselves: one piece, and where the queue lives in memory that cannot grow perhaps another; the second is empty otherwise.
    ///
    /// # Safety
    ///
    /// - No other process writes to them meanwhile. (None does that uses this crate; shared memory is no protection against one that scribbles.)
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue: Queue<[u8]> = Queue::new(16)?;
    /// queue.put_bytes(&[3; 1000])?;
    /// let sum: usize = queue.get_with(|message| {
    ///     // SAFETY: nobody scribbles here.
    ///     let [first, second] = unsafe { message.as_slices() };
    ///     first.iter().chain(second).map(|byte| usize::from(*byte)).sum()
    /// })?;
    /// assert_eq!(sum, 3000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub unsafe fn as_slices(&self) -> [&[u8]; 2] {
        let [(first, before), (second, behind)] = self.payload.pieces();
        // SAFETY: inside the mapped log; nobody writes there, by the protocol and by the caller's promise.
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
