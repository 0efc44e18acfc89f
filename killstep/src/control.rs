//! The control page: what victim, peers and survivor tell the driver and each other, in words that outlive
//! each of them.

use std::sync::atomic::Ordering::{Acquire, Release, SeqCst};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::case::Role;
use crate::{Fault, Mode, SharedWords, sys};

/// How many peers one case can have.
pub(crate) const PEERS: usize = 16;
const CELLS: usize = 64;
const TEXT_WORDS: usize = 128;

// The words of the page.
const STAGE: usize = 0;
const VERDICT: usize = 1;
const KILLED_AT: usize = 2;
const WORST_WAKE: usize = 3;
const COMPLAINED: usize = 4;
const RECOVERER_STAGE: usize = 5;
const ENDED_AT: usize = 8;
const CELL: usize = ENDED_AT + PEERS;
const TEXT: usize = CELL + CELLS;
const COMPLAINT: usize = TEXT + TEXT_WORDS;
const WORDS: usize = COMPLAINT + TEXT_WORDS;

/// How far the victim has come, as it says itself.
pub(crate) mod stage {
    pub(crate) const READY: u64 = 1;
    pub(crate) const DONE: u64 = 2;
}

/// 64 words in which the processes of one kill leave facts for each other, such as "my put returned" or "I
/// got message 7".
///
/// They are 0 when a kill begins, and outlive the process that wrote them.
#[derive(Debug)]
pub struct Cells {
    words: SharedWords,
}

impl Cells {
    /// The value of cell `index`.
    ///
    /// # Panics
    /// When `index` is 64 or more.
    #[must_use]
    pub fn get(&self, index: usize) -> u64 {
        assert!(index < CELLS, "a kill has {CELLS} cells");
        self.words[CELL + index].load(SeqCst)
    }

    /// Sets cell `index`.
    ///
    /// # Panics
    /// When `index` is 64 or more.
    pub fn set(&self, index: usize, value: u64) {
        assert!(index < CELLS, "a kill has {CELLS} cells");
        self.words[CELL + index].store(value, SeqCst);
    }

    /// Adds to cell `index`.
    ///
    /// # Panics
    /// When `index` is 64 or more.
    pub fn add(&self, index: usize, value: u64) {
        assert!(index < CELLS, "a kill has {CELLS} cells");
        self.words[CELL + index].fetch_add(value, SeqCst);
    }

    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { words: SharedWords::new(WORDS)? })
    }

    pub(crate) fn reset(&self) {
        self.words.iter().for_each(|word| word.store(0, SeqCst));
    }

    pub(crate) fn stage(&self, role: Role) -> u64 {
        self.words[stage_of(role)].load(Acquire)
    }

    pub(crate) fn set_stage(&self, role: Role, stage: u64) {
        self.words[stage_of(role)].store(stage, Release);
    }

    /// All cells, as they are.
    pub(crate) fn all(&self) -> impl Iterator<Item = u64> {
        self.words[CELL..CELL + CELLS].iter().map(|word| word.load(SeqCst))
    }

    /// Notes that the victim is killed, stopped or let go now: waits count from here.
    pub(crate) fn set_killed(&self) {
        self.words[KILLED_AT].store(sys::monotonic_ns(), SeqCst);
    }

    /// Notes that peer `index` has returned from its call.
    pub(crate) fn set_ended(&self, index: usize) {
        self.words[ENDED_AT + index].store(sys::monotonic_ns(), SeqCst);
    }

    /// How long after the death of the victim peer `index` returned; 0 if before.
    pub(crate) fn ended_after(&self, index: usize) -> Option<Duration> {
        let ended = self.words[ENDED_AT + index].load(SeqCst);
        (ended != 0).then(|| Duration::from_nanos(ended.saturating_sub(self.words[KILLED_AT].load(SeqCst))))
    }

    pub(crate) fn note_wake(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.words[WORST_WAKE].fetch_max(nanos.max(1), SeqCst);
    }

    pub(crate) fn worst_wake(&self) -> Option<Duration> {
        let nanos = self.words[WORST_WAKE].load(SeqCst);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }

    /// Leaves the survivor's verdict.
    pub(crate) fn judge(&self, verdict: &Result<(), Fault>) {
        let (code, text) = match verdict {
            Ok(()) => (1, ""),
            Err(Fault::Hang(text)) => (2, text.as_str()),
            Err(Fault::Torn(text)) => (3, text.as_str()),
            Err(Fault::Lost(text)) => (4, text.as_str()),
            Err(Fault::Leaked(text)) => (5, text.as_str()),
        };
        self.write(TEXT, text);
        self.words[VERDICT].store(code, Release);
    }

    /// Takes the survivor's verdict, if it lived to give one.
    pub(crate) fn verdict(&self) -> Option<Result<(), Fault>> {
        let code = self.words[VERDICT].swap(0, Acquire);
        let text = self.read(TEXT);
        match code {
            1 => Some(Ok(())),
            2 => Some(Err(Fault::Hang(text))),
            3 => Some(Err(Fault::Torn(text))),
            4 => Some(Err(Fault::Lost(text))),
            5 => Some(Err(Fault::Leaked(text))),
            _ => None,
        }
    }

    /// Leaves the text of a panic; the first text stays.
    pub(crate) fn complain(&self, text: &str) {
        if self.words[COMPLAINED].swap(1, SeqCst) == 0 {
            self.write(COMPLAINT, text);
        }
    }

    pub(crate) fn complaint(&self) -> String {
        self.read(COMPLAINT)
    }

    /// Bytes packed into words, ended by a zero.
    fn write(&self, at: usize, text: &str) {
        let room = &self.words[at..at + TEXT_WORDS - 1];
        for (word, bytes) in room.iter().zip(text.as_bytes().chunks(8)) {
            let mut packed = [0; 8];
            packed[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(packed), SeqCst);
        }
    }

    fn read(&self, at: usize) -> String {
        let words = self.words[at..at + TEXT_WORDS].iter().flat_map(|word| word.load(SeqCst).to_le_bytes());
        let bytes: Vec<u8> = words.take_while(|&byte| byte != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn stage_of(role: Role) -> usize {
    match role {
        Role::Victim => STAGE,
        Role::Recoverer => RECOVERER_STAGE,
    }
}

/// One kill, as the survivor sees it.
#[derive(Debug)]
pub struct Kill<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) step: u64,
    pub(crate) blocked: bool,
    pub(crate) victim: u32,
    pub(crate) mode: Mode,
    pub(crate) wake_limit: Duration,
}

