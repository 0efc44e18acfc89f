//! [`Value`]: a plain value and its lock. A killed writer never leaves it half written.
#![allow(unsafe_code, reason = "copies in and out of the two buffers")]

mod guard;

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, fence};
use std::time::Duration;

use bytemuck::Pod;
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Acquired, Deadline, LockError, Owner, RobustLock};
use serde::{Deserialize, Serialize};

use crate::copy;
use crate::header::Element;
use crate::shared::{Object, Shared};

pub use guard::ValueGuard;

/// A value that processes share, with its own lock (Python's `Value`).
///
/// `T` is plain data ([`bytemuck::Pod`]): numbers, arrays of them, and structs that derive it. A guard holds
/// a private copy, which becomes the value when the guard is dropped. Readers do not wait for writers.
///
/// # When a process dies
///
/// A killed writer changes nothing: there are two buffers, and one store makes the other buffer current. The
/// next owner of the lock can ask [`previous_owner_died`](ValueGuard::previous_owner_died). A killed reader
/// leaves no trace.
///
/// ```
/// use multiproc_shm::Value;
///
/// let total = Value::new(0_u64)?;
/// *total.lock()? += 5;
/// total.update(|sum| *sum *= 2)?;
/// assert_eq!(total.get()?, 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A struct derives [`Pod`](crate::Pod) and [`Zeroable`](crate::Zeroable), and names the path to bytemuck
/// (with the facade: `multiproc::bytemuck`). Then the program depends on this crate only.
///
/// ```
/// use multiproc_shm::{Pod, Value, Zeroable};
///
/// #[derive(Clone, Copy, Pod, Zeroable)]
/// #[bytemuck(crate = "multiproc_shm::bytemuck")]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// let position = Value::new(Point { x: 1.0, y: 2.0 })?;
/// position.update(|it| it.x = 3.0)?;
/// assert_eq!(position.get()?.x, 3.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct Value<T: Pod> {
    pub(crate) shared: Shared<ValueBlock<T>>,
}

/// The shared part of a [`Value`]. Two buffers of whole words lie behind it.
///
/// | bytes | field |
/// |---|---|
/// | 0..64 | lock |
/// | 64..72 | version: its lowest bit says which buffer is current |
/// | 128.. | buffer 0, buffer 1 |
#[repr(C, align(64))]
#[derive(Debug)]
pub struct ValueBlock<T> {
    pub(crate) lock: RobustLock,
    version: AtomicU64,
    reserved: [AtomicU64; 7],
    element: PhantomData<fn() -> T>,
}

const _: () = assert!(size_of::<ValueBlock<u64>>() == 128);

// SAFETY: `repr(C)`, atomics only; its size depends on `T` alone, which the element in the header pins; one
// lock.
unsafe impl<T: Pod> Object for ValueBlock<T> {
    const KIND: &'static str = "value";
    const LAYOUT: u32 = 1;
    type Params = T;

    fn extents(_: &T) -> Result<[u64; 2], String> {
        Ok([size_of::<T>() as u64, 0])
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let buffers = 2 * copy::words(size_of::<T>()) * copy::WORD;
        (extents == [size_of::<T>() as u64, 0]).then_some(size_of::<Self>() + buffers)
    }

    fn element() -> Element {
        Element::of::<T>()
    }

    unsafe fn init(&self, tail: *const AtomicU64, value: T) {
        // SAFETY: buffer 0 of a new object.
        unsafe { copy::store(tail, bytemuck::bytes_of(&value)) };
    }

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(&self.lock), None]
    }
}

crate::verbs! {
    impl[T: Pod] Value<T> { shared: ValueBlock<T> };
    "value" "with `value` in it"; new(value: T) => value;
    other "it holds another type";
}

