//! Messages that are the bytes of a value: `Queue<Plain<T>>`.

use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::{Pod, bytemuck};

use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Exact;

/// Marks a queue whose messages are plain values ([`Pod`]) and travel as their bytes: without serde, without
/// an allocation, as fast as bytes.
///
/// It is a marker, never a value: a `Queue<Plain<T>>` takes and returns `T`. It cannot be opened as a
/// `Queue<T>`, whose messages are encoded.
///
/// ```
/// use multiproc_queue::{Plain, Queue};
/// use multiproc_shm::{Pod, Zeroable};
///
/// #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
/// #[bytemuck(crate = "multiproc_shm::bytemuck")]
/// #[repr(C)]
/// struct Sample { time: u64, place: [f32; 2] }
///
/// let samples: Queue<Plain<Sample>> = Queue::new(1024)?;
/// samples.put_plain(&Sample { time: 7, place: [0.5, 1.5] })?;
/// assert_eq!(samples.get_plain()?.place, [0.5, 1.5]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Plain<T>(PhantomData<fn() -> T>);

/// Plain values, as their bytes.
impl<T: Pod> Queue<Plain<T>> {
    /// Puts a value; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    #[inline]
    pub fn put_plain(&self, value: &T) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::NEVER)
    }

    /// Puts a value if there is room; does not wait.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    #[inline]
    pub fn try_put_plain(&self, value: &T) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::NOW)
    }

    /// Puts a value; waits at most `timeout` for room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: `Full`, `Busy`, `Closed`, `TooLarge`, `NoSpace`, `Broken`.
    pub fn put_plain_timeout(&self, value: &T, timeout: Duration) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::after(timeout))
    }

    /// Takes the oldest value; waits while the queue is empty.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Closed` (and empty), `Decode` (with the bytes, if there are more or fewer than in a `T`), `Broken`.
    #[inline]
    pub fn get_plain(&self) -> Result<T, GetError> {
        self.get_plain_until(Deadline::NEVER)
    }

    /// Takes the oldest value if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn try_get_plain(&self) -> Result<T, GetError> {
        self.get_plain_until(Deadline::NOW)
    }

    /// Takes the oldest value; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    pub fn get_plain_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_plain_until(Deadline::after(timeout))
    }

    /// Takes the oldest value into the caller's variable, so that a large value need not be copied again;
    /// waits while the queue is empty. After an error the variable is unchanged.
    ///
    /// # Errors
    ///
    /// [`GetError`]: as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn get_plain_into(&self, value: &mut T) -> Result<(), GetError> {
        self.get_plain_into_until(value, Deadline::NEVER)
    }

    /// Takes the oldest value into the caller's variable if there is one; does not wait.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn try_get_plain_into(&self, value: &mut T) -> Result<(), GetError> {
        self.get_plain_into_until(value, Deadline::NOW)
    }

    /// Takes the oldest value into the caller's variable; waits at most `timeout` for one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Empty`, `Busy`, and as [`get_plain`](Self::get_plain).
    pub fn get_plain_into_timeout(&self, value: &mut T, timeout: Duration) -> Result<(), GetError> {
        self.get_plain_into_until(value, Deadline::after(timeout))
    }

    #[inline]
    fn get_plain_until(&self, deadline: Deadline) -> Result<T, GetError> {
        let mut value = T::zeroed();
        self.get_plain_into_until(&mut value, deadline)?;
        Ok(value)
    }

    #[inline]
    fn get_plain_into_until(&self, value: &mut T, deadline: Deadline) -> Result<(), GetError> {
        let mut target = Exact::new(bytemuck::bytes_of_mut(value));
        self.view().get(&mut target, deadline).map_err(|refusal| self.get_error(refusal))?;
        target.into_other().map_or(Ok(()), |bytes| Err(self.not_plain(bytes)))
    }

    #[cold]
    fn not_plain(&self, bytes: Vec<u8>) -> GetError {
        let problem = format!("its type has {} bytes", size_of::<T>());
        GetError::Decode { queue: self.shared.describe(), bytes, problem }
    }
}
