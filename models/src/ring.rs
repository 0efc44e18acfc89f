//! The ring's sleep protocol: two robust locks back to back, and nobody sleeps holding either.
//!
//! Each side, P for producers and C for consumers, has one 64-bit word as in [`mod@crate::lock`]: L (TID, `W`, `OD`) and
//! A. A of one side is also the bell on which the *other* role sleeps. `kb`, always 0, is the futex word of those who
//! contend for the side's lock: the living ring `kb` and A, only the kernel rings L, so no wake meant for one class of
//! sleeper is taken by another.
//!
//! # What may be seen
//!
//! | the word of a side | meaning |
//! |---|---|
//! | `0` | free; nobody relies on whoever comes next |
//! | `W` | free; perhaps somebody sleeps, on `kb` or on the other role's behalf on A |
//! | `OD`, `OD W` | free; the last owner died in it |
//! | `tid`, `tid W` | held; with `W`, the holder settles (wakes, chains) when it releases |
//!
//! # The steps
//!
//! | [`At`] | the ring's line |
//! |---|---|
//! | `Start` | `list_op_pending = my node` |
//! | `Try` | word 0: CAS64 → tid. Free with `W` or `OD`: CAS64 keeps `W`, drops `OD`, A+1. Held: `nwait`+1, CAS64 sets `W`, A+1. Then `list_op_pending = 0` when taken ([`mod@crate::lock`] has link and unlink) |
//! | `WaitKb`, `WaitLock`, `Contending` | `futex_waitv` \[`kb` == 0, L == the value announced\] |
//! | `Look` | under the lock: fits, or there is data → the one commit store. Closed, full, empty → out |
//! | `PassBump`, `PassWake`, `PassMark` | a producer that finds no room for itself, yet room for the smallest size ever slept for (`least`), and `passed` ≠ head: A of C + 1, wake **all** on it, `passed` = head; all under the lock |
//! | `Release` | `list_op_pending = my node`; unlink; `s = fetch_sub(tid)` keeps `W`. Without `W`: done |
//! | `WakeKb` | if `nwait`: wake one on `kb` |
//! | `Bump`, `WakeBell` | if `nother`: `p = fetch_add(A+1)`; when `p` ≠ `s`, `W` stays; wake one on A. Who has brought nothing does so only if what they wait for is there, and else leaves `W` |
//! | `Chain`, `ChainWake` | if the other side has sleepers and there still is what they wait for (data; or room ≥ `least` and `passed` ≠ head): A of the other side + 1, wake one on it |
//! | `Clear` | if nobody was woken: CAS64 (`W`, A) → (0, A) |
//! | `Disarm` | `list_op_pending = 0`, the last thing |
//! | `Arm` | nothing found: `list_op_pending = the other side's node`, `nother`+1, `least` = min(`least`, size) |
//! | `Announce` | CAS64 on the other side: `W`, A+1 |
//! | `ReadMine` | read my L: **before** the re-check |
//! | `Recheck` | without the lock: data, room or `closed`? |
//! | `WaitMine`, `WaitOther`, `WaitBell`, `Asleep` | `futex_waitv` \[L mine, L other, A other\], **the bell last**. The kernel compares and queues one word after the other. EAGAIN → `Announce` |
//! | `Woken` | the kernel takes it off all queues |
//! | `DutyOther`, `DutyMine`, `DutyBump`, `DutyBell` | after **every** wake: for each L that is free with `W`, wake its `kb` (if `nwait`), and for mine also A+1 and wake one on A (if `nother`, and what they wait for is there) |
//! | `TellP` … `TellCWake` | the ring is closed: A+1 and wake all, on both bells |
//! | `Flight` | announce on my side, still armed on the other; then acquire |
//! | `CloseAnnounce`, `Close` | the closer, holding P: announce on P, `closed = true`, then `Tell…`, then release |
//! | `Dying`, `DyingWakes` | the kernel, as in [`mod@crate::lock`] |
//!
//! A broadcast (`Tell…`) is repeated by whoever takes P or C with `OD` and finds `closed`, and by every sleeper that was
//! woken and finds `closed`.
//!
//! The brief first sleep waits on A alone and ends by itself after some milliseconds. A process may be killed before
//! any step. Asleep, it may time out, or be interrupted by a signal. Which sleeper a wake reaches is left open.
//!
//! # What is not modelled
//!
//! Positions are a count; the re-check's reads (header at head, head again; tail, then head) are one step: each is
//! exact when it says "nothing", and when it says "something" the lock is taken and the truth looked up. Spinning happens
//! without the lock and writes nothing. A is a counter without numbers, as in the lock. Memory is sequentially
//! consistent; where that matters is the next section.
//!
//! # Orderings
//!
//! Read-modify-writes of one word are totally ordered, and most of the protocol needs no more: release's `fetch_sub`
//! either sees the sleeper's `W`, or the sleeper's announce reads from it (Release/Acquire) and its re-check sees the
//! commit. These pairs are *store, then load of another word* on both sides (Dekker). On x86 the read-modify-write in
//! between is the fence; elsewhere all four accesses, or a fence between each two, must be `SeqCst`:
//!
//! | one | the other | if both missed |
//! |---|---|---|
//! | sleeper: announce (word of other), re-check (header, head, tail, `closed`) | releaser: commit, `fetch_sub` (that word) | same word: Release/Acquire suffices for the wake; for space the bell is the consumer's word and the commit `head`: the same |
//! | sleeper: announce (word of other), read my L | kernel: `OD` into my L, wake | sleeps beside a death: the kernel's futex call is a full fence, the announce must be `SeqCst` before the read |
//! | sleeper: `nother`+1, announce | releaser: `fetch_sub`, read `nother` | same word again: `nother`+1 is published by the announce whose `W` was seen |
//! | sleeper: `nother`+1, announce, re-check head | producer in the lock: read head, read `nother` (pass on), `passed` = head | a sleeper not told: `SeqCst` |
//! | chain: commit or read of the other role's position, read other `nother` | sleeper of that role: `nother`+1, announce, re-check | a wake not passed on: `SeqCst` |
//! | contender: `nwait`+1, announce | releaser: `fetch_sub`, read `nwait` | same word: published by the announce |
//! | duty: kernel's wake, read both L, `nwait`, `nother` | those about to sleep: count, announce, then the kernel compares L | the comparison in the kernel is fenced; reads `SeqCst` |
//! | closer: announce, `closed = true`, A+1, wake | sleeper: announce, re-check `closed`, then the kernel compares A | same word A: Release/Acquire |
//!
//! # The properties
//!
//! - Never more in the ring than fits.
//! - No lost wake: when nobody can move by himself, nobody sleeps for a lock, none for data while there is data, none for
//!   room while there is room for *him*, and none at all on a closed ring.
//! - Nobody is kept busy (`live`): from every state a quiet one can be reached, and no cycle contains a wake-up.

