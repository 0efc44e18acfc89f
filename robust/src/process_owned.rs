//! What belongs to a process, and not to one of its threads: locks in the hands of its *keeper*.
//!
//! The kernel gives robust locks back thread by thread. So there is one thread more, which lives as long as the process and does nothing but sleep: the keeper. A thread that holds a
//! lock may hand it over ([`RobustLock::transfer_to_process`](crate::RobustLock::transfer_to_process)): then the word has the keeper's id, the keeper's robust list has the node, and any thread of the process may give it back.
//! The keeper itself never touches its list and its table; the others do, one at a time, under a mutex of the process.
//!
//! # What a death leaves
//!
//! `kill -9`, `exit` and `exec` end the keeper as they end every thread, and the kernel walks its list. They do not end all threads in the same instant: one that goes on for some microseconds may still take a
//! lock for a keeper that is dead. Its word then names a thread that has ended, which those who wait see within a second. So nothing rests on the order in which the threads of a process end; and
//! every change of a word is a compare-and-swap that asks whose it is, since the kernel may have given it to somebody else.
//!
//! A handed-over lock has, at every instruction, a word that names one of two threads of the same process, and that thread's list or pending word names it:
//!
//! | step | the word names | named by |
//! |---|---|---|
//! | off the thread's list | the thread | the thread's pending word |
//! | the compare-and-swap | the keeper | the keeper's pending word |
//! | on the keeper's list | the keeper | the keeper's list |
//!
//! # Fork
//!
//! A forked child has no keeper until it needs one, and what its parent's keeps is not its own: keepers are known by process id, a [`ProcessOwned`] by its keeper.
#![allow(unsafe_code, reason = "a thread's list, written by the others; one static that a fork replaces")]

use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicPtr, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};
use std::sync::mpsc;

use parking_lot::{Mutex, MutexGuard};

use crate::lock::RobustLock;
use crate::outcome::AcquireError;
use crate::planted_bugs::{Bug, is_planted};
use crate::sys;
use crate::thread::ThisThread;
use crate::word::{TID, high, low};

/// Who keeps a lock: what is needed to give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessOwned(u64);

impl ProcessOwned {
    /// Starts this process's keeper, if it has none yet: so that a hand-over will not fail for want of one.
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
    /// Hands a lock that this thread holds over to its process: it then belongs to no thread, any of them may [give it back](Self::release_process_owned), and the kernel does so when the process ends or calls `exec`.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]: this thread does not hold it ([`NotHeld`](AcquireError::NotHeld)), or there is no keeper; it is then as it was.
    ///
    /// # Safety
    ///
    /// - The lock stays mapped at this address until the process has given it back.
    pub unsafe fn transfer_to_process(&self) -> Result<ProcessOwned, AcquireError> {
        let me = ThisThread::current()?;
        if !me.holds(self.node()) {
            return Err(AcquireError::NotHeld);
        }
        let chosen = with_room(me)?;
        let keeper = chosen.me();
        me.set_pending(self.node());
        me.unlink(self.node());
        // CRASH: ours by the word; our pending names it.
        if !is_planted(Bug::OwnerThreadWithoutPending) {
            keeper.set_pending(self.node());
        }
        let handed = self.exchange(me.tid(), keeper.tid()).is_some();
        // CRASH: the keeper's by the word; its pending names it. If the keeper has ended, those who wait find that out within a second.
        if handed {
            self.set_last_owner(keeper.owner());
            // SAFETY: the node is this lock's own, and off the other list; there is room; the caller keeps it mapped.
            unsafe { keeper.link(self.node()) };
        }
        keeper.clear_pending();
        me.clear_pending();
        if handed { Ok(chosen.kept()) } else { Err(AcquireError::NotHeld) }
    }

    /// Gives back what this process [keeps](Self::transfer_to_process); false, and nothing done, when it does not (in a forked child: what its parent keeps).
    pub fn release_process_owned(&self, kept: ProcessOwned) -> bool {
        let Ok(me) = ThisThread::current() else { return false };
        let Some(chosen) = of(me, kept) else { return false };
        let keeper = chosen.me();
        keeper.set_pending(self.node());
        // CRASH: off the list, still the keeper's: its pending names it.
        let known = keeper.unlink(self.node());
        // No `fetch_sub`: while this process is being killed, the kernel may have given the lock to another one already.
        if let Some(after) = known.then(|| self.exchange(keeper.tid(), 0)).flatten()
            && low(after) != 0
        {
            // CRASH: the word is free and pending names it: the kernel wakes one.
            self.hand_over(after);
        }
        keeper.clear_pending();
        known
    }

