//! The one policy of spinning before sleeping.
//!
//! A signaller leaves its CPU number with the data. A waiter whose partner was last seen on its own CPU parks
//! at once: the partner cannot run while the waiter spins. Otherwise the waiter spins a little longer than
//! one wake-up takes between CPUs, then parks. A wake-up takes about 30 us in a virtual machine. So the
//! waiter spins for 45 us of pauses, and counts out once per process how many pauses that is. With less, two
//! parked partners would never leave the slow regime. The policy never uses `sched_yield`: beside a busy
//! thread on the same CPU it costs milliseconds.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::sys;

/// Stands for the CPU of a signaller that is not known yet.
pub const NO_CPU: u32 = u32::MAX;

/// Pauses between two looks at a word that the partner writes once. Fewer pauses gain nothing.
pub const EAGER: u32 = 4;

/// The most pauses between two looks at a lock's word. A waiter for a lock starts with few, doubles them, and
/// sleeps after this many.
pub(crate) const LONGEST_PAUSE: u32 = 256;

/// Returns this thread's CPU, to be left with the data for the next waiter.
#[inline]
pub fn this_cpu() -> u32 {
    sys::cpu()
}

/// Spins for as long as that beats sleeping. Returns whether `ready` returned true.
///
/// `partner` is the CPU on which the partner was last seen, `first` the number of pauses before the first
/// look, `longest` the most pauses between later looks. Each look may take a cache line away from the
/// partner.
#[inline]
pub fn spin(partner: u32, first: u32, longest: u32, mut ready: impl FnMut() -> bool) -> bool {
    // A thread that is bound to one CPU assumes that an unknown partner is on that CPU, too.
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

/// Runs `wait`, in which this thread sleeps for locks at once instead of spinning first. For a wait for a
/// thread that was last seen on this CPU, and cannot go on while this thread spins.
///
/// ```
/// use multiproc_robust::{Deadline, RobustLock, without_spinning};
///
/// let lock = Box::new(RobustLock::new()); // in earnest: inside an object in shared memory
/// // SAFETY: the box outlives the time in which it is held.
/// without_spinning(|| unsafe { lock.acquire(Deadline::NEVER) })?;
/// lock.release();
/// # Ok::<(), multiproc_robust::AcquireError>(())
/// ```
pub fn without_spinning<R>(wait: impl FnOnce() -> R) -> R {
    let before = SLEEPS_AT_ONCE.replace(true);
    // Not restored after a panic in `wait`: then this thread only sleeps sooner.
    let result = wait();
    SLEEPS_AT_ONCE.set(before);
    result
}

thread_local! {
    static SLEEPS_AT_ONCE: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread is inside [`without_spinning`].
pub(crate) fn sleeps_at_once() -> bool {
    SLEEPS_AT_ONCE.get()
}

/// Returns how many pauses take 45 us; 0 on a machine with one CPU.
fn spin_budget() -> u32 {
    // No `OnceLock`: a child that is forked while another thread counts would wait forever.
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
