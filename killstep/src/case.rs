//! One operation, the processes around it, and the oracle that judges what its death leaves.

use std::fmt;
use std::time::Duration;

use crate::{Cells, Kill, Mode};

/// What a survivor found wrong.
///
/// Any error becomes [`Fault::Torn`] by `?`: an object on which a survivor's plain operation fails is torn.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A process waits for an event that will never come.
    Hang(String),
    /// The object is neither as before nor as after the operation.
    Torn(String),
    /// Something that had been confirmed is gone, or is there twice.
    Lost(String),
    /// A file, a permit or a lease stays with a dead process.
    Leaked(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hang(text) => write!(f, "hang: {text}"),
            Self::Torn(text) => write!(f, "torn: {text}"),
            Self::Lost(text) => write!(f, "lost: {text}"),
            Self::Leaked(text) => write!(f, "leaked: {text}"),
        }
    }
}

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self::Torn(error.to_string())
    }
}

/// A range of the victim's memory that is part of the state.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    pub(crate) address: usize,
    pub(crate) length: usize,
}

impl Region {
    /// `length` bytes at `start`. The kit reads them through the kernel, so they need not be valid: bytes
    /// that are not mapped count as a state of their own.
    #[must_use]
    pub fn new(start: *const u8, length: usize) -> Self {
        Self { address: start.addr(), length }
    }

    /// The bytes of `value` itself, not of what it points to.
    #[must_use]
    pub fn of<T: ?Sized>(value: &T) -> Self {
        Self::new(std::ptr::from_ref(value).cast(), size_of_val(value))
    }
}

/// Where the victim can be killed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Granularity {
    /// After each instruction, or after those that changed the state: for what happens in shared memory.
    #[default]
    Instructions,
    /// At the entry and the exit of each system call: for what happens in the kernel, such as making and
    /// removing files.
    Syscalls,
}

/// Which of the two processes that are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Victim,
    Recoverer,
}

pub(crate) type Arrange<'a, S> = Box<dyn Fn() -> S + 'a>;
pub(crate) type Act<'a, S> = Box<dyn Fn(&S, &Cells) + 'a>;
pub(crate) type Watch<'a, S> = Box<dyn Fn(&S) -> Vec<Region> + 'a>;
pub(crate) type Fingerprint<'a, S> = Box<dyn Fn(&S) -> Vec<u8> + 'a>;
pub(crate) type Oracle<'a, S> = Box<dyn Fn(&S, &Kill<'_>) -> Result<(), Fault> + 'a>;
pub(crate) type Afterwards<'a> = Box<dyn Fn() -> Result<(), Fault> + 'a>;

/// An operation to kill, the peers around it and the oracle.
///
/// Every closure but `arrange`, [`watch`](Case::watch), [`fingerprint`](Case::fingerprint) and
/// [`finally`](Case::finally) runs in a process of its own, forked from the driver. No destructor of the
/// driver's values ever runs there.
///
/// For each kill, in this order:
///
/// 1. `arrange`; each `peer` starts and falls asleep.
/// 2. The victim runs `warm`, then `victim` up to the kill point; each `late_peer` starts.
/// 3. SIGKILL. In [`Mode::Double`] the recoverer then runs and is killed. In [`Mode::Freeze`] the victim
///    stands still instead, `frozen` runs, and the victim goes on to its end. In [`Mode::Missed`] it first
///    loses its robust list.
/// 4. `survive`; every peer must end.
/// 5. The driver drops the shared object; `finally`.
#[expect(missing_debug_implementations, reason = "closures")]
pub struct Case<'a, S> {
    pub(crate) name: String,
    pub(crate) arrange: Arrange<'a, S>,
    pub(crate) peers: Vec<Act<'a, S>>,
    pub(crate) late_peers: Vec<Act<'a, S>>,
    pub(crate) warm: Option<Act<'a, S>>,
    pub(crate) victim: Act<'a, S>,
    pub(crate) recoverer: Option<Act<'a, S>>,
    pub(crate) release: Option<Act<'a, S>>,
    pub(crate) frozen: Option<Oracle<'a, S>>,
    pub(crate) without: Vec<(Mode, String)>,
    pub(crate) sampled: u64,
    pub(crate) survive: Oracle<'a, S>,
    pub(crate) finally: Option<Afterwards<'a>>,
    pub(crate) watch: Option<Watch<'a, S>>,
    pub(crate) fingerprint: Option<Fingerprint<'a, S>>,
    pub(crate) granularity: Granularity,
    pub(crate) watchdog: Duration,
    pub(crate) wake_limit: Duration,
    pub(crate) poll_limit: Duration,
    pub(crate) blocked_after: Duration,
    pub(crate) max_steps: u64,
}

