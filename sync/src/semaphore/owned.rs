//! [`OwnedPermit`]: a permit that belongs to a process, and the verbs that take one.
#![allow(unsafe_code, reason = "a permit that is kept for the process: its mapping lives as long as the guard")]

use std::fmt;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, Death, LockError, ProcessOwned};

use super::{Permit, Semaphore};

impl Semaphore {
    /// Takes a permit that belongs to this process, and not to this thread, waiting as long as it takes.
    ///
    /// It may be given to another thread, stored, and dropped anywhere in this process; it comes back when it is dropped, when the process ends, or calls `exec`. A thread that ends keeps nothing from it. It
    /// costs four to five times what [`acquire`](Self::acquire) does. The first one in a process starts a thread, which sleeps as long as the process lives.
    ///
    /// ```
    /// # use multiproc_sync::Semaphore;
    /// let slots = Semaphore::new(1)?;
    /// let permit = slots.acquire_owned()?;
    /// let worker = std::thread::spawn(move || drop(permit));
    /// worker.join().unwrap();
    /// assert_eq!(slots.available(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire`](Self::acquire), or that thread could not be started. What the process holds already is no error: another thread may give it back.
    pub fn acquire_owned(&self) -> Result<OwnedPermit, LockError> {
        self.acquire_owned_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes a permit for this process if one is free.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_owned`](Self::acquire_owned).
    pub fn try_acquire_owned(&self) -> Result<Option<OwnedPermit>, LockError> {
        self.acquire_owned_timeout(Duration::ZERO)
    }

    /// Takes a permit for this process, waiting at most this long; `None` if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_owned`](Self::acquire_owned).
    pub fn acquire_owned_timeout(&self, timeout: Duration) -> Result<Option<OwnedPermit>, LockError> {
        self.unless_late(self.acquire_owned_until(Deadline::after(timeout)))
    }

    /// Takes so many permits for this process at once, as [`acquire_many`](Self::acquire_many) does for a thread.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_owned`](Self::acquire_owned), or there are not so many permits. None is taken then.
    pub fn acquire_many_owned(&self, count: usize) -> Result<Vec<OwnedPermit>, LockError> {
        self.acquire_many_owned_until(count, Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes so many permits for this process if they are free, and nobody is waiting.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_many_owned`](Self::acquire_many_owned).
    pub fn try_acquire_many_owned(&self, count: usize) -> Result<Option<Vec<OwnedPermit>>, LockError> {
        self.acquire_many_owned_timeout(count, Duration::ZERO)
    }

    /// Takes so many permits for this process, waiting at most this long; `None`, and none taken, if that was not enough.
    ///
    /// # Errors
    ///
    /// [`LockError`], as [`acquire_many_owned`](Self::acquire_many_owned).
    pub fn acquire_many_owned_timeout(&self, count: usize, timeout: Duration) -> Result<Option<Vec<OwnedPermit>>, LockError> {
        self.unless_late(self.acquire_many_owned_until(count, Deadline::after(timeout)))
    }

    fn acquire_owned_until(&self, deadline: Deadline) -> Result<OwnedPermit, AcquireError> {
        ProcessOwned::ready()?;
        self.owned(self.acquire_until(deadline)?)
    }

    fn acquire_many_owned_until(&self, count: usize, deadline: Deadline) -> Result<Vec<OwnedPermit>, AcquireError> {
        ProcessOwned::ready()?;
        // An error drops what was handed over, and what was not.
        self.acquire_many_until(count, deadline)?.into_iter().map(|permit| self.owned(permit)).collect()
    }

    /// Hands a permit of this thread over to its process.
    fn owned(&self, permit: Permit<'_>) -> Result<OwnedPermit, AcquireError> {
        // CRASH: the thread's or the process's, which die together.
        // SAFETY: the new guard has a handle of its own, so the mapping lives as long as the guard; if that is leaked, so is the handle.
        let kept = unsafe { self.locks()[permit.at].transfer_to_process() }?;
        let owned = OwnedPermit { semaphore: self.clone(), at: permit.at, died: permit.died, kept };
        std::mem::forget(permit);
        Ok(owned)
    }
}

/// One permit, held by this process until dropped: in whatever thread that is.
///
/// # When the process dies
///
/// The permit is free again at once; also when the process calls `exec`, and not when the thread ends that took it. (A process that is killed loses its threads one after the other; in that instant the
/// permit may be another's before the last of them has stopped.) A copy that a `fork` made owns nothing: dropping it in the child does nothing.
#[must_use = "if unused, the permit goes back at once"]
pub struct OwnedPermit {
    semaphore: Semaphore,
    at: usize,
    died: Option<Death>,
    kept: ProcessOwned,
}

impl OwnedPermit {
    /// Who held this very permit before and died; what it stands for may be in need of care.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }

    /// Which of the permits it is, from 0: nobody else has this one.
    pub fn number(this: &Self) -> usize {
        this.at
    }

    /// The semaphore that it is of.
    pub fn semaphore(this: &Self) -> &Semaphore {
        &this.semaphore
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.semaphore.locks().get(self.at) {
            permit.release_process_owned(self.kept);
        }
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("OwnedPermit");
        shown
            .field("semaphore", &self.semaphore.shared)
            .field("number", &self.at)
            .field("previous_owner_died", &self.died)
            .finish()
    }
}
