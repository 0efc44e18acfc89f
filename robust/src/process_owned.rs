//! [`ProcessOwned`]: a lock that belongs to a process, not to one of its threads.
//!
//! The kernel releases robust locks thread by thread. So a process has one thread more, the *owner thread*,
//! which lives as long as the process and only sleeps. A thread that holds a lock may [transfer it to the
//! process](crate::RobustLock::transfer_to_process). Then the word has the owner thread's id, that thread's
//! robust list has the node, and any thread of the process may release the lock. The owner thread itself
//! never touches its list and its table. The other threads do, one at a time, under a mutex of the process.
//!
//! # What a death leaves
//!
//! `kill -9`, `exit` and `exec` end the owner thread as they end every thread, and the kernel walks its list.
//! They do not end all threads at the same instant. A thread that runs for some microseconds longer may still
//! transfer a lock to an owner thread that is dead. The word then names a thread that has ended, and the
//! waiters see that within a second. So nothing depends on the order in which the threads of a process end.
//! Every change of a word is a CAS that compares the owner, since the kernel may have given the lock to
//! another thread.
//!
//! During a transfer, the word names one of two threads of the same process at every instruction, and that
//! thread's list or pending entry names the lock:
//!
//! | step | owner by the word | the lock is named by |
//! |---|---|---|
//! | off the thread's list | the thread | the thread's pending entry |
//! | the CAS | the owner thread | the owner thread's pending entry |
//! | on the owner thread's list | the owner thread | the owner thread's list |
//!
//! # Fork
//!
//! A forked child has no owner thread until it needs one, and it does not own what its parent owns. Owner
//! threads are known by process id, a [`ProcessOwned`] by its owner thread.
#![allow(unsafe_code, reason = "a list that other threads write; a static that a fork replaces")]

use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};
use std::sync::mpsc;

use parking_lot::{Mutex, MutexGuard};

use crate::lock::RobustLock;
use crate::outcome::AcquireError;
use crate::planted_bugs::{Bug, is_planted};
use crate::sys;
use crate::thread::ThisThread;
use crate::word::{TID, high, low};

/// The owner thread of a lock that belongs to this process: needed to release the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessOwned(u64);

impl ProcessOwned {
    /// Starts this process's owner thread, if it has none yet, so that a later transfer does not fail for
    /// want of one.
    ///
    /// # Errors
    ///
    /// [`AcquireError::NoOwnerThread`]: no thread could be started.
    pub fn ready() -> Result<(), AcquireError> {
        let me = ThisThread::current()?;
        if of_this_process(me).started.load(Acquire) { Ok(()) } else { with_room(me).map(drop) }
    }
}

impl RobustLock {
    /// Transfers a lock that this thread holds to its process. Then any thread of the process may [release
    /// it](Self::release_process_owned). The kernel releases it when the process ends or calls `exec`.
    ///
    /// # Errors
    ///
    /// [`NotHeld`](AcquireError::NotHeld): this thread does not hold the lock. Other [`AcquireError`]s: there
    /// is no owner thread. The lock is unchanged then.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until the process has released it.
    pub unsafe fn transfer_to_process(&self) -> Result<ProcessOwned, AcquireError> {
        let me = ThisThread::current()?;
        if !me.holds(self.node()) {
            return Err(AcquireError::NotHeld);
        }
        let owners = with_room(me)?;
        let owner = owners.chosen();
        me.set_pending(self.node());
        me.unlink(self.node());
        // CRASH: the word names this thread, and so does its pending entry.
        if !is_planted(Bug::OwnerThreadWithoutPending) {
            owner.set_pending(self.node());
        }
        let transferred = self.exchange(me.tid(), owner.tid()).is_some();
        // CRASH: the word names the owner thread, whose pending entry names the lock. If the owner thread has
        // ended, the waiters find that out within a second.
        if transferred {
            self.set_last_owner(owner.owner());
            // SAFETY: the node is this lock's own, and off the other list. There is room. The caller keeps it
            // mapped.
            unsafe { owner.link(self.node()) };
        }
        owner.clear_pending();
        me.clear_pending();
        if transferred { Ok(owners.owned()) } else { Err(AcquireError::NotHeld) }
    }

