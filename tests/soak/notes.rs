//! What the processes of the storm note. The notes are in a mapped file: a note costs no system call (kills
//! would hit little else) and is there after a kill.
#![allow(unsafe_code, reason = "words of a mapped file")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use memmap2::MmapRaw;
use multiproc::AtomicValue;

/// What was done with a message: its producer, its number, and between which moments (nanoseconds) it was
/// done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) what: What,
    pub(crate) producer: u32,
    pub(crate) number: u32,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum What {
    /// Of a job: which delivery this is.
    Got(u32),
    /// About to be done.
    Finishing,
    /// `done` has returned.
    #[default]
    Finished,
    /// About to be returned.
    GivingBack,
}

/// The notes of one process.
#[derive(Debug)]
pub(crate) struct Notebook {
    path: PathBuf,
    map: MmapRaw,
}

/// On a file without memory where nothing was written.
const BYTES: u64 = 256 << 20;
const COUNT: usize = 0;
const INSIDE: usize = 1;
/// The words before the first note, and those of a note.
const HEAD: usize = 8;
const WORDS: usize = 4;

impl Notebook {
    /// Where a process of this name keeps its notes.
    pub(crate) fn open(directory: &Path, name: &str) -> Self {
        let path = directory.join(name);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        file.set_len(BYTES).unwrap();
        Self { path, map: MmapRaw::map_raw(&file).unwrap() }
    }

    /// Removes the file; what is mapped stays.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.map.len() / 8, "a notebook is full");
        // SAFETY: inside the mapping, which lives as long as `self`; all processes use it as atomic words.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>().wrapping_add(at) }
    }

    /// Counts what was done.
    pub(crate) fn count(&self, more: usize) {
        // Only its owner writes.
        self.word(COUNT).store((self.counted() + more) as u64, Release);
    }

    pub(crate) fn counted(&self) -> usize {
        usize::try_from(self.word(COUNT).load(Acquire)).unwrap()
    }

    /// Whether its owner is in the middle of a call of the queue.
    pub(crate) fn set_inside(&self, inside: bool) {
        self.word(INSIDE).store(u64::from(inside), Relaxed);
    }

    pub(crate) fn is_inside(&self) -> bool {
        self.word(INSIDE).load(Relaxed) != 0
    }

    /// Appends a note: all of it, or nothing.
    pub(crate) fn add(&self, note: Note) {
        let at = HEAD + self.counted() * WORDS;
        self.word(at).store(u64::from(note.producer) << 32 | u64::from(note.number), Relaxed);
        self.word(at + 1).store(note.begun, Relaxed);
        self.word(at + 2).store(note.ended, Relaxed);
        self.word(at + 3).store(note.what.word(), Relaxed);
        self.count(1);
    }

    pub(crate) fn notes(&self) -> impl Iterator<Item = Note> {
        (0..self.counted()).map(|index| {
            let word = |offset| self.word(HEAD + index * WORDS + offset).load(Relaxed);
            let half = |half: u64| u32::try_from(half & u64::from(u32::MAX)).unwrap();
            Note {
                producer: half(word(0) >> 32),
                number: half(word(0)),
                begun: word(1),
                ended: word(2),
                what: What::of(half(word(3))),
            }
        })
    }
}

impl What {
    fn word(self) -> u64 {
        match self {
            Self::Finished => 0,
            Self::Finishing => 1,
            Self::GivingBack => 2,
            Self::Got(times) => 3 + u64::from(times),
        }
    }

    fn of(word: u32) -> Self {
        match word {
            0 => Self::Finished,
            1 => Self::Finishing,
            2 => Self::GivingBack,
            times => Self::Got(times - 3),
        }
    }
}

/// Nanoseconds of a clock that all processes share.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// Lets starting processes go first from now on: otherwise they are killed before they do more than start.
pub(crate) fn give_way() {
    // SAFETY: a number only.
    unsafe { libc::nice(5) };
}

/// How far a phase has come.
pub(crate) struct Stage;

impl Stage {
    pub(crate) const WORK: u32 = 0;
    /// Producers return. Consumers return when they get the last message.
    pub(crate) const FINISH: u32 = 1;
}

/// What all processes see: how far the phase has come, and how much has moved.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Board {
    pub(crate) stage: AtomicValue<u32>,
    /// Messages put and got by all processes.
    pub(crate) moves: AtomicValue<u64>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self { stage: AtomicValue::new(Stage::WORK).unwrap(), moves: AtomicValue::new(0).unwrap() }
    }
}
