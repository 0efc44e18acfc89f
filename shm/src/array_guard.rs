//! [`ArrayGuard`]: a locked [`Array`]; and [`OwnerDied`], one that somebody left half written.
#![allow(unsafe_code, reason = "copies elements in and out")]

use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst, compiler_fence};

use bytemuck::Pod;

use crate::array::Array;
use crate::array_error::{ArrayError, ArrayLockError, HalfWritten, OutOfRange, Unfinished};
use crate::copy;
use multiproc_robust::ThisThread;
use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Death, LockError};

/// A locked [`Array`]: its elements are copied in and out until the guard is dropped.
///
/// Dropped by a panic that began while it was held, a guard that has written leaves the array half written, as a death does. In a forked child it is a copy that owns nothing: its writes
/// are errors ([`AcquireError::NotHeld`]), its reads are without the lock, and its drop does nothing.
///
/// It stays in its thread, for it is the thread that holds the lock:
///
/// ```compile_fail,E0277
/// fn elsewhere<T: Send>() {}
/// elsewhere::<multiproc_shm::ArrayGuard<'_, u64>>();
/// ```
#[must_use = "if unused, the array is unlocked at once"]
pub struct ArrayGuard<'a, T: Pod> {
    pub(crate) array: &'a Array<T>,
    died: Option<Death>,
    /// Who has it, as the writer's word says it.
    me: u64,
    /// Whether our drop says that the array is whole: we have written, or recovered it.
    finishes: bool,
    panicking: bool,
    /// Not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl<'a, T: Pod> ArrayGuard<'a, T> {
    /// The guard of a lock that this thread has just taken.
    #[inline(always)]
    pub(crate) fn take(array: &'a Array<T>, me: ThisThread, died: Option<Death>) -> Result<Self, ArrayLockError<'a, T>> {
        let guard = Self { array, died, me: me.owner(), finishes: false, panicking: std::thread::panicking(), here: PhantomData };
        match array.shared.writer().load(Relaxed) {
            0 => Ok(guard),
            writer => Err(ArrayLockError::OwnerDied(OwnerDied { guard, writer: Death::of(writer) })),
        }
    }

    /// Who held the lock before and died; it had written nothing, or all that it wanted to.
    pub fn previous_owner_died(&self) -> Option<Death> {
        self.died
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.array.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<T> {
        (index < self.len()).then(|| {
            let mut value = MaybeUninit::<T>::uninit();
            // SAFETY: the element is inside, and so is one `T` in the target.
            unsafe { self.load(index, value.as_mut_ptr(), 1) };
            // SAFETY: all bytes were written, and every pattern is a `Pod`.
            unsafe { value.assume_init() }
        })
    }

    /// Sets the element at `index`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`]: there is no such element.
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
    /// [`ArrayError`]: only in a forked child.
    pub fn fill(&mut self, value: T) -> Result<(), ArrayError> {
        const CHUNK: usize = 4096;
        self.begin()?;
        // Without a size there is nothing to write, however many.
        let many = CHUNK.checked_div(size_of::<T>()).map_or(usize::MAX, |many| many.max(1));
        let chunk = vec![value; self.len().min(many)];
        for offset in (0..self.len()).step_by(chunk.len().max(1)) {
            let count = chunk.len().min(self.len() - offset);
            // SAFETY: `offset + count` elements are inside.
            unsafe { self.store(offset, &chunk[..count]) };
        }
        Ok(())
    }

    /// A copy of all elements.
    pub fn to_vec(&self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.len());
        // SAFETY: all elements, and room for as many.
        unsafe { self.load(0, all.as_mut_ptr(), self.len()) };
        // SAFETY: so many were written, and every pattern is a `Pod`.
        unsafe { all.set_len(self.len()) };
        all
    }

    /// Copies all elements into `target`, which has as many.
    ///
    /// # Errors
    ///
    /// [`ArrayError`]: it has not.
    pub fn copy_to(&self, target: &mut [T]) -> Result<(), ArrayError> {
        self.exactly(target.len())?;
        self.read_at(0, target)
    }

    /// Sets all elements to those of `source`, which has as many.
    ///
    /// # Errors
    ///
    /// [`ArrayError`]: it has not, and nothing has changed.
    pub fn copy_from(&mut self, source: &[T]) -> Result<(), ArrayError> {
        self.exactly(source.len())?;
        self.write_at(0, source)
    }

    /// Copies the elements from `offset` on into `target`.
    ///
    /// # Errors
    ///
    /// [`ArrayError`]: there are not as many.
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
    /// [`ArrayError`]: there are not as many, and nothing has changed.
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
    /// [`ArrayError`]: there is no such element, and nothing has changed.
    pub fn swap(&mut self, one: usize, other: usize) -> Result<(), ArrayError> {
        let first = self.get(one).ok_or_else(|| self.outside(one, 1))?;
        let second = self.get(other).ok_or_else(|| self.outside(other, 1))?;
        self.set(one, second)?;
        self.set(other, first)
    }

    /// The elements where they are, for work that is too large to copy.
    ///
    /// # Safety
    ///
    /// - As long as the slice lives nobody writes to the array: neither another process, which whoever goes by this type's lock does not do, nor a debugger, nor a program that maps the file by itself.
    /// - This is not a copy of a guard in a forked child.
    pub unsafe fn as_slice(&self) -> &[T] {
        // SAFETY: mapped, aligned (the block is, to 64 bytes), initialised; the caller's promise that nothing changes.
        unsafe { std::slice::from_raw_parts(self.array.shared.tail().cast(), self.len()) }
    }

    /// The elements where they are, to be changed. From here on the array counts as half written, until the guard is dropped.
    ///
    /// # Safety
    ///
    /// - As long as the slice lives nobody else reads or writes the array: as for [`as_slice`](Self::as_slice).
    /// - This is not a copy of a guard in a forked child.
    pub unsafe fn as_mut_slice(&mut self) -> &mut [T] {
        self.sign();
        // SAFETY: as above; the caller's promise that nobody else is there.
        unsafe { std::slice::from_raw_parts_mut(self.array.shared.tail().cast_mut().cast(), self.len()) }
    }

    /// Sets an element that lies within one word; nothing is ever half.
    #[inline]
    pub(crate) fn set_in_one_store(&mut self, index: usize, value: T) -> Result<(), ArrayError> {
        self.check(index, 1)?;
        if !self.is_ours() {
            return Err(self.not_held());
        }
        // CRASH: the old element, or the new one.
        // SAFETY: the element is inside.
        unsafe { self.store(index, &[value]) };
        Ok(())
    }

    #[cold]
    pub(crate) fn outside(&self, offset: usize, count: usize) -> ArrayError {
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

    /// Before each write.
    #[inline]
    fn begin(&mut self) -> Result<(), ArrayError> {
        if !self.is_ours() {
            return Err(self.not_held());
        }
        self.sign();
        Ok(())
    }

    /// Before the first write: says that there is one who writes.
    #[inline]
    fn sign(&mut self) {
        if !self.finishes {
            self.finishes = true;
            if is_planted(Bug::WriterUnsigned) {
                return;
            }
            // CRASH: from here on half written, to whoever locks next, until `drop` has cleared the word.
            self.array.shared.writer().store(self.me, Relaxed);
            // ORDER: a death leaves what this thread has executed, in this order.
            compiler_fence(SeqCst);
        }
    }

    /// Whether this is the process that took the lock, and not a forked copy.
    #[inline]
    fn is_ours(&self) -> bool {
        ThisThread::current().is_ok_and(|me| me.owner() == self.me)
    }

    /// # Safety
    ///
    /// - `offset + count` elements are inside, and `target` has room for `count`.
    #[inline]
    unsafe fn load(&self, offset: usize, target: *mut T, count: usize) {
        let (at, bytes) = (offset * size_of::<T>(), count * size_of::<T>());
        // SAFETY: the caller's promise: the bytes are inside the object, and nobody else has the target.
        unsafe { copy::load_at(self.array.shared.tail(), at, target.cast(), bytes) };
    }

    /// # Safety
    ///
    /// - `offset + source.len()` elements are inside.
    #[inline]
    unsafe fn store(&mut self, offset: usize, source: &[T]) {
        // SAFETY: the caller's promise; the lock keeps other writers out.
        unsafe { copy::store_at(self.array.shared.tail(), offset * size_of::<T>(), bytemuck::cast_slice(source)) };
    }
}

impl<T: Pod> Drop for ArrayGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        if self.finishes && (self.panicking || !std::thread::panicking()) {
            // ORDER: as in `sign`.
            compiler_fence(SeqCst);
            // CRASH: before this store half written; after it whole, though the next owner is told of a death.
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

/// A locked array that is half written: who wrote last died, or panicked, before it was done. It stays so until a guard of somebody who has
/// [recovered](Self::recover) it is dropped; a drop of this error only unlocks it.
#[must_use = "if it is dropped, the array is unlocked and stays half written"]
pub struct OwnerDied<'a, T: Pod> {
    guard: ArrayGuard<'a, T>,
    writer: Death,
}

impl<'a, T: Pod> OwnerDied<'a, T> {
    /// Goes on with what is there: mend it through the guard. Its drop says that the array is whole; whoever dies before that leaves it half written.
    pub fn recover(self) -> ArrayGuard<'a, T> {
        let Self { mut guard, .. } = self;
        if guard.is_ours() {
            // CRASH: half written before and after; what changes is who is said to have left it so.
            guard.sign();
        }
        guard
    }

    /// The guard, to look at what is there before deciding.
    pub fn guard(&self) -> &ArrayGuard<'a, T> {
        &self.guard
    }

    /// Who began to write and did not end.
    pub fn writer(&self) -> Death {
        self.writer
    }

    /// An error that borrows nothing. The array is unlocked, and stays half written.
    pub fn into_static(self) -> ArrayError {
        ArrayError::HalfWritten(HalfWritten::new(self.guard.array.shared.describe(), self.writer))
    }
}

impl<T: Pod> fmt::Display for OwnerDied<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guard.array.shared.describe(), Unfinished(self.writer))
    }
}

impl<T: Pod> fmt::Debug for OwnerDied<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").field("object", &self.guard.array.shared).field("writer", &self.writer).finish()
    }
}

impl<T: Pod> std::error::Error for OwnerDied<'_, T> {}