impl<'a, S> Case<'a, S> {
    /// Makes a case. `arrange` makes the shared object afresh for each kill, `victim` works on it until it is
    /// killed, and `survive` judges what is left. The driver drops the object, and that must not wait for
    /// another process.
    pub fn new(
        name: impl Into<String>,
        arrange: impl Fn() -> S + 'a,
        victim: impl Fn(&S, &Cells) + 'a,
        survive: impl Fn(&S, &Kill<'_>) -> Result<(), Fault> + 'a,
    ) -> Self {
        Self {
            name: name.into(),
            arrange: Box::new(arrange),
            peers: Vec::new(),
            late_peers: Vec::new(),
            warm: None,
            victim: Box::new(victim),
            recoverer: None,
            release: None,
            frozen: None,
            without: Vec::new(),
            sampled: 0,
            survive: Box::new(survive),
            finally: None,
            watch: None,
            fingerprint: None,
            granularity: Granularity::Instructions,
            watchdog: Duration::from_secs(3),
            wake_limit: Duration::from_secs(3),
            poll_limit: Duration::from_secs(4),
            blocked_after: Duration::from_millis(20),
            max_steps: 200_000,
        }
    }

    /// Starts `peer` before the victim and waits until it is asleep in a system call. The peer must return
    /// before the watchdog's time is over, helped by what `survive` does. Peers are numbered from 0 in the
    /// order of these calls.
    #[must_use]
    pub fn peer(mut self, peer: impl Fn(&S, &Cells) + 'a) -> Self {
        self.peers.push(Box::new(peer));
        self
    }

    /// Starts `peer` while the victim stands, still alive, at its kill point, and waits until it is asleep or
    /// has ended. It is numbered after the peers, and must end as they must.
    #[must_use]
    pub fn late_peer(mut self, peer: impl Fn(&S, &Cells) + 'a) -> Self {
        self.late_peers.push(Box::new(peer));
        self
    }

    /// Runs `warm` in the victim before its steps count: what a process does once, so that the first use is
    /// not measured.
    #[must_use]
    pub fn warm(mut self, warm: impl Fn(&S, &Cells) + 'a) -> Self {
        self.warm = Some(Box::new(warm));
        self
    }

    /// Gives the second victim of [`Mode::Double`] an operation of its own. After the death of the first
    /// victim it runs `recoverer`, which repairs what was left, and is killed at each of its own states.
    /// Without this it does what the first victim did. It never runs `warm`: its own first use is among its
    /// steps.
    #[must_use]
    pub fn recoverer(mut self, recoverer: impl Fn(&S, &Cells) + 'a) -> Self {
        self.recoverer = Some(Box::new(recoverer));
        self
    }

    /// Runs `release` in a process of its own whenever the victim sleeps in a system call. It must end that
    /// sleep; the steps then go on. A case whose sleep ends by itself (a time-out) gives `|_, _| ()`. Without
    /// this, the first sleep is the last kill point.
    #[must_use]
    pub fn release(mut self, release: impl Fn(&S, &Cells) + 'a) -> Self {
        self.release = Some(Box::new(release));
        self
    }

    /// Judges what other processes see while the victim stands still ([`Mode::Freeze`]): that time-outs hold,
    /// that nothing is taken from the victim, and that what does not need it goes on. The victim then goes on
    /// to its end, and `survive` judges as if nothing had happened. Without this, the victim merely stands
    /// while each `late_peer` comes.
    #[must_use]
    pub fn frozen(mut self, oracle: impl Fn(&S, &Kill<'_>) -> Result<(), Fault> + 'a) -> Self {
        self.frozen = Some(Box::new(oracle));
        self
    }

    /// Leaves out a mode. The reason is printed where that mode is swept wholly.
    #[must_use]
    pub fn without(mut self, mode: Mode, reason: impl Into<String>) -> Self {
        self.without.push((mode, reason.into()));
        self
    }

    /// Tries each mode beside [`Mode::Kill`] at so many of the states, evenly spread, where neither `--all`
    /// nor `--mode` sweeps it wholly; at first 0.
    #[must_use]
    pub fn sampled(mut self, states: u64) -> Self {
        self.sampled = states;
        self
    }

    /// Runs `finally` in the driver after each kill, when all processes have ended and the shared object is
    /// dropped. It judges what is left behind.
    #[must_use]
    pub fn finally(mut self, finally: impl Fn() -> Result<(), Fault> + 'a) -> Self {
        self.finally = Some(Box::new(finally));
        self
    }

    /// Names the shared bytes whose change makes a new state. So does a change of the victim's robust list
    /// (what the kernel would walk at its death), and every system call.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&S) -> Vec<Region> + 'a) -> Self {
        self.watch = Some(Box::new(watch));
        self
    }

    /// Tells what a death leaves that is not among the watched bytes, such as files. It runs in the driver
    /// after the death. Modes that leave out states which leave the same go by the watched bytes and by this;
    /// with neither they leave out nothing.
    #[must_use]
    pub fn fingerprint(mut self, fingerprint: impl Fn(&S) -> Vec<u8> + 'a) -> Self {
        self.fingerprint = Some(Box::new(fingerprint));
        self
    }

    /// Chooses where the victim can be killed; at first [`Granularity::Instructions`].
    #[must_use]
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Sets how long survivor and peers may take before that counts as a hang; at first 3 seconds.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = limit;
        self
    }

