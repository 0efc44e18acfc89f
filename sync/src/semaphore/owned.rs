//! [`OwnedPermit`]: a permit that belongs to a process, and the functions that take one.
#![allow(unsafe_code, reason = "a permit's lock is handed to the process, and stays mapped")]

use std::fmt;
use std::time::Duration;

use multiproc_robust::{AcquireError, Deadline, Death, LockError, ProcessOwned};

use super::{Permit, Semaphore};
use crate::timeout::unless_timed_out;

impl Semaphore {
    /// Takes a permit that belongs to this process, not to this thread, waiting as long as necessary.
    ///
    /// The permit may be given to another thread, stored, and dropped anywhere in this process. It is given
    /// back when it is dropped, or when the process ends or calls `exec`; the end of a thread does not give
    /// it back. It costs four to five times as much as [`acquire`](Self::acquire). The first one in a process
    /// starts the owner thread, which sleeps as long as the process lives.
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
    /// Returns [`LockError`] as [`acquire`](Self::acquire) does, or if the owner thread could not be started.
    /// It is no error if the process holds all the permits already: another thread may give one back.
    pub fn acquire_owned(&self) -> Result<OwnedPermit, LockError> {
        self.acquire_owned_until(Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes a permit for this process if one is free.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_owned`](Self::acquire_owned) does.
    pub fn try_acquire_owned(&self) -> Result<Option<OwnedPermit>, LockError> {
        self.acquire_owned_timeout(Duration::ZERO)
    }

    /// Takes a permit for this process, waiting at most `timeout`; returns `None` if none was free by then.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_owned`](Self::acquire_owned) does.
    pub fn acquire_owned_timeout(&self, timeout: Duration) -> Result<Option<OwnedPermit>, LockError> {
        unless_timed_out(self.acquire_owned_until(Deadline::after(timeout)), |cause| self.error(cause))
    }

    /// Takes `count` permits for this process, as [`acquire_many`](Self::acquire_many) does for a thread.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_owned`](Self::acquire_owned) does, or if the semaphore has fewer
    /// than `count` permits. No permit is taken then.
    pub fn acquire_many_owned(&self, count: usize) -> Result<Vec<OwnedPermit>, LockError> {
        self.acquire_many_owned_until(count, Deadline::NEVER).map_err(|cause| self.error(cause))
    }

    /// Takes `count` permits for this process if so many are free and no thread waits.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_many_owned`](Self::acquire_many_owned) does.
    pub fn try_acquire_many_owned(&self, count: usize) -> Result<Option<Vec<OwnedPermit>>, LockError> {
        self.acquire_many_owned_timeout(count, Duration::ZERO)
    }

    /// Takes `count` permits for this process, waiting at most `timeout`; returns `None`, and takes none, if
    /// that was not enough.
    ///
    /// # Errors
    ///
    /// Returns [`LockError`] as [`acquire_many_owned`](Self::acquire_many_owned) does.
    pub fn acquire_many_owned_timeout(
        &self,
        count: usize,
        timeout: Duration,
    ) -> Result<Option<Vec<OwnedPermit>>, LockError> {
        unless_timed_out(self.acquire_many_owned_until(count, Deadline::after(timeout)), |cause| {
            self.error(cause)
        })
    }

    fn acquire_owned_until(&self, deadline: Deadline) -> Result<OwnedPermit, AcquireError> {
        ProcessOwned::ready()?;
        self.transfer_to_process(self.acquire_until(deadline)?)
    }

    fn acquire_many_owned_until(
        &self,
        count: usize,
        deadline: Deadline,
    ) -> Result<Vec<OwnedPermit>, AcquireError> {
        ProcessOwned::ready()?;
        // On an error the permits that were handed over are dropped, and so are the others.
        self.acquire_many_until(count, deadline)?
            .into_iter()
            .map(|permit| self.transfer_to_process(permit))
            .collect()
    }

    /// Transfers a permit of this thread to its process.
    fn transfer_to_process(&self, permit: Permit<'_>) -> Result<OwnedPermit, AcquireError> {
        // CRASH: the permit belongs to the thread or to the process, which die together.
        // SAFETY: the new guard has a handle of its own, so the mapping lives as long as the guard; a leaked
        // guard leaks the handle with it.
        let transferred = unsafe { self.locks()[permit.at].transfer_to_process() }?;
        let owned =
            OwnedPermit { semaphore: self.clone(), at: permit.at, died: permit.died, owned: transferred };
        std::mem::forget(permit);
        Ok(owned)
    }
}

/// A permit of a [`Semaphore`], held by this process until any of its threads drops it.
///
/// # When the process dies
///
/// The permit is free again at once. The same holds if the process calls `exec`, but not if the thread ends
/// that took the permit. (The threads of a killed process do not end in the same instant. Another process may
/// get the permit before the last of them has stopped.) A guard that `fork` has copied owns nothing: dropping
/// it in the child does nothing.
#[must_use = "if unused, the permit is given back at once"]
pub struct OwnedPermit {
    semaphore: Semaphore,
    at: usize,
    died: Option<Death>,
    owned: ProcessOwned,
}

impl OwnedPermit {
    /// Returns the death of this permit's previous owner, if it died while it held the permit.
    ///
    /// What the permit stands for may then need repair.
    pub fn previous_owner_died(this: &Self) -> Option<Death> {
        this.died
    }

    /// Returns which of the permits this is, from 0. No other owner has this number at the same time.
    pub fn number(this: &Self) -> usize {
        this.at
    }

    /// Returns the semaphore of this permit.
    pub fn semaphore(this: &Self) -> &Semaphore {
        &this.semaphore
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        if let Some(permit) = self.semaphore.locks().get(self.at) {
            permit.release_process_owned(self.owned);
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