use crate::checker::{Kind, Model, Step};
use std::{
    fmt,
    hash::{Hash, Hasher},
};

/// Most processes in one run.
const MOST: usize = 5;

/// A consumer that never has enough.
pub(crate) const ALL: u8 = u8::MAX;

/// The producers' side.
const P: usize = 0;
/// The consumers' side.
const C: usize = 1;

/// What a process does in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Puts `messages` messages of `size` units each.
    Producer { size: u8, messages: u8 },
    /// Gets so many messages ([`ALL`]: until there are no more).
    Consumer { messages: u8 },
    /// Closes the ring, from the producers' side.
    Closer,
}

/// How sleepers begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Brief {
    /// With the precise wait at once.
    Never,
    /// First on the bell alone, a few milliseconds; then precisely.
    First,
    /// On the bell alone, for ever: shows that with no kill that is exact.
    Only,
}

/// One run.
#[derive(Debug, Clone)]
pub(crate) struct Ring {
    pub(crate) roles: Vec<Role>,
    pub(crate) slots: u8,
    /// Messages of one unit that are there at the start.
    pub(crate) filled: u8,
    pub(crate) kills: u8,
    pub(crate) timeouts: u8,
    pub(crate) spurious: u8,
    pub(crate) brief: Brief,
    /// Untimed sleeps end once a second: whoever is stuck looks again.
    pub(crate) belt: bool,
    pub(crate) bug: Option<Bug>,
}

/// Ways to get it wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The bell is the first word of the precise sleep.
    BellComparedFirst,
    /// Duty only when the index `futex_waitv` returned is a lock word's.
    DutyByLastIndex,
    /// No duty after any wake.
    NoDuty,
    /// The re-check comes before the announce.
    RecheckBeforeAnnounce,
    /// The clear compares L only.
    ClearIgnoresAnnounce,
    /// The sleep compares A with whatever it is by then.
    BellNotCompared,
    /// The slow take leaves A alone.
    SlowTakeDoesNotAnnounce,
    /// The other side's L is no word of the sleep.
    OtherLockNotWatched,
    /// My L is no word of the sleep.
    OwnLockNotWatched,
    /// My L is read after the re-check.
    OwnLockReadAfterRecheck,
    /// Release rings the bell without moving A.
    NoBumpAtRelease,
    /// After the bump the clear trusts the new word, whatever the bump replaced. **Not found any more** since duty follows
    /// every wake; the comparison costs nothing and stays.
    BumpOverwritesSnapshot,
    /// Sleepers arm nothing.
    NotArmedAsleep,
    /// No announce on my side after a sleep.
    NoFlightAnnounce,
    /// `list_op_pending` is zeroed before the wakes.
    PendingClearedBeforeWakes,
    /// The living wake contenders through L.
    WakersUseLockWord,
    /// Release does not chain.
    NoChain,
    /// A producer without room does not pass its wake on: it chains only after a commit.
    NoPassOn,
    /// It passes it on to one.
    PassOnToOne,
    /// It passes it on however often.
    PassOnAlways,
    /// `passed` is set before the wake.
    PassMarkedBeforeWaking,
    /// The closer does not set `W` before `closed`.
    CloserDoesNotAnnounce,
    /// The closer tells after its release, with nothing armed.
    CloseWakesAfterRelease,
    /// The same, armed on P.
    CloseWakesAfterReleaseArmed,
    /// Who takes over from a dead owner does not tell.
    CloseNotRepeatedByTaker,
    /// Who is woken does not tell.
    CloseNotRepeatedBySleeper,
    /// Kernels before 6.2 without the fix: a pending operation wakes only if the whole word is 0.
    OldKernel,
}

/// L: TID in the low three bits, `W`, `OD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Low(u8);

impl Low {
    const TID: u8 = 7;
    const W: u8 = 8;
    const OD: u8 = 16;

    fn owner(self) -> u8 {
        self.0 & Self::TID
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Free, and somebody may be waiting for it.
    fn deserted(self) -> bool {
        self.owner() == 0 && self.has(Self::W)
    }
}

/// The futex words, as bits of a set: for each side the contenders' word, the bell A and the lock word L.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    Kb,
    Bell,
    Lock,
}

fn bit(word: Word, side: usize) -> u8 {
    1 << (word as usize * 2 + side)
}