    /// Releases a lock that this process [owns](Self::transfer_to_process). Returns false, with nothing done,
    /// if it does not own the lock (in a forked child: its parent owns it).
    pub fn release_process_owned(&self, owned: ProcessOwned) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        let Some(owners) = of(me, owned) else { return false };
        let owner = owners.chosen();
        owner.set_pending(self.node());
        // CRASH: off the list, still the owner thread's: its pending entry names the lock.
        let known = owner.unlink(self.node());
        // No `fetch_sub`: while this process is being killed, the kernel may have given the lock to another
        // process already.
        if let Some(after) = known.then(|| self.exchange(owner.tid(), 0)).flatten()
            && low(after) != 0
        {
            // CRASH: the word is free and the pending entry names it: the kernel wakes one waiter.
            self.hand_over(after);
        }
        owner.clear_pending();
        known
    }

    /// Replaces the thread in the word by another (0: none) and keeps the rest. Returns the new word, or
    /// `None` if the word did not name that thread.
    fn exchange(&self, from: u64, to: u64) -> Option<u64> {
        let mut seen = self.word().load(Relaxed);
        while seen & TID == from {
            let next = (seen & !TID) | to;
            // ORDER: SeqCst, hence Release, pairs with the Acquire in `take_free` and `wait_to_acquire`, and
            // with a waiter's registration, as in `release_unlinked`.
            match self.word().compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
        None
    }
}

/// An owner thread, for use under the mutex.
#[derive(Clone, Copy)]
struct OwnerThread(ThisThread);

// SAFETY: `ThisThread` is a thread's list and table, mapped as long as that thread lives, which is as long as
// the process. The owner thread does not touch them any more, and the other threads do so only under the
// mutex.
unsafe impl Send for OwnerThread {}

impl OwnerThread {
    /// Returns whether it can take one lock more. (A process may have the id of a dead ancestor. It then
    /// finds owner threads that are not its own; a fork has wiped them.)
    fn is_usable(self) -> bool {
        self.0.owner() != 0 && !self.0.is_full()
    }
}

/// The owner threads of one process.
struct OwnerThreads {
    process: u32,
    list: Mutex<Vec<OwnerThread>>,
    /// Whether there is one: saves a look at the list.
    started: AtomicBool,
}

/// The owner threads of this process, locked, and one of them.
pub(crate) struct LockedOwnerThreads {
    chosen: OwnerThread,
    _list: MutexGuard<'static, Vec<OwnerThread>>,
}

impl LockedOwnerThreads {
    /// Returns the chosen thread, as an owner.
    pub(crate) fn chosen(&self) -> ThisThread {
        self.chosen.0
    }

    pub(crate) fn owned(&self) -> ProcessOwned {
        ProcessOwned(self.chosen().owner())
    }
}

/// Chooses an owner thread that can take one lock more; starts one if there is none. Each can hold as many
/// locks as any thread.
pub(crate) fn with_room(me: ThisThread) -> Result<LockedOwnerThreads, AcquireError> {
    let threads = of_this_process(me);
    let mut list = threads.list.lock();
    if let Some(chosen) = list.iter().copied().find(|thread| thread.is_usable()) {
        return Ok(LockedOwnerThreads { chosen, _list: list });
    }
    let chosen = start()?;
    list.push(chosen);
    // ORDER: Release pairs with the Acquire in `ready`: a thread that sees it finds an owner thread in the
    // list.
    threads.started.store(true, Release);
    Ok(LockedOwnerThreads { chosen, _list: list })
}

/// Chooses the owner thread of `owned`; `None` in a forked child, which has a copy of it.
pub(crate) fn of(me: ThisThread, owned: ProcessOwned) -> Option<LockedOwnerThreads> {
    let list = of_this_process(me).list.lock();
    let chosen = list.iter().copied().find(|thread| thread.0.owner() == owned.0)?;
    Some(LockedOwnerThreads { chosen, _list: list })
}

/// Starts an owner thread.
fn start() -> Result<OwnerThread, AcquireError> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let first = move || {
        let _ = sender.send(ThisThread::current().map(OwnerThread));
    };
    sys::start_parked_thread(Box::new(first)).map_err(|_| AcquireError::NoOwnerThread)?;
    receiver.recv().map_err(|_| AcquireError::NoOwnerThread)?.map_err(AcquireError::from)
}

static CURRENT: AtomicPtr<OwnerThreads> = AtomicPtr::new(ptr::null_mut());

/// Returns the owner threads of this process. A forked child begins with none: its parent's mutex may be
/// locked by a thread that the child does not have.
fn of_this_process(me: ThisThread) -> &'static OwnerThreads {
    let process = high(me.owner());
    loop {
        // ORDER: Acquire pairs with the CAS below: a thread that sees the pointer sees what it points to.
        let known = CURRENT.load(Acquire);
        // SAFETY: null, or a box that was leaked below.
        if let Some(threads) = unsafe { known.as_ref() }.filter(|threads| threads.process == process) {
            return threads;
        }
        let list = Mutex::new(Vec::new());
        let fresh = Box::into_raw(Box::new(OwnerThreads { process, list, started: AtomicBool::new(false) }));
        if CURRENT.compare_exchange(known, fresh, AcqRel, Acquire).is_err() {
            // SAFETY: no other thread has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
