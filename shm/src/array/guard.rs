//! [`ArrayGuard`]: a locked [`Array`].
#![allow(unsafe_code, reason = "copies elements in and out")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use bytemuck::Pod;
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Death, LockError, ThisThread};

use super::Array;
use super::error::{ArrayError, OutOfRange};
use crate::copy;

/// A locked [`Array`]: its elements are copied in and out until the guard is dropped.
///
/// A panic that begins while the guard is held, and drops it after a write, leaves the array half written, as
/// a death does.
///
/// In a forked child a guard is a copy that owns nothing. Its writes are errors ([`AcquireError::NotHeld`]),
/// its reads are without the lock, and its drop does nothing.
///
/// A guard stays in its thread, because the thread holds the lock:
///
/// ```compile_fail,E0277
/// fn elsewhere<T: Send>() {}
/// elsewhere::<multiproc_shm::ArrayGuard<'_, u64>>();
/// ```
#[must_use = "if unused, the array is unlocked at once"]
pub struct ArrayGuard<'a, T: Pod> {
    pub(crate) array: &'a Array<T>,
    died: Option<Death>,
    /// The thread that holds the lock, as it stands in the writer's word.
    thread: u64,
    /// Whether this guard has set the writer's word, because it has written or recovered the array. Its drop
    /// clears the word.
    is_writer: bool,
    panicking: bool,
    /// Not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl<'a, T: Pod> ArrayGuard<'a, T> {
    /// Makes the guard of a lock that this thread has just taken.
    #[inline(always)]
    pub(super) fn new(array: &'a Array<T>, thread: ThisThread, died: Option<Death>) -> Self {
        let (thread, panicking) = (thread.owner(), std::thread::panicking());
        Self { array, died, thread, is_writer: false, panicking, here: PhantomData }
    }

    /// Returns the previous owner if it died while it held the lock. It had written nothing, or had ended
    /// writing.
    pub fn previous_owner_died(&self) -> Option<Death> {
        self.died
    }

    /// Returns the number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the element at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        (index < self.len()).then(|| {
            let mut value = MaybeUninit::<T>::uninit();
            // SAFETY: the element is inside the array, and the target has room for one `T`.
            unsafe { self.load(index, value.as_mut_ptr(), 1) };
            // SAFETY: all bytes were written, and every pattern is a `Pod`.
            unsafe { value.assume_init() }
        })
    }

    /// Sets the element at `index`.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if there is no such element.
    #[inline]
    pub fn set(&mut self, index: usize, value: T) -> Result<(), ArrayError> {
        self.write_at(index, &[value])
    }

    /// All elements, copied one by one as they are asked for.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = T> + ExactSizeIterator {
        (0..self.len()).map(|index| self.get(index).unwrap_or_else(T::zeroed))
    }

    /// Sets all elements to `value`.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] in a forked child only.
    pub fn fill(&mut self, value: T) -> Result<(), ArrayError> {
        const CHUNK: usize = 4096;
        self.begin()?;
        // Elements of size 0 take no bytes, however many there are.
        let many = CHUNK.checked_div(size_of::<T>()).map_or(usize::MAX, |many| many.max(1));
        let chunk = vec![value; self.len().min(many)];
        for offset in (0..self.len()).step_by(chunk.len().max(1)) {
            let count = chunk.len().min(self.len() - offset);
            // SAFETY: `offset + count` elements are inside.
            unsafe { self.store(offset, &chunk[..count]) };
        }
        Ok(())
    }

    /// Returns a copy of all elements.
    pub fn to_vec(&self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len());
        // SAFETY: all elements, and the vector has room for them.
        unsafe { self.load(0, all.as_mut_ptr(), self.len()) };
        // SAFETY: so many elements were written, and every pattern is a `Pod`.
        unsafe { all.set_len(self.len()) };
        all
    }

    /// Copies all elements into `target`, which must have the same length.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if the lengths differ.
    pub fn copy_to(&self, target: &mut [T]) -> Result<(), ArrayError> {
        self.exactly(target.len())?;
        self.read_at(0, target)
    }

    /// Sets all elements to those of `source`, which must have the same length.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if the lengths differ. Then nothing changes.
    pub fn copy_from(&mut self, source: &[T]) -> Result<(), ArrayError> {
        self.exactly(source.len())?;
        self.write_at(0, source)
    }

    /// Copies the elements from `offset` on into `target`, until it is full.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if there are not enough elements.
    #[inline]
    pub fn read_at(&self, offset: usize, target: &mut [T]) -> Result<(), ArrayError> {
        self.check(offset, target.len())?;
        // SAFETY: the elements are inside, and the slice has room for them.
        unsafe { self.load(offset, target.as_mut_ptr(), target.len()) };
        Ok(())
    }

    /// Sets the elements from `offset` on to those of `source`.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if there are not enough elements. Then nothing changes.
    #[inline]
    pub fn write_at(&mut self, offset: usize, source: &[T]) -> Result<(), ArrayError> {
        self.check(offset, source.len())?;
        self.begin()?;
        // SAFETY: the elements are inside.
        unsafe { self.store(offset, source) };
        Ok(())
    }

    /// Exchanges two elements.
    ///
    /// # Errors
    ///
    /// Returns [`ArrayError`] if there is no such element. Then nothing changes.
    pub fn swap(&mut self, one: usize, other: usize) -> Result<(), ArrayError> {
        let first = self.get(one).ok_or_else(|| self.outside(one, 1))?;
        let second = self.get(other).ok_or_else(|| self.outside(other, 1))?;
        self.set(one, second)?;
        self.set(other, first)
    }

    /// Returns the elements in shared memory, for work on arrays that are too large to copy.
    ///
    /// # Safety
    ///
    /// - As long as the slice lives nothing writes to the array. A process that uses this type's lock does
    ///   not; a debugger, or a program that maps the file by itself, must not.
    /// - This is not a copy of a guard in a forked child.
    pub unsafe fn as_slice(&self) -> &[T] {
        // SAFETY: mapped, aligned (the block is aligned to 64 bytes), initialised. The caller promises that
        // nothing changes.
        unsafe { std::slice::from_raw_parts(self.array.shared.tail().cast(), self.len()) }
    }

    /// Returns the elements in shared memory, to be changed. From this call until the guard is dropped the
    /// array counts as half written.
    ///
    /// # Safety
    ///
    /// - As long as the slice lives nothing else reads or writes the array, as for
    ///   [`as_slice`](Self::as_slice).
    /// - This is not a copy of a guard in a forked child.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [T] {
        self.mark_writing();
        // SAFETY: as above. The caller promises that nothing else accesses the elements.
        unsafe { std::slice::from_raw_parts_mut(self.array.shared.tail().cast_mut().cast(), self.len()) }
    }

    /// Sets an element that lies within one word. A death never leaves half of it.
    #[inline]
    pub(super) fn set_in_one_store(&mut self, index: usize, value: T) -> Result<(), ArrayError> {
        self.check(index, 1)?;
        if !self.is_ours() {
            return Err(self.not_held());
        }
        // CRASH: the old element, or the new one.
        // SAFETY: the element is inside the array.
        unsafe { self.store(index, &[value]) };
        Ok(())
    }

    #[cold]
    pub(super) fn outside(&self, offset: usize, count: usize) -> ArrayError {
        self.out_of_range(offset..offset.saturating_add(count))
    }

    #[cold]
    fn out_of_range(&self, asked: Range<usize>) -> ArrayError {
        OutOfRange::new(self.array.shared.describe(), asked, self.len()).into()
    }

    #[cold]
    fn not_held(&self) -> ArrayError {
        LockError::new(self.array.shared.describe(), AcquireError::NotHeld).into()
    }

    #[inline]
    fn check(&self, offset: usize, count: usize) -> Result<(), ArrayError> {
        let inside = offset.checked_add(count).is_some_and(|end| end <= self.len());
        if inside { Ok(()) } else { Err(self.outside(offset, count)) }
    }

    fn exactly(&self, count: usize) -> Result<(), ArrayError> {
        if count == self.len() { Ok(()) } else { Err(self.outside(0, count)) }
    }

    /// Prepares a write.
    #[inline]
    fn begin(&mut self) -> Result<(), ArrayError> {
        if !self.is_ours() {
            return Err(self.not_held());
        }
        self.mark_writing();
        Ok(())
    }

    /// Stores this thread in the writer's word, before the first write.
    #[inline]
    pub(super) fn mark_writing(&mut self) {
        if !self.is_writer {
            self.is_writer = true;
            if is_planted(Bug::WriterUnsigned) {
                return;
            }
            // CRASH: from this store until `drop` has cleared the word, the next owner finds the array half
            // written.
            self.array.shared.writer().store(self.thread, Relaxed);
            // ORDER: a death leaves what this thread has executed, in program order. The partner is the fence
            // in `drop`.
            compiler_fence(SeqCst);
        }
    }

    /// Whether this is the process that took the lock, and not a forked copy.
    #[inline]
    pub(super) fn is_ours(&self) -> bool {
        ThisThread::current().is_ok_and(|thread| thread.owner() == self.thread)
    }

    /// # Safety
    ///
    /// - `offset + count` elements are inside the array, and `target` has room for `count`.
    #[inline]
    unsafe fn load(&self, offset: usize, target: *mut T, count: usize) {
        let (at, bytes) = (offset * size_of::<T>(), count * size_of::<T>());
        // SAFETY: the caller's promise: the bytes are inside the object, and no other thread has the target.
        unsafe { copy::load_at(self.array.shared.tail(), at, target.cast(), bytes) };
    }

    /// # Safety
    ///
    /// - `offset + source.len()` elements are inside the array.
    #[inline]
    unsafe fn store(&mut self, offset: usize, source: &[T]) {
        // SAFETY: the caller's promise; the lock keeps other writers out.
        unsafe {
            copy::store_at(self.array.shared.tail(), offset * size_of::<T>(), bytemuck::cast_slice(source))
        };
    }
}

impl<T: Pod> Drop for ArrayGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        if self.is_writer && (self.panicking || !std::thread::panicking()) {
            // ORDER: as in `mark_writing`, its partner.
            compiler_fence(SeqCst);
            // CRASH: before this store the array is half written; after it, it is whole, and the next owner
            // learns of the death.
            self.array.shared.writer().store(0, Relaxed);
        }
        self.array.shared.lock.release();
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ArrayGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
