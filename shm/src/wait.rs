//! How everybody waits: the one policy of spinning before sleeping, and the two wait words, [`Seq`] and [`Bell`].
//!
//! | word | says | used where |
//! |---|---|---|
//! | [`Seq`] | "something has changed since you looked": a counter | whoever waits for a condition that others make true, when a signaller's death between change and wake may cost a second |
//! | [`Bell`] | "it has been rung": a level | whoever must hear it even if the ringer is killed between the store and the wake |
//!
//! # Why no wake is lost
//!
//! A `Seq` waiter counts itself, reads the counter, looks at its condition, and sleeps only if the counter is still the one it read. A signaller changes the condition, then the counter,
//! then wakes. Either the waiter's look comes after the change, or the counter has moved before the kernel compares it. A `Bell` waiter sleeps only while the word says "silent".
//!
//! # Dead waiters, dead signallers
//!
//! A dead `Seq` sleeper leaves the count of sleepers too high: a futile system call per signal. It may take a `wake_one` with it if it was already woken: use `wake_all`,
//! or a condition that is looked at again within a second, which every sleep here does. A `Bell` waiter keeps the kernel's pending pointer on the bell while it sleeps, so its death
//! after being woken wakes another; a ringer does the same around store and wake.
//!
//! # When we spin
//!
//! Whoever signals leaves its CPU number with the data. A waiter whose partner was last seen on its own CPU parks at once: the partner cannot run while we spin. Otherwise it spins a
//! little longer than one wake-up takes between CPUs (about 30 us in a virtual machine, so 45 us of pauses, counted out once at start), then parks. With less, two parked partners would
//! never leave the slow regime. Never `sched_yield`: beside a busy neighbour it costs milliseconds.
#![allow(unsafe_code, reason = "a pointer to one half of a word")]

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::acquired::AcquireError;
use crate::deadline::Deadline;
use crate::identity::{FUTEX_OFFSET, Me, Node};
use crate::robust_lock::BELT;
use crate::sys;
use crate::zoo::{self, Bug};

/// What a signaller's CPU is when nobody has signalled yet.
pub const NO_CPU: u32 = u32::MAX;

/// Pauses between two looks at a word that the partner writes once: below this nothing is gained.
pub const EAGER: u32 = 4;

/// This thread's CPU, to be left with the data for the next waiter.
#[inline]
pub fn this_cpu() -> u32 {
    sys::cpu()
}

/// Looks again and again, for as long as spinning beats sleeping, and tells whether `ready` came true. `partner` is the CPU where the other side was last seen,
/// `first` the number of pauses before the first look, `longest` that between later ones: each look may take a cache line away from the partner.
#[inline]
pub fn spin(partner: u32, first: u32, longest: u32, mut ready: impl FnMut() -> bool) -> bool {
    // Of a partner that nobody has seen yet a thread that is bound to one CPU assumes that it is there, too.
    if partner == sys::cpu() || (partner == NO_CPU && sys::is_bound_to_one_cpu()) {
        return false;
    }
    let budget = spin_budget();
    let (mut spent, mut pauses) = (0, first.max(1));
    while spent < budget {
        (0..pauses).for_each(|_| std::hint::spin_loop());
        if ready() {
            return true;
        }
        pauses = if spent == 0 { 1 } else { (pauses * 2).min(longest) };
        spent += pauses;
    }
    false
}

/// Runs this while the thread goes to sleep at once where it would look again and again first: for a wait for whoever was last seen on this CPU, and cannot go on while we look.
///
/// ```
/// use multiproc_shm::{Deadline, RobustLock, without_spinning};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// // SAFETY: the box outlives the time in which it is held.
/// without_spinning(|| unsafe { lock.acquire(Deadline::NEVER) })?;
/// lock.release();
/// # Ok::<(), multiproc_shm::AcquireError>(())
/// ```
pub fn without_spinning<R>(wait: impl FnOnce() -> R) -> R {
    let before = PATIENT.replace(true);
    // Not restored after a panic in `wait`: then this thread only sleeps sooner.
    let result = wait();
    PATIENT.set(before);
    result
}