    /// Sets how long [`Kill::must_wake`] waits, and what [`Kill::patience`] says, in all modes but
    /// [`Mode::Missed`]; at first 3 seconds.
    #[must_use]
    pub fn wake_within(mut self, limit: Duration) -> Self {
        self.wake_limit = limit;
        self
    }

    /// Sets the same for [`Mode::Missed`]: how long the liveness poll of the object's users may take to
    /// notice a death, and some more; at first 4 seconds.
    #[must_use]
    pub fn poll_within(mut self, limit: Duration) -> Self {
        self.poll_limit = limit;
        self
    }

    /// Sets how long a victim may sleep in a system call before that counts as blocked; at first 20 ms.
    #[must_use]
    pub fn blocked_after(mut self, limit: Duration) -> Self {
        self.blocked_after = limit;
        self
    }

    /// Sets how many steps the operation may take before the case counts as broken; at first 200,000.
    #[must_use]
    pub fn max_steps(mut self, steps: u64) -> Self {
        self.max_steps = steps;
        self
    }

    /// Why a mode is left out, if it is.
    pub(crate) fn left_out(&self, mode: Mode) -> Option<&str> {
        let named =
            self.without.iter().find(|(without, _)| *without == mode).map(|(_, reason)| reason.as_str());
        let by_nature = mode == Mode::Missed && self.granularity == Granularity::Syscalls;
        named.or_else(|| by_nature.then_some("no list is taken from a victim inside of a system call"))
    }

    /// How long a process may wait, in this mode.
    pub(crate) fn patience(&self, mode: Mode) -> Duration {
        if mode == Mode::Missed { self.poll_limit } else { self.wake_limit }
    }
}