impl<T: Pod> Value<T> {
    /// Takes the lock, and blocks until it has.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] if this thread holds the lock already, or holds too many locks.
    #[inline(always)]
    pub fn lock(&self) -> Result<ValueGuard<'_, T>, LockError> {
        self.lock_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes the lock if it is free, without blocking.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    pub fn try_lock(&self) -> Result<Option<ValueGuard<'_, T>>, LockError> {
        self.lock_timeout(Duration::ZERO)
    }

    /// Takes the lock, and blocks for at most this long. Returns `None` if that did not suffice.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    pub fn lock_timeout(&self, timeout: Duration) -> Result<Option<ValueGuard<'_, T>>, LockError> {
        match self.lock_until(Deadline::after(timeout)) {
            Ok(guard) => Ok(Some(guard)),
            Err(AcquireError::TimedOut) => Ok(None),
            Err(cause) => Err(self.error(cause)),
        }
    }

    /// Returns the value. It does not wait for a writer, unless 64 attempts to read between two writes have
    /// failed. Then it takes the lock.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    pub fn get(&self) -> Result<T, LockError> {
        for _ in 0..64 {
            let version = self.shared.version.load(Acquire);
            let value = self.read(version);
            // ORDER: pairs with the fence in `commit`: if any word was of a later write, this load sees that
            // write's version.
            fence(Acquire);
            if self.shared.version.load(Relaxed) == version {
                return Ok(value);
            }
        }
        self.lock().map(|guard| *guard)
    }

    /// Sets the value.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    #[inline(always)]
    pub fn set(&self, value: T) -> Result<(), LockError> {
        self.replace(value).map(|_| ())
    }

    /// Sets the value and returns the previous one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    #[inline(always)]
    pub fn replace(&self, value: T) -> Result<T, LockError> {
        let mut guard = self.lock()?;
        Ok(std::mem::replace(&mut *guard, value))
    }

    /// Changes the value under the lock and returns the new one. If `change` panics, nothing changes.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock).
    #[inline(always)]
    pub fn update(&self, change: impl FnOnce(&mut T)) -> Result<T, LockError> {
        let mut guard = self.lock()?;
        change(&mut guard);
        Ok(*guard)
    }

    /// Sets the value to `new` if its bytes are those of `expected`. Returns the previous value, as `Ok` if
    /// it was set.
    ///
    /// ```
    /// # use multiproc_shm::Value;
    /// let pair = Value::new([1_u64, 2, 3])?;
    /// assert_eq!(pair.compare_exchange([1, 2, 3], [4, 5, 6])?, Ok([1, 2, 3]));
    /// assert_eq!(pair.compare_exchange([1, 2, 3], [7, 8, 9])?, Err([4, 5, 6]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns the errors of [`lock`](Self::lock). The inner error is the current value, if it differs from
    /// `expected`.
    pub fn compare_exchange(&self, expected: T, new: T) -> Result<Result<T, T>, LockError> {
        let mut guard = self.lock()?;
        let before = *guard;
        if bytemuck::bytes_of(&before) != bytemuck::bytes_of(&expected) {
            return Ok(Err(before));
        }
        *guard = new;
        Ok(Ok(before))
    }

    /// Returns the current owner of the lock.
    pub fn owner(&self) -> Option<Owner> {
        self.shared.lock.owner()
    }

    // Inlined, as is all code between the lock and its user: the stores of a call would have to wait before
    // the locked instruction, for 10 ns.
    #[inline(always)]
    fn lock_until(&self, deadline: Deadline) -> Result<ValueGuard<'_, T>, AcquireError> {
        // SAFETY: the guard borrows this handle, so the mapping outlives it; a leaked guard keeps the mapping
        // (`Segment::drop`).
        let died = match unsafe { self.shared.lock.acquire(deadline) }? {
            Acquired::Clean => None,
            Acquired::OwnerDied(death) => Some(death),
        };
        // Nothing to repair: a writer that died never made its buffer current.
        let copy = self.read(self.shared.version.load(Relaxed));
        Ok(ValueGuard::new(self, copy, died))
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn error(&self, cause: AcquireError) -> LockError {
        LockError::new(self.shared.describe(), cause)
    }

    fn buffer(&self, version: u64) -> *const AtomicU64 {
        self.shared.tail().wrapping_add(if version & 1 == 0 { 0 } else { copy::words(size_of::<T>()) })
    }

    #[inline(always)]
    fn read(&self, version: u64) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: the buffer and the target have `size_of::<T>()` bytes.
        unsafe { copy::load(self.buffer(version), value.as_mut_ptr().cast(), size_of::<T>()) };
        // SAFETY: all bytes were written, and every pattern is a `Pod`.
        unsafe { value.assume_init() }
    }

    /// Makes a new value current. The caller holds the lock.
    #[inline(always)]
    pub(crate) fn commit(&self, value: &T) {
        let version = self.shared.version.load(Relaxed);
        if is_planted(Bug::TwoStoreCommit) {
            // SAFETY: as below.
            unsafe { copy::store(self.buffer(version), bytemuck::bytes_of(value)) };
            return;
        }
        // ORDER: pairs with the fence in `get`: a reader that sees a word stored below also sees the version
        // that made this buffer the spare one.
        fence(Release);
        // CRASH: half a value in the spare buffer, which no process reads.
        // SAFETY: the spare buffer has `size_of::<T>()` bytes.
        unsafe { copy::store(self.buffer(version.wrapping_add(1)), bytemuck::bytes_of(value)) };
        // ORDER: Release pairs with the Acquire load in `get`.
        // CRASH: this store is the commit: before it the old value, after it the new one.
        self.shared.version.store(version.wrapping_add(1), Release);
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Value<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("object", &self.shared)
            .field("value", &self.get())
            .field("owner", &self.owner())
            .finish()
    }
}