/// Where a process stands: the name of the step it takes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum At {
    Start,
    Try,
    WaitKb,
    WaitLock,
    Contending,
    Look,
    PassBump,
    PassWake,
    PassMark,
    CloseAnnounce,
    Close,
    TellP,
    TellPWake,
    TellC,
    TellCWake,
    Release,
    WakeKb,
    Bump,
    WakeBell,
    Chain,
    ChainWake,
    Clear,
    Disarm,
    Arm,
    Announce,
    ReadMine,
    Recheck,
    WaitBell,
    WaitMine,
    WaitOther,
    Asleep,
    Woken,
    DutyOther,
    DutyMine,
    DutyBump,
    DutyBell,
    Flight,
    Dying,
    DyingWakes,
    Gone,
}

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum End {
    /// Not yet known.
    Open,
    /// Done: a message moved.
    Done,
    /// The ring is closed.
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    at: At,
    /// Futex words it is queued on.
    queued: u8,
    /// Woken since it began to queue, and by a lock word.
    rung: bool,
    by_lock: bool,
    bell: bool,
    /// `list_op_pending`: nothing, or the node of a side.
    pending: Option<u8>,
    /// L of each side as last read.
    seen: [Low; 2],
    /// A of each side has not moved since it was read.
    fresh: [bool; 2],
    /// In a release: somebody was woken, or W must stay for another reason.
    keep: bool,
    end: End,
    /// Messages still to put.
    messages: u8,
    /// The next sleep is brief.
    brief: bool,
    /// The deadline has passed.
    late: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct State {
    low: [Low; 2],
    /// Messages in the ring, oldest in the lowest bit; a set bit is a message of two units.
    count: u8,
    big: u8,
    closed: bool,
    /// `passed == head`.
    passed: bool,
    /// The smallest size any producer ever slept for; 0: none yet.
    least: u8,
    /// A dead process has left `nwait` or `nother` of a side too high.
    leaked_nwait: [bool; 2],
    leaked_nother: [bool; 2],
    kills: u8,
    timeouts: u8,
    spurious: u8,
    processes: [Process; MOST],
}

impl Process {
    fn bytes(self) -> ([u8; 8], [u8; 8]) {
        let flags = [self.rung, self.bell, self.by_lock, self.fresh[P], self.fresh[C], self.keep, self.brief, self.late];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        let pending = self.pending.map_or(0, |side| side + 1);
        (
            [self.at as u8, self.queued, flags, pending, self.end as u8, self.messages, 0, 0],
            [self.seen[P].0, self.seen[C].0, 0, 0, 0, 0, 0, 0],
        )
    }

    fn gone(at: At) -> Self {
        Self {
            at,
            queued: 0,
            rung: false,
            by_lock: false,
            bell: false,
            pending: None,
            seen: [Low(0); 2],
            fresh: [false; 2],
            keep: false,
            end: End::Open,
            messages: 0,
            brief: false,
            late: false,
        }
    }

    /// Forgets what it has seen: it will look again.
    fn forget(&mut self) {
        self.queued = 0;
        (self.rung, self.by_lock, self.bell, self.keep) = (false, false, false, false);
        (self.seen, self.fresh) = ([Low(0); 2], [false; 2]);
    }

    fn asleep(&self) -> bool {
        matches!(self.at, At::Asleep | At::Contending) && !self.rung
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let flags =
            [self.closed, self.passed, self.leaked_nwait[P], self.leaked_nwait[C], self.leaked_nother[P], self.leaked_nother[C]];
        let flags = flags.iter().fold(0, |all, &flag| all << 1 | u8::from(flag));
        hasher.write_u64(u64::from_le_bytes([
            self.low[P].0,
            self.low[C].0,
            self.count,
            self.big,
            flags,
            self.least,
            self.kills,
            self.timeouts << 4 | self.spurious,
        ]));
        for process in &self.processes {
            let (one, two) = process.bytes();
            hasher.write_u64(u64::from_le_bytes(one) ^ u64::from_le_bytes(two) << 48);
        }
    }
}

impl State {
    /// A+1 on a side.
    fn bump(&mut self, side: usize) {
        for process in &mut self.processes {
            process.fresh[side] = false;
        }
    }

    /// CAS64: W set, A+1.
    fn announce(&mut self, side: usize) {
        self.low[side].0 |= Low::W;
        self.bump(side);
    }

    fn used(&self) -> u8 {
        self.count + u8::try_from(self.big.count_ones()).unwrap_or(0)
    }

    fn ring(&mut self, sleeper: usize, word: Word, side: usize) {
        let p = &mut self.processes[sleeper];
        p.queued &= !bit(word, side);
        p.rung = true;
        // The index `futex_waitv` returns is the last one woken in the order of the list: with the bell last, a lock
        // word is seen only if the bell was not rung too.
        p.by_lock = if word == Word::Lock { !p.bell } else { false };
        p.bell |= word == Word::Bell;
    }

    fn queued(&self, word: Word, side: usize) -> impl Iterator<Item = usize> + use<> {
        let state = *self;
        (0..MOST).filter(move |&i| state.processes[i].queued & bit(word, side) != 0)
    }

    /// FUTEX_WAKE of one: any of those queued, or nobody.
    fn wake_one(&self, word: Word, side: usize, mut found: impl FnMut(Self, bool)) {
        let mut nobody = true;
        for sleeper in self.queued(word, side) {
            nobody = false;
            let mut state = *self;
            state.ring(sleeper, word, side);
            found(state, true);
        }
        if nobody {
            found(*self, false);
        }
    }
}

impl Ring {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The side whose lock a process takes.
    fn side(&self, me: usize) -> usize {
        usize::from(matches!(self.roles[me], Role::Consumer { .. }))
    }

    fn room(&self, state: &State) -> u8 {
        self.slots - state.used()
    }

    /// `me` need not sleep.
    fn ready(&self, state: &State, me: usize) -> bool {
        match self.roles[me] {
            _ if state.closed => true,
            Role::Producer { size, .. } => self.room(state) >= size,
            Role::Consumer { .. } => state.count > 0,
            Role::Closer => true,
        }
    }

    /// There is room that a producer which sleeps might use and has not been told of.
    fn room_to_pass(&self, state: &State) -> bool {
        state.least != 0 && self.room(state) >= state.least && (!state.passed || self.has(Bug::PassOnAlways))
    }

    /// There is something for those who sleep on this side's bell, whoever has brought it.
    fn news(&self, state: &State, side: usize) -> bool {
        if side == P { state.count > 0 || state.closed } else { state.least != 0 && self.room(state) >= state.least }
    }

    /// The release of `me` passes something on to the other side's sleepers.
    fn chains(&self, state: &State, me: usize) -> bool {
        let side = self.side(me);
        if self.has(Bug::NoChain) || !self.nother(state, 1 - side) {
            return false;
        }
        match side {
            P if self.has(Bug::NoPassOn) && state.processes[me].end != End::Done => false,
            P => self.room_to_pass(state),
            _ => state.count > 0,
        }
    }

    /// `nwait` of a side is not 0.
    fn nwait(&self, state: &State, side: usize) -> bool {
        let counted = |p: &Process| matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
        state.leaked_nwait[side] || self.any(state, side, counted)
    }

    /// `nother` of a side is not 0: somebody of the other role is about to sleep, or sleeps, on its bell.
    fn nother(&self, state: &State, side: usize) -> bool {
        state.leaked_nother[side] || self.any(state, 1 - side, Self::napping)
    }

    /// A sleeper that has done its duty repeats the broadcast of a closed ring, and flies.
    fn after_duty(&self, state: &State) -> At {
        let repeats = !self.has(Bug::CloseNotRepeatedBySleeper);
        if state.closed && repeats { At::TellP } else { At::Flight }
    }

    fn napping(p: &Process) -> bool {
        p.at >= At::Announce && p.at <= At::Flight
    }

    fn any(&self, state: &State, side: usize, counted: impl Fn(&Process) -> bool) -> bool {
        self.roles.iter().zip(&state.processes).enumerate().any(|(i, (_, p))| self.side(i) == side && counted(p))
    }

    /// The words of the precise sleep, in the order in which the kernel compares and queues them.
    fn words(&self) -> impl Iterator<Item = At> {
        let order = if self.has(Bug::BellComparedFirst) {
            [At::WaitBell, At::WaitMine, At::WaitOther]
        } else {
            [At::WaitMine, At::WaitOther, At::WaitBell]
        };
        order.into_iter().filter(|at| match at {
            At::WaitMine => !self.has(Bug::OwnLockNotWatched),
            At::WaitOther => !self.has(Bug::OtherLockNotWatched),
            _ => true,
        })
    }

    fn wait_first(&self, brief: bool) -> At {
        if brief { At::WaitBell } else { self.words().next().unwrap_or(At::WaitBell) }
    }

    fn wait_after(&self, at: At, brief: bool) -> At {
        if brief { At::Asleep } else { self.words().skip_while(|&word| word != at).nth(1).unwrap_or(At::Asleep) }
    }

    /// A step that nobody but the kernel could notice.
    fn private_step(&self, state: &mut State, me: usize) -> &'static str {
        let role = self.roles[me];
        let mine = u8::try_from(self.side(me)).unwrap_or(0);
        let late_tell =
            role == Role::Closer && (self.has(Bug::CloseWakesAfterRelease) || self.has(Bug::CloseWakesAfterReleaseArmed));
        let p = &mut state.processes[me];
        match p.at {
            At::Start if role != Role::Closer && p.messages == 0 => {
                *p = Process::gone(At::Gone);
                "leaves for good"
            }
            At::Start => {
                p.pending = Some(mine);
                p.at = At::Try;
                "pending = mine"
            }
            At::Disarm => {
                p.forget();
                if !(late_tell && self.has(Bug::CloseWakesAfterReleaseArmed)) {
                    p.pending = None;
                }
                p.at = match p.end {
                    End::Closed if late_tell => At::TellP,
                    End::Closed => At::Gone,
                    End::Done => At::Start,
                    End::Open if p.late => At::Gone,
                    End::Open => At::Arm,
                };
                if p.at == At::Gone {
                    *p = Process::gone(At::Gone);
                } else if p.at == At::Start {
                    p.end = End::Open;
                    p.late = false;
                    p.brief = self.brief != Brief::Never;
                }
                "pending = 0"
            }
            _ => {
                p.pending = if self.has(Bug::NotArmedAsleep) { None } else { Some(1 - mine) };
                p.at = if self.has(Bug::RecheckBeforeAnnounce) { At::Recheck } else { At::Announce };
                if let Role::Producer { size, .. } = role {
                    state.least = if state.least == 0 { size } else { state.least.min(size) };
                }
                "pending = other"
            }
        }
    }

    /// When nobody will be killed any more, `list_op_pending` says nothing and private steps need no turn of their own.
    fn hurry(&self, state: &mut State) {
        if state.kills > 0 {
            return;
        }
        for me in 0..self.roles.len() {
            while match state.processes[me].at {
                At::Start | At::Disarm => true,
                At::Arm => match self.roles[me] {
                    Role::Producer { size, .. } => state.least != 0 && state.least <= size,
                    _ => true,
                },
                _ => false,
            } {
                self.private_step(state, me);
            }
            let p = &mut state.processes[me];
            if p.at != At::DyingWakes && p.at != At::Dying {
                p.pending = None;
            }
        }
    }

    /// The one thing `me` does next by itself.
    fn own_step(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let mine = self.side(me);
        let tid = u8::try_from(me + 1).unwrap_or(Low::TID);
        let now = before.processes[me];
        let turn = Turn { ring: self, before, me, mine, other: 1 - mine, tid, now, low: before.low };
        match now.at {
            At::Gone => {}
            At::Start | At::Disarm | At::Arm => {
                let mut state = *before;
                let what = self.private_step(&mut state, me);
                next.push(Step { who: me, what, kind: Kind::Own, state });
            }
            At::Try | At::WaitKb | At::WaitLock | At::Contending => turn.acquire(next),
            At::Look | At::PassBump | At::PassWake | At::PassMark => turn.inside(next),
            At::CloseAnnounce | At::Close | At::TellP | At::TellPWake | At::TellC | At::TellCWake => turn.close(next),
            At::Release | At::WakeKb | At::Bump | At::WakeBell | At::Chain | At::ChainWake | At::Clear => turn.release(next),
            At::Announce | At::ReadMine | At::Recheck | At::WaitMine | At::WaitOther | At::WaitBell => turn.sleep(next),
            At::Asleep if !now.rung => turn.sleep(next),
            At::Asleep | At::Woken | At::DutyOther | At::DutyMine | At::DutyBump | At::DutyBell | At::Flight => {
                turn.wake_up(next);
            }
            At::Dying | At::DyingWakes => turn.bury(next),
        }
    }

    /// Robust list, then `list_op_pending`: never more than one of them is a live matter here.
    fn kernel_looks(state: &mut State, me: usize, tid: u8, old: bool) {
        let pending = state.processes[me].pending.map(usize::from);
        let mut wakes = None;
        for side in [P, C] {
            if state.low[side].owner() == tid {
                state.low[side] = Low(Low::OD | (state.low[side].0 & Low::W));
                wakes = state.low[side].has(Low::W).then_some(side);
            } else if pending == Some(side) && state.low[side].owner() == 0 && !(old && state.low[side] != Low(0)) {
                wakes = Some(side);
            }
        }
        state.processes[me] = Process::gone(if wakes.is_some() { At::DyingWakes } else { At::Gone });
        state.processes[me].pending = wakes.map(|side| u8::from(side == C));
    }

    /// What may happen to `me`.
    fn mishaps(&self, before: &State, me: usize, next: &mut Vec<Step<State>>) {
        let p = before.processes[me];
        let mut push = |what, state| next.push(Step { who: me, what, kind: Kind::Chance, state });
        if before.kills > 0 && !matches!(p.at, At::Dying | At::DyingWakes | At::Gone) {
            let mut state = *before;
            state.kills -= 1;
            let mine = self.side(me);
            state.leaked_nwait[mine] |= matches!(p.at, At::WaitKb | At::WaitLock | At::Contending);
            state.leaked_nother[1 - mine] |= Self::napping(&p);
            if p.asleep() {
                let pending = p.pending;
                state.processes[me] = Process::gone(At::Dying);
                state.processes[me].pending = pending;
            } else {
                let tid = u8::try_from(me + 1).unwrap_or(Low::TID);
                Self::kernel_looks(&mut state, me, tid, self.has(Bug::OldKernel));
            }
            push("is killed", state);
        }
        let held = before.low[self.side(me)].owner() != 0;
        if before.timeouts > 0 && !p.late && self.roles[me] != Role::Closer {
            let mut state = *before;
            state.timeouts -= 1;
            let q = &mut state.processes[me];
            q.late = true;
            match p.at {
                At::Contending if p.asleep() => {
                    q.forget();
                    q.at = At::Try;
                    push("is late", state);
                }
                At::Asleep | At::Announce if !p.rung => {
                    *q = Process::gone(At::Gone);
                    push("is late and leaves", state);
                }
                // Awake and late: it will find out where it looks at the clock.
                At::Woken | At::Flight => push("is late", state),
                At::Try if held => push("is late", state),
                _ => {}
            }
        }
        if before.spurious > 0 && p.asleep() {
            let mut state = *before;
            state.spurious -= 1;
            let q = &mut state.processes[me];
            q.forget();
            q.at = if p.at == At::Asleep { At::Start } else { At::Try };
            push("is woken by a signal", state);
        }
    }

    /// A sleeper that ought not to sleep, in a state where nobody moves.
    fn stuck(&self, state: &State) -> Option<(usize, &'static str)> {
        state.processes[..self.roles.len()].iter().enumerate().find_map(|(i, p)| match (p.at, self.roles[i]) {
            (At::Contending, _) => Some((i, "LOST LOCK WAKE")),
            (At::Asleep, _) if state.closed => Some((i, "LOST CLOSE")),
            (At::Asleep, Role::Consumer { .. }) if self.ready(state, i) => Some((i, "LOST DATA WAKE")),
            (At::Asleep, _) if self.ready(state, i) => Some((i, "LOST SPACE WAKE")),
            _ => None,
        })
    }
}