thread_local! {
    static PATIENT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread was told not to spin.
pub(crate) fn is_patient() -> bool {
    PATIENT.get()
}

/// How many pauses make 45 us; 0 where there is one CPU.
fn spin_budget() -> u32 {
    // No `OnceLock`: a child that is forked while another thread counts would wait for ever.
    static BUDGET: AtomicU32 = AtomicU32::new(UNKNOWN);
    match BUDGET.load(Relaxed) {
        UNKNOWN => {
            let budget = count_spin_budget();
            BUDGET.store(budget, Relaxed);
            budget
        }
        known => known,
    }
}

const UNKNOWN: u32 = u32::MAX;

#[cold]
fn count_spin_budget() -> u32 {
    if sys::cpus_online() == 1 {
        return 0;
    }
    const SAMPLE: u32 = 500;
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        (0..SAMPLE).for_each(|_| std::hint::spin_loop());
        start.elapsed()
    });
    let pause_ns = fastest.min().unwrap_or(Duration::from_micros(5)).as_nanos().max(1);
    u32::try_from(u128::from(SAMPLE) * 45_000 / pause_ns).unwrap_or(4000)
}

/// "Something has changed since you looked": a counter that sleepers watch. All zeros is a good start.
///
/// ```
/// use multiproc_shm::{Deadline, Seq};
/// use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
///
/// let (seq, flag) = (Seq::new(), AtomicBool::new(false)); // in earnest: in shared memory
/// std::thread::scope(|s| {
///     s.spawn(|| { flag.store(true, SeqCst); seq.wake_all(); });
///     assert!(seq.wait_until(Deadline::NEVER, || flag.load(SeqCst)));
/// });
/// ```
#[repr(C)]
pub struct Seq {
    count: AtomicU32,
    sleepers: AtomicU32,
    cpu: AtomicU32,
}

impl Seq {
    /// A word on which nobody sleeps.
    pub const fn new() -> Self {
        Self { count: AtomicU32::new(0), sleepers: AtomicU32::new(0), cpu: AtomicU32::new(0) }
    }

    /// Waits until `ready` says so, or the deadline has passed (false). `ready` is asked at each change and at least once a second.
    pub fn wait_until(&self, deadline: Deadline, mut ready: impl FnMut() -> bool) -> bool {
        if ready() {
            return true;
        }
        if deadline == Deadline::NOW {
            return false;
        }
        let signaller = self.cpu.load(Relaxed).wrapping_sub(1);
        if spin(signaller, 1, EAGER, &mut ready) {
            return true;
        }
        loop {
            self.sleepers.fetch_add(1, SeqCst);
            // ORDER: SeqCst pairs with `signal`: either our look sees the change, or the count has moved when the kernel compares it.
            let seen = self.count.load(SeqCst);
            let done = ready();
            if !done {
                sys::futex_wait(&raw const self.count, seen, deadline.within(BELT));
            }
            // CRASH: killed above, the count of sleepers stays one too high.
            self.sleepers.fetch_sub(1, SeqCst);
            if done || ready() {
                return true;
            }
            if deadline.has_passed() {
                return false;
            }
        }
    }

    /// How many sleep on it now, as the kernel counts them: a killed one is not among them, nor is one that still spins.
    pub fn sleepers(&self) -> usize {
        sys::sleepers_on(&raw const self.count)
    }

    /// Whether somebody may sleep on it (never falsely no; deaths may make it falsely yes).
    #[inline]
    pub fn has_sleepers(&self) -> bool {
        // ORDER: SeqCst pairs with a sleeper's count: either it is seen, or the sleeper sees what was changed before this look.
        self.sleepers.load(SeqCst) != 0
    }

    /// If somebody may sleep, makes the word another one, and wakes nobody: who has noted it and does not sleep yet looks again.
    pub fn touch(&self) {
        if self.has_sleepers() {
            self.count.fetch_add(1, SeqCst);
        }
    }

    /// How many sleep, as they count themselves, to be raised while one does.
    pub(crate) fn sleepers_counted(&self) -> &AtomicU32 {
        &self.sleepers
    }

    /// The word that its sleepers watch, and what it is now.
    pub(crate) fn now(&self) -> (*const AtomicU32, u32) {
        (&raw const self.count, self.count.load(SeqCst))
    }

    /// Tells one sleeper that something has changed; true when one was woken.
    pub fn wake_one(&self) -> bool {
        self.signal(1) > 0
    }

    /// Tells every sleeper that something has changed; how many were woken.
    pub fn wake_all(&self) -> u32 {
        self.signal(i32::MAX)
    }

