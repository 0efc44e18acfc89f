//! Messages that are the bytes of a value: `Queue<Plain<T>>`.

use std::marker::PhantomData;
use std::time::Duration;

use multiproc_robust::Deadline;
use multiproc_shm::{Pod, bytemuck};

use crate::error::{GetError, PutError};
use crate::queue::Queue;
use multiproc_ring::Exact;

/// Says of a queue that its messages are plain values, [`Pod`], and travel as their bytes: without serde, without an allocation, as fast as bytes.
///
/// It is a mark, and no value: a `Queue<Plain<T>>` takes and gives `T`. A `Queue<T>` of the same name is another queue, since its messages are encoded.
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
    /// Puts a value, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PutError`]: closed, too large.
    #[inline]
    pub fn put_plain(&self, value: &T) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::NEVER)
    }

    /// Puts a value if there is room.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, closed, too large.
    #[inline]
    pub fn try_put_plain(&self, value: &T) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::NOW)
    }

    /// Puts a value, waiting for room at most this long.
    ///
    /// # Errors
    ///
    /// [`PutError`]: full, busy, closed, too large.
    pub fn put_plain_timeout(&self, value: &T, timeout: Duration) -> Result<(), PutError<()>> {
        self.put_bytes_until(bytemuck::bytes_of(value), Deadline::after(timeout))
    }

    /// Takes a value, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError`]: closed and empty; of another length, then with its bytes.
    #[inline]
    pub fn get_plain(&self) -> Result<T, GetError> {
        self.get_plain_until(Deadline::NEVER)
    }

    /// Takes a value if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, and as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn try_get_plain(&self) -> Result<T, GetError> {
        self.get_plain_until(Deadline::NOW)
    }

    /// Takes a value, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, and as [`get_plain`](Self::get_plain).
    pub fn get_plain_timeout(&self, timeout: Duration) -> Result<T, GetError> {
        self.get_plain_until(Deadline::after(timeout))
    }

    /// Takes a value into the caller's place, waiting for one as long as it takes: what is large need not be copied again. The place is unchanged if there is an error.
    ///
    /// # Errors
    ///
    /// [`GetError`]: as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn get_plain_into(&self, value: &mut T) -> Result<(), GetError> {
        self.get_plain_into_until(value, Deadline::NEVER)
    }

    /// Takes a value into the caller's place, if there is one.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, and as [`get_plain`](Self::get_plain).
    #[inline]
    pub fn try_get_plain_into(&self, value: &mut T) -> Result<(), GetError> {
        self.get_plain_into_until(value, Deadline::NOW)
    }

    /// Takes a value into the caller's place, waiting for one at most this long.
    ///
    /// # Errors
    ///
    /// [`GetError`]: empty, busy, and as [`get_plain`](Self::get_plain).
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