/// One process at one state: everything a step needs.
struct Turn<'a> {
    ring: &'a Ring,
    before: &'a State,
    me: usize,
    mine: usize,
    other: usize,
    tid: u8,
    now: Process,
    low: [Low; 2],
}

impl Turn<'_> {
    /// Acquire.
    fn acquire(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, mine, tid, now, low, .. } = *self;
        let mut state = *before;
        let what = match now.at {
            At::Try if low[mine].owner() == 0 => {
                state.low[mine] = Low(tid | (low[mine].0 & Low::W));
                if low[mine] != Low(0) && !ring.has(Bug::SlowTakeDoesNotAnnounce) {
                    state.bump(mine);
                }
                let repeats = !ring.has(Bug::CloseNotRepeatedByTaker);
                let p = &mut state.processes[me];
                p.forget();
                p.pending = None;
                p.at = At::Look;
                if low[mine].has(Low::OD) && before.closed && repeats {
                    p.at = At::TellP;
                }
                "takes, pending = 0"
            }
            At::Try if now.late => {
                state.processes[me] = Process::gone(At::Gone);
                "gives up"
            }
            At::Try => {
                state.announce(mine);
                let seen = state.low[mine];
                let p = &mut state.processes[me];
                p.seen[mine] = seen;
                p.at = At::WaitKb;
                "announces"
            }
            At::WaitKb => {
                let p = &mut state.processes[me];
                p.queued |= bit(self.kb(), mine);
                p.at = At::WaitLock;
                "queues on kb"
            }
            At::WaitLock => {
                let p = &mut state.processes[me];
                if low[mine] == p.seen[mine] {
                    p.queued |= bit(Word::Lock, mine);
                    p.seen[mine] = Low(0);
                    p.at = At::Contending;
                    "sleeps"
                } else {
                    p.forget();
                    p.at = At::Try;
                    "EAGAIN"
                }
            }
            At::Contending if now.rung => {
                let p = &mut state.processes[me];
                p.forget();
                p.at = At::Try;
                "wakes up"
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// Under the lock: look, commit, pass on.
    fn inside(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, now, .. } = *self;
        let mut state = *before;
        let mut kind = Kind::Own;
        let what = match now.at {
            At::Look => {
                let passes = ring.room_to_pass(before) && !ring.has(Bug::NoPassOn);
                let p = &mut state.processes[me];
                match ring.roles[me] {
                    Role::Closer if before.closed => {
                        p.end = End::Closed;
                        p.at = At::Release;
                        "closed already"
                    }
                    Role::Closer => {
                        p.at = if ring.has(Bug::CloserDoesNotAnnounce) { At::Close } else { At::CloseAnnounce };
                        "will close"
                    }
                    Role::Producer { .. } if before.closed => {
                        p.end = End::Closed;
                        p.at = At::Release;
                        "closed"
                    }
                    Role::Producer { size, .. } if ring.room(before) >= size => {
                        state.big |= u8::from(size == 2) << state.count;
                        state.count += 1;
                        p.messages -= 1;
                        p.end = End::Done;
                        p.at = At::Release;
                        "commits"
                    }
                    Role::Consumer { .. } if before.count > 0 => {
                        state.big >>= 1;
                        state.count -= 1;
                        state.passed = false;
                        p.messages = p.messages.saturating_sub(u8::from(p.messages != ALL));
                        p.end = End::Done;
                        p.at = At::Release;
                        "commits"
                    }
                    Role::Consumer { .. } => {
                        p.at = At::Release;
                        if before.closed {
                            p.end = End::Closed;
                        }
                        "empty"
                    }
                    Role::Producer { .. } => {
                        p.at = match passes {
                            false => At::Release,
                            true if ring.nother(before, C) => At::PassBump,
                            true => At::PassMark,
                        };
                        "full"
                    }
                }
            }
            At::PassBump => {
                state.bump(C);
                state.processes[me].at = if ring.has(Bug::PassMarkedBeforeWaking) { At::PassMark } else { At::PassWake };
                "passes on: A+1"
            }
            At::PassWake => {
                let then = if ring.has(Bug::PassMarkedBeforeWaking) { At::Release } else { At::PassMark };
                if ring.has(Bug::PassOnToOne) {
                    self.wake(next, Word::Bell, C, "passes on to one", &|p, _| p.at = then);
                    return;
                }
                (state, kind) = self.tell_all(C);
                state.processes[me].at = then;
                "passes on to all"
            }
            At::PassMark => {
                state.passed = true;
                state.processes[me].at = if ring.has(Bug::PassMarkedBeforeWaking) { At::PassWake } else { At::Release };
                "passed = head"
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind, state });
    }

    /// Close, and its repetition.
    fn close(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, mine, tid, now, low, .. } = *self;
        let mut state = *before;
        let mut kind = Kind::Own;
        let what = match now.at {
            At::CloseAnnounce => {
                state.announce(mine);
                state.processes[me].at = At::Close;
                "announces to itself"
            }
            At::Close => {
                state.closed = true;
                let late = ring.has(Bug::CloseWakesAfterRelease) || ring.has(Bug::CloseWakesAfterReleaseArmed);
                state.processes[me].end = End::Closed;
                state.processes[me].at = if late { At::Release } else { At::TellP };
                "closed = true"
            }
            At::TellP => {
                state.bump(P);
                state.processes[me].at = At::TellPWake;
                "tells: A of P + 1"
            }
            At::TellPWake => {
                (state, kind) = self.tell_all(P);
                state.processes[me].at = At::TellC;
                "tells P's bell"
            }
            At::TellC => {
                state.bump(C);
                state.processes[me].at = At::TellCWake;
                "tells: A of C + 1"
            }
            At::TellCWake => {
                (state, kind) = self.tell_all(C);
                let p = &mut state.processes[me];
                p.at = if low[mine].owner() == tid {
                    if p.end == End::Closed { At::Release } else { At::Look }
                } else if ring.roles[me] == Role::Closer {
                    At::Gone
                } else {
                    At::Flight
                };
                if p.at == At::Gone {
                    *p = Process::gone(At::Gone);
                }
                "tells C's bell"
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind, state });
    }

    /// Release, and settle.
    fn release(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, mine, other, now, low, .. } = *self;
        let mut state = *before;
        let what = match now.at {
            At::Release => {
                state.low[mine].0 &= Low::W;
                let p = &mut state.processes[me];
                p.pending = if ring.has(Bug::PendingClearedBeforeWakes) { None } else { Some(u8::from(mine == C)) };
                if low[mine].has(Low::W) {
                    p.fresh[mine] = true;
                    p.at = At::WakeKb;
                } else {
                    p.at = At::Disarm;
                }
                "releases"
            }
            At::WakeKb => {
                if ring.nwait(before, mine) {
                    self.wake(next, self.kb(), mine, "wakes a contender", &|p, woke| {
                        p.keep |= woke;
                        p.at = At::Bump;
                    });
                    return;
                }
                state.processes[me].at = At::Bump;
                "nobody contends"
            }
            At::Bump => {
                let unmoved = now.fresh[mine] && low[mine] == Low(Low::W);
                if !ring.nother(before, mine) {
                    state.processes[me].at = At::Chain;
                    "nobody sleeps"
                } else if now.end != End::Done && !ring.news(before, mine) {
                    let p = &mut state.processes[me];
                    (p.keep, p.at) = (true, At::Chain);
                    "has no news for them"
                } else if ring.has(Bug::NoBumpAtRelease) {
                    state.processes[me].at = At::WakeBell;
                    "does not bump"
                } else {
                    state.bump(mine);
                    let p = &mut state.processes[me];
                    p.keep |= !unmoved && !ring.has(Bug::BumpOverwritesSnapshot);
                    p.fresh[mine] = true;
                    p.at = At::WakeBell;
                    "A+1"
                }
            }
            At::WakeBell => {
                self.wake(next, Word::Bell, mine, "rings my bell", &|p, woke| {
                    p.keep |= woke;
                    p.at = At::Chain;
                });
                return;
            }
            At::Chain => {
                if ring.chains(before, me) {
                    state.bump(other);
                    state.processes[me].at = At::ChainWake;
                    "chains: other A+1"
                } else {
                    state.processes[me].at = At::Clear;
                    "nothing to chain"
                }
            }
            At::ChainWake => {
                self.wake(next, Word::Bell, other, "chains", &|p, _| p.at = At::Clear);
                return;
            }
            At::Clear => {
                let same = low[mine] == Low(Low::W) && (now.fresh[mine] || ring.has(Bug::ClearIgnoresAnnounce));
                if same && !now.keep {
                    state.low[mine] = Low(0);
                }
                state.processes[me].at = At::Disarm;
                if now.keep {
                    "leaves W"
                } else if same {
                    "clears W"
                } else {
                    "clears W: too late"
                }
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// Nothing found: sleep on the other side, holding nothing.
    fn sleep(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, mine, other, now, low, .. } = *self;
        let mut state = *before;
        let what = match now.at {
            At::Announce => {
                state.announce(other);
                let seen = state.low[other];
                let p = &mut state.processes[me];
                p.seen[other] = seen;
                p.fresh[other] = true;
                p.at = match () {
                    () if ring.has(Bug::RecheckBeforeAnnounce) => At::ReadMine,
                    () if ring.has(Bug::OwnLockReadAfterRecheck) => At::Recheck,
                    () => At::ReadMine,
                };
                "announces to other"
            }
            At::ReadMine => {
                let p = &mut state.processes[me];
                p.seen[mine] = low[mine];
                let checked = ring.has(Bug::RecheckBeforeAnnounce) || ring.has(Bug::OwnLockReadAfterRecheck);
                p.at = if checked { ring.wait_first(p.brief) } else { At::Recheck };
                "reads my L"
            }
            At::Recheck => {
                let p = &mut state.processes[me];
                if ring.ready(before, me) {
                    p.forget();
                    p.brief = ring.brief == Brief::Only;
                    p.at = At::Start;
                    "need not sleep"
                } else {
                    p.at = match () {
                        () if ring.has(Bug::RecheckBeforeAnnounce) => At::Announce,
                        () if ring.has(Bug::OwnLockReadAfterRecheck) => At::ReadMine,
                        () => ring.wait_first(p.brief),
                    };
                    "must sleep"
                }
            }
            At::WaitBell | At::WaitMine | At::WaitOther => {
                let (word, side, same) = match now.at {
                    At::WaitBell => (Word::Bell, other, now.fresh[other] || ring.has(Bug::BellNotCompared)),
                    At::WaitMine => (Word::Lock, mine, low[mine] == now.seen[mine]),
                    _ => (Word::Lock, other, low[other] == now.seen[other]),
                };
                let p = &mut state.processes[me];
                if same {
                    p.queued |= bit(word, side);
                    // What was compared is not needed any more.
                    match word {
                        Word::Lock => p.seen[side] = Low(0),
                        _ => p.fresh[side] = false,
                    }
                    p.at = ring.wait_after(now.at, now.brief);
                    if p.at == At::Asleep {
                        (p.seen, p.fresh) = ([Low(0); 2], [false; 2]);
                    }
                    if p.at == At::Asleep { "sleeps" } else { "queues" }
                } else if p.rung {
                    p.at = At::Woken;
                    "rung while queueing"
                } else {
                    p.forget();
                    p.at = if ring.has(Bug::RecheckBeforeAnnounce) { At::Recheck } else { At::Announce };
                    "EAGAIN"
                }
            }
            At::Asleep if now.brief && ring.brief == Brief::First => {
                let p = &mut state.processes[me];
                p.forget();
                p.brief = false;
                p.at = At::Start;
                "brief sleep ends"
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// Woken: duty first, then fly home.
    fn wake_up(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, mine, other, now, low, .. } = *self;
        let mut state = *before;
        let what = match now.at {
            At::Asleep => {
                state.processes[me].at = At::Woken;
                "wakes up"
            }
            At::Woken => {
                let duty = match () {
                    () if ring.has(Bug::NoDuty) => false,
                    () if ring.has(Bug::DutyByLastIndex) => now.by_lock,
                    () => true,
                };
                let then = if duty { At::DutyOther } else { ring.after_duty(before) };
                let p = &mut state.processes[me];
                p.forget();
                p.brief = ring.brief == Brief::Only;
                p.at = then;
                "unqueues"
            }
            At::DutyOther => {
                if low[other].deserted() && ring.nwait(before, other) {
                    self.wake(next, self.kb(), other, "duty: other's kb", &|p, _| p.at = At::DutyMine);
                    return;
                }
                state.processes[me].at = At::DutyMine;
                "duty: other is well"
            }
            At::DutyMine => {
                if low[mine].deserted() && ring.nwait(before, mine) {
                    self.wake(next, self.kb(), mine, "duty: my kb", &|p, _| p.at = At::DutyBump);
                    return;
                }
                state.processes[me].at = At::DutyBump;
                "duty: mine is well"
            }
            At::DutyBump => {
                if low[mine].deserted() && ring.nother(before, mine) && ring.news(before, mine) {
                    state.bump(mine);
                    state.processes[me].at = At::DutyBell;
                    "duty: my A+1"
                } else {
                    state.processes[me].at = ring.after_duty(before);
                    "duty: nobody sleeps"
                }
            }
            At::DutyBell => {
                let then = ring.after_duty(before);
                self.wake(next, Word::Bell, mine, "duty: my bell", &|p, _| p.at = then);
                return;
            }
            At::Flight => {
                if !ring.has(Bug::NoFlightAnnounce) {
                    state.announce(mine);
                }
                state.processes[me].forget();
                state.processes[me].at = At::Start;
                "flight: announces"
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// The kernel, for the dead.
    fn bury(&self, next: &mut Vec<Step<State>>) {
        let Self { ring, before, me, tid, now, .. } = *self;
        let mut state = *before;
        let what = match now.at {
            At::Dying => {
                Ring::kernel_looks(&mut state, me, tid, ring.has(Bug::OldKernel));
                "kernel looks"
            }
            At::DyingWakes => {
                let side = usize::from(now.pending == Some(1));
                self.wake(next, Word::Lock, side, "kernel wakes", &|p, _| *p = Process::gone(At::Gone));
                return;
            }
            _ => return,
        };
        next.push(Step { who: me, what, kind: Kind::Own, state });
    }

    /// Wakes one on a word, or nobody, and goes on as `then` says.
    fn wake(&self, next: &mut Vec<Step<State>>, word: Word, side: usize, what: &'static str, then: &dyn Fn(&mut Process, bool)) {
        self.before.wake_one(word, side, |mut state, woke| {
            then(&mut state.processes[self.me], woke);
            let kind = if woke { Kind::Wakes } else { Kind::Own };
            next.push(Step { who: self.me, what, kind, state });
        });
    }

    /// The word through which the living wake contenders.
    fn kb(&self) -> Word {
        if self.ring.has(Bug::WakersUseLockWord) { Word::Lock } else { Word::Kb }
    }

    /// Wakes all who sleep on a bell.
    fn tell_all(&self, side: usize) -> (State, Kind) {
        let mut state = *self.before;
        let mut kind = Kind::Own;
        for sleeper in self.before.queued(Word::Bell, side) {
            state.ring(sleeper, Word::Bell, side);
            kind = Kind::Wakes;
        }
        (state, kind)
    }
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut roles = self.roles.as_slice();
        while let Some(&role) = roles.first() {
            let alike = roles.iter().take_while(|&&other| other == role).count();
            match role {
                Role::Producer { size: 1, messages } => write!(f, "{alike}P×{messages} ")?,
                Role::Producer { messages, .. } => write!(f, "{alike}P×{messages}(big) ")?,
                Role::Consumer { messages: ALL } => write!(f, "{alike}C ")?,
                Role::Consumer { messages } => write!(f, "{alike}C×{messages} ")?,
                Role::Closer => write!(f, "closer ")?,
            }
            roles = &roles[alike..];
        }
        write!(f, "ring {}", self.slots)?;
        if self.filled > 0 {
            write!(f, " filled {}", self.filled)?;
        }
        match self.brief {
            Brief::Never => {}
            Brief::First => write!(f, ", brief first")?,
            Brief::Only => write!(f, ", brief only")?,
        }
        if self.belt {
            write!(f, ", belt")?;
        }
        Ok(())
    }
}

impl Model for Ring {
    type State = State;

    fn start(&self) -> State {
        let mut processes = [Process::gone(At::Gone); MOST];
        for (process, role) in processes.iter_mut().zip(&self.roles) {
            process.at = At::Start;
            process.brief = self.brief != Brief::Never;
            if let Role::Producer { messages, .. } | Role::Consumer { messages } = *role {
                process.messages = messages;
            }
        }
        State {
            low: [Low(0); 2],
            count: self.filled,
            big: 0,
            closed: false,
            passed: false,
            least: 0,
            leaked_nwait: [false; 2],
            leaked_nother: [false; 2],
            kills: self.kills,
            timeouts: self.timeouts,
            spurious: self.spurious,
            processes,
        }
    }

    fn steps(&self, state: &State, next: &mut Vec<Step<State>>) {
        for me in 0..self.roles.len() {
            self.own_step(state, me, next);
            self.mishaps(state, me, next);
        }
        for step in next.iter_mut() {
            self.hurry(&mut step.state);
        }
        if self.belt
            && next.iter().all(|step| step.kind == Kind::Chance)
            && let Some((me, _)) = self.stuck(state)
        {
            let mut state = *state;
            let p = &mut state.processes[me];
            p.at = if p.at == At::Asleep { At::Start } else { At::Try };
            p.forget();
            next.push(Step { who: me, what: "belt", kind: Kind::Own, state });
        }
    }

    /// Sorts the processes of one role, and renames the TIDs in the words accordingly.
    fn canonical(&self, state: &mut State) {
        let mut order: [usize; MOST] = std::array::from_fn(|i| i);
        let owners = state.low.map(Low::owner);
        let key = |i: usize| {
            let p = &state.processes[i];
            let (one, two) = p.bytes();
            let tid = u8::try_from(i + 1).unwrap_or(0);
            // TIDs are names, so they take no part in the order, but "is the owner" does.
            (one, two.map(|low| low & !Low::TID), owners.map(|owner| owner == tid))
        };
        let n = self.roles.len();
        let mut from = 0;
        while from < n {
            let to = (from..n).find(|&i| self.roles[i] != self.roles[from]).unwrap_or(n);
            if to - from > 1 {
                order[from..to].sort_unstable_by_key(|&i| key(i));
            }
            from = to;
        }
        if order.is_sorted() {
            return;
        }
        let mut names = [0_u8; Low::TID as usize + 1];
        for (new, &old) in (1_u8..).zip(&order) {
            names[old + 1] = new;
        }
        let rename = |low: Low| Low((low.0 & !Low::TID) | names[low.owner() as usize]);
        let old = *state;
        state.low = old.low.map(rename);
        for (process, from) in state.processes.iter_mut().zip(order) {
            *process = old.processes[from];
            process.seen = process.seen.map(rename);
        }
    }

    fn wrong(&self, state: &State, quiet: bool) -> Option<&'static str> {
        if state.used() > self.slots {
            return Some("OVERFLOW");
        }
        if quiet { self.stuck(state).map(|(_, why)| why) } else { None }
    }

    fn show(&self, state: &State) -> String {
        let word = |low: Low| {
            let bits = [(Low::OD, "OD|"), (Low::W, "W|")].map(|(bit, name)| if low.has(bit) { name } else { "" });
            format!("{}{}", bits.concat(), low.owner())
        };
        let process = |(p, role): (&Process, &Role)| {
            let name = match role {
                Role::Producer { size, .. } => ["p", "p", "pp"][usize::from(*size)],
                Role::Consumer { .. } => "c",
                Role::Closer => "x",
            };
            let armed = match p.pending {
                None => "",
                Some(0) => "*P",
                Some(_) => "*C",
            };
            let rung = ["", "!", "L!"][usize::from(p.rung) + usize::from(p.by_lock)];
            format!("{name}:{:?}{armed}{rung}", p.at)
        };
        let all: Vec<String> = state.processes.iter().zip(&self.roles).map(process).collect();
        format!(
            "P={:<6} C={:<6} n={}{}{} {}",
            word(state.low[P]),
            word(state.low[C]),
            state.used(),
            if state.closed { " closed" } else { "" },
            if state.passed { " passed" } else { "" },
            all.join("  ")
        )
    }
}