    /// Replaces the thread in the word by another one (0: none) and keeps the rest; the word then, or `None` if it was not that thread's.
    fn exchange(&self, from: u64, to: u64) -> Option<u64> {
        let mut seen = self.word().load(Relaxed);
        while seen & TID == from {
            let next = (seen & !TID) | to;
            // ORDER: SeqCst, hence Release, pairs with the Acquire in `take`, and with a waiter's announce as in `give`.
            match self.word().compare_exchange(seen, next, SeqCst, Relaxed) {
                Ok(_) => return Some(next),
                Err(now) => seen = now,
            }
        }
        None
    }
}

/// A keeper's thread, in the hands of whoever has the mutex.
#[derive(Clone, Copy)]
struct Keeper(ThisThread);

// SAFETY: `ThisThread` is a thread's list and table, mapped as long as that thread lives, which is as long as the process; the keeper does not touch them any more, and others only under the mutex.
unsafe impl Send for Keeper {}

impl Keeper {
    /// It has room. (A process that came by the id of a dead ancestor finds keepers that are not its own; a fork has wiped them.)
    fn is_usable(self) -> bool {
        self.0.owner() != 0 && !self.0.is_full()
    }
}

struct Keepers {
    process: u32,
    list: Mutex<Vec<Keeper>>,
    /// Whether there is one: spares a look at the list.
    started: AtomicBool,
}

/// The keepers of this process, locked, and one of them.
pub(crate) struct Chosen {
    keeper: Keeper,
    _turn: MutexGuard<'static, Vec<Keeper>>,
}

impl Chosen {
    /// The keeper's thread, as an owner.
    pub(crate) fn me(&self) -> ThisThread {
        self.keeper.0
    }

    pub(crate) fn kept(&self) -> ProcessOwned {
        ProcessOwned(self.me().owner())
    }
}

/// One that can take a lock more; started if there is none. Each has room for as many locks as any thread.
pub(crate) fn with_room(me: ThisThread) -> Result<Chosen, AcquireError> {
    let keepers = of_this_process(me);
    let mut list = keepers.list.lock();
    if let Some(keeper) = list.iter().copied().find(|keeper| keeper.is_usable()) {
        return Ok(Chosen { keeper, _turn: list });
    }
    let keeper = start()?;
    list.push(keeper);
    // ORDER: Release pairs with the Acquire in `ready`: who is told finds a keeper in the list.
    keepers.started.store(true, Release);
    Ok(Chosen { keeper, _turn: list })
}

/// The one that keeps this; `None` in a forked child, which has a copy.
pub(crate) fn of(me: ThisThread, kept: ProcessOwned) -> Option<Chosen> {
    let list = of_this_process(me).list.lock();
    let keeper = list.iter().copied().find(|keeper| keeper.0.owner() == kept.0)?;
    Some(Chosen { keeper, _turn: list })
}

fn start() -> Result<Keeper, AcquireError> {
    let (tell, told) = mpsc::sync_channel(1);
    let first = move || {
        let _ = tell.send(ThisThread::current().map(Keeper));
    };
    sys::start_sleeper(Box::new(first)).map_err(|_| AcquireError::NoOwnerThread)?;
    told.recv().map_err(|_| AcquireError::NoOwnerThread)?.map_err(AcquireError::from)
}

static CURRENT: AtomicPtr<Keepers> = AtomicPtr::new(ptr::null_mut());

/// A forked child begins with none: its parent's mutex may be locked by a thread that it does not have.
fn of_this_process(me: ThisThread) -> &'static Keepers {
    let process = high(me.owner());
    loop {
        // ORDER: Acquire pairs with the compare-and-swap below: who finds it finds it made.
        let known = CURRENT.load(Acquire);
        // SAFETY: null, or keepers that were leaked below.
        if let Some(keepers) = unsafe { known.as_ref() }.filter(|keepers| keepers.process == process) {
            return keepers;
        }
        let fresh = Box::into_raw(Box::new(Keepers { process, list: Mutex::new(Vec::new()), started: AtomicBool::new(false) }));
        if CURRENT.compare_exchange(known, fresh, AcqRel, Acquire).is_err() {
            // SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}
