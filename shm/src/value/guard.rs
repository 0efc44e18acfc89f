//! [`ValueGuard`]: a locked value.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use multiproc_robust::Death;

use super::Value;

/// A locked [`Value`]: a private copy, which becomes the value when the guard is dropped. If it is dropped by
/// a panic that began while it was held, the value stays unchanged.
#[must_use = "if unused, the value is unlocked at once"]
pub struct ValueGuard<'a, T: Pod> {
    pub(crate) value: &'a Value<T>,
    copy: T,
    /// Whether the caller has had a mutable reference to the copy.
    changed: bool,
    died: Option<Death>,
    panicking: bool,
    /// Not `Send`: the kernel gives the lock back when *this* thread ends.
    here: PhantomData<*const ()>,
}

impl<'a, T: Pod> ValueGuard<'a, T> {
    /// Makes the guard of a lock that this thread has just taken.
    #[inline(always)]
    pub(crate) fn new(value: &'a Value<T>, copy: T, died: Option<Death>) -> Self {
        Self { value, copy, changed: false, died, panicking: std::thread::panicking(), here: PhantomData }
    }

    /// Returns the previous owner if it died while it held the lock. The value is as it was before that
    /// owner.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }
}

impl<T: Pod> Deref for ValueGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.copy
    }
}

impl<T: Pod> DerefMut for ValueGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.changed = true;
        &mut self.copy
    }
}

impl<T: Pod> Drop for ValueGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        // In a forked child this is a copy of the parent's guard. It owns nothing and changes nothing.
        self.value.shared.lock.release_after(|| {
            if self.changed && (self.panicking || !std::thread::panicking()) {
                self.value.commit(&self.copy);
            }
        });
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for ValueGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.copy.fmt(f)
    }
}