impl Kill<'_> {
    /// How many steps of the operation the victim had made.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Whether the operation had returned. If so, its effect must be there; if not, it may be there wholly or
    /// not at all.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.cells.stage(Role::Victim) == stage::DONE
    }

    /// What has happened to the victim: an oracle may expect more where no process has died, and must expect
    /// two of each where two have.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// How long a survivor may be kept waiting: [`wake_within`](crate::Case::wake_within), or
    /// [`poll_within`](crate::Case::poll_within) in [`Mode::Missed`].
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.wake_limit
    }

    /// Whether the [`recoverer`](crate::Case::recoverer) had returned from its operation before it was
    /// killed, too.
    #[must_use]
    pub fn recoverer_finished(&self) -> bool {
        self.cells.stage(Role::Recoverer) == stage::DONE
    }

    /// Whether the victim was asleep in a system call when it died.
    #[must_use]
    pub fn blocked(&self) -> bool {
        self.blocked
    }

    /// The victim's process id.
    #[must_use]
    pub fn victim(&self) -> u32 {
        self.victim
    }

    /// What cell `index` holds.
    ///
    /// # Panics
    /// When `index` is 64 or more.
    #[must_use]
    pub fn cell(&self, index: usize) -> u64 {
        self.cells.get(index)
    }

    /// The cells, to write to them.
    #[must_use]
    pub fn cells(&self) -> &Cells {
        self.cells
    }

    /// Whether peer `index` (in the order in which the case names them) has returned from its call.
    ///
    /// # Panics
    /// When `index` is 16 or more.
    #[must_use]
    pub fn peer_ended(&self, index: usize) -> bool {
        assert!(index < PEERS, "a case has at most {PEERS} peers");
        self.cells.ended_after(index).is_some()
    }

    /// Waits until peer `index` has returned from its call, and counts the time since the most recent death
    /// (or since the victim was let go) as a wake latency. Call it first in the oracle, where the death
    /// itself (or what the operation had already done) must wake the peer without further help.
    ///
    /// # Errors
    /// [`Fault::Hang`] when the peer has not returned within [`patience`](Kill::patience).
    ///
    /// # Panics
    /// When `index` is 16 or more.
    pub fn must_wake(&self, index: usize) -> Result<Duration, Fault> {
        assert!(index < PEERS, "a case has at most {PEERS} peers");
        let deadline = Instant::now() + self.wake_limit;
        loop {
            if let Some(latency) = self.cells.ended_after(index) {
                self.cells.note_wake(latency);
                // The peer may have returned late and yet before this look.
                return if latency <= self.wake_limit {
                    Ok(latency)
                } else {
                    Err(Fault::Hang(format!("peer {index} woke only after {latency:?}")))
                };
            }
            if Instant::now() >= deadline {
                return Err(Fault::Hang(format!(
                    "the death did not wake peer {index} within {:?}",
                    self.wake_limit
                )));
            }
            thread::sleep(Duration::from_micros(50));
        }
    }
}