    fn signal(&self, count: i32) -> u32 {
        self.cpu.store(sys::cpu().wrapping_add(1), Relaxed);
        // ORDER: SeqCst pairs with `wait_until`.
        self.count.fetch_add(1, SeqCst);
        // CRASH: changed, nobody woken: sleepers look again within a second.
        if self.sleepers.load(SeqCst) == 0 { 0 } else { sys::futex_wake(&raw const self.count, count) }
    }
}

impl Default for Seq {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seq").field("count", &self.count.load(Relaxed)).field("sleepers", &self.sleepers.load(Relaxed)).finish()
    }
}

/// "It has been rung": a level that reaches every sleeper even if the ringer is killed between the store and the wake. All zeros is a silent bell.
///
/// Its word never holds a thread id, so the kernel accepts it as a dying thread's pending word, and wakes one sleeper; that one wakes the rest.
///
/// ```
/// use multiproc_shm::{Bell, Deadline};
///
/// let bell = Bell::new(); // in earnest: in shared memory
/// assert!(!bell.wait(Deadline::NOW)?);
/// bell.ring()?;
/// assert!(bell.wait(Deadline::NEVER)?);
/// # Ok::<(), multiproc_shm::AcquireError>(())
/// ```
#[repr(C)]
pub struct Bell {
    /// 0: silent, nobody sleeps. `SLEEPERS`: silent, somebody may sleep. `RUNG`.
    word: AtomicU32,
    cpu: AtomicU32,
}

const SLEEPERS: u32 = 0x8000_0000;
const RUNG: u32 = 0x4000_0000;

impl Bell {
    /// A silent bell.
    pub const fn new() -> Self {
        Self { word: AtomicU32::new(0), cpu: AtomicU32::new(0) }
    }

    /// Rings: everybody who waits, and everybody who comes before [`silence`](Self::silence), goes on. (A waiter that was woken but finds the bell silent again waits on.)
    ///
    /// # Errors
    ///
    /// [`AcquireError::Unsupported`] when this thread has no robust list.
    pub fn ring(&self) -> Result<(), AcquireError> {
        let me = Me::current()?;
        me.begin(self.node());
        self.cpu.store(sys::cpu().wrapping_add(1), Relaxed);
        if zoo::planted(Bug::WakeBeforeStore) {
            sys::futex_wake(&raw const self.word, i32::MAX);
            self.word.store(RUNG, SeqCst);
            me.end();
            return Ok(());
        }
        // ORDER: SeqCst pairs with `wait`: what happened before the ring is seen after it.
        let before = self.word.swap(RUNG, SeqCst);
        // CRASH: rung, nobody woken: pending names the word, the kernel wakes one sleeper, who wakes the others.
        if before == SLEEPERS {
            sys::futex_wake(&raw const self.word, i32::MAX);
        }
        me.end();
        Ok(())
    }

    /// Makes it silent again.
    pub fn silence(&self) {
        let _ = self.word.compare_exchange(RUNG, 0, SeqCst, Relaxed);
    }

    /// Whether it has been rung.
    pub fn is_rung(&self) -> bool {
        self.word.load(SeqCst) == RUNG
    }

    /// Waits until it rings; false when the deadline came first.
    ///
    /// # Errors
    ///
    /// [`AcquireError::Unsupported`] when this thread has no robust list.
    pub fn wait(&self, deadline: Deadline) -> Result<bool, AcquireError> {
        if self.is_rung() || deadline == Deadline::NOW {
            return Ok(self.is_rung());
        }
        if spin(self.cpu.load(Relaxed).wrapping_sub(1), 1, EAGER, || self.is_rung()) {
            return Ok(true);
        }
        let me = Me::current()?;
        // CRASH: from here on our death wakes another sleeper, so a wake that reached us alone is passed on.
        me.begin(self.node());
        let rung = loop {
            match self.word.compare_exchange(0, SLEEPERS, SeqCst, SeqCst) {
                Ok(_) | Err(SLEEPERS) => {}
                Err(_) => break true,
            }
            if deadline.has_passed() {
                break false;
            }
            sys::futex_wait(&raw const self.word, SLEEPERS, deadline.within(BELT));
        };
        if rung {
            sys::futex_wake(&raw const self.word, i32::MAX);
        }
        me.end();
        Ok(rung)
    }

    /// The place whose futex word is ours; the kernel only computes with it.
    fn node(&self) -> Node {
        self.word.as_ptr().wrapping_byte_offset(-FUTEX_OFFSET).cast()
    }
}

impl Default for Bell {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("rung", &self.is_rung()).finish()
    }
}
