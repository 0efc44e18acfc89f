//! The kilobyte before every object: what the object is, and the in-flight references to it.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic number; in caller-provided memory also 0 or a claim (`placed.rs`) |
//! | 8 | 4 + 4 | header format, layout version of the object |
//! | 16 | 4 + 4 | flags (note 1), distance from list node to lock word |
//! | 24 | 8 | inode of the creator's pid namespace (note 2) |
//! | 32 | 8 + 8 | length of the file, length of the object |
//! | 48 | 16 | extents: two numbers whose meaning the object's kind defines |
//! | 64 | 4 + 4 + 8 | element size, alignment, hash of its type name |
//! | 80 | 16 | generation: random, different for each object of the same name |
//! | 96 | 16 | kind, ASCII |
//! | 112 | 8 + 8 | pointer width in bytes, probe (note 3) |
//! | 128 | 128 | element type name, cut |
//! | 256 | 512 | 32 in-flight references: id, second in which it was taken (note 4) |
//! | 768 | 256 | reserved |
//!
//! 1. 1: persistent; 2: in caller-provided memory; 4: in an ordinary file.
//! 2. In an ordinary file: the pid namespace of the processes that use it now.
//! 3. A random number, left by a process that tested whether two mappings are of the same memory.
//! 4. `CLOCK_BOOTTIME`, which no process can set.
//!
//! The maker writes the header before the file gets its name. After that only the in-flight references, the
//! probe and an ordinary file's pid namespace change. A reader copies the whole header once, checks the copy,
//! and never reads the header again.
#![allow(unsafe_code, reason = "words of a mapping")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use multiproc_robust::{FUTEX_OFFSET, high, low, pid_namespace};

use crate::copy;
use crate::sys;

/// Bytes before the object.
pub(crate) const HEADER: usize = 1024;
pub(crate) const WORDS: usize = HEADER / copy::WORD;
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"multiprc");
const FORMAT: u32 = 1;
const PERSISTENT: u32 = 1;
const PLACED: u32 = 2;
const ORDINARY: u32 = 4;
/// Index of the word that holds the pid namespace.
pub(crate) const PID_NAMESPACE_AT: usize = 3;
/// Index of the word that holds the probe.
pub(crate) const PROBE_AT: usize = 15;
const NAME_AT: usize = 16;
const NAME_WORDS: usize = 16;
const REFERENCES_AT: usize = 32;
const REFERENCES: usize = 32;
/// How long an in-flight reference keeps its object.
pub(crate) const IN_FLIGHT_AGE: Duration = Duration::from_secs(600);

/// Describes an element of an object, as far as two programs must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    size: u32,
    align: u32,
    hash: u64,
    name: String,
}

/// A private, checked copy of the immutable part of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: [u8; 16],
    pub(crate) layout: u32,
    pub(crate) persistent: bool,
    pub(crate) location: Location,
    pub(crate) pid_namespace: u64,
    pub(crate) file_length: u64,
    pub(crate) object_length: u64,
    pub(crate) extents: [u64; 2],
    pub(crate) element: Element,
    pub(crate) generation: [u64; 2],
}

/// Where an object lives. Each location has its own rules for opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A file in a namespace.
    Namespace,
    /// Caller-provided memory.
    Memory,
    /// An ordinary file.
    File,
}

/// An in-flight reference in a header: its index and its id, which is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InFlightReference {
    index: usize,
    id: u64,
}

impl Element {
    /// No elements, as in a lock or an event.
    pub fn none() -> Self {
        Self { size: 0, align: 0, hash: 0, name: String::new() }
    }

    /// Elements that lie in the object as they are.
    pub fn of<T>() -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { size: number(size_of::<T>()), align: number(align_of::<T>()), ..Self::message::<T>() }
    }

    /// Elements that are sent as bytes. Only the type's name is compared.
    pub fn message<T: ?Sized>() -> Self {
        let name = std::any::type_name::<T>();
        let mut kept = name.len().min(NAME_WORDS * copy::WORD);
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        Self { size: 0, align: 0, hash: fnv(name.as_bytes()), name: name[..kept].to_owned() }
    }

    /// The type, for an error.
    pub(crate) fn describe(&self) -> String {
        format!("{} ({} bytes, aligned to {})", self.name, self.size, self.align)
    }
}

/// FNV-1a. It is the same in all builds, which std's hashers do not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A kind's name as in the header.
pub(crate) fn kind_bytes(kind: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = kind.len().min(16);
    bytes[..length].copy_from_slice(&kind.as_bytes()[..length]);
    bytes
}

/// A kind's name from the header.
pub(crate) fn kind_name(bytes: [u8; 16]) -> String {
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

impl Header {
    /// Writes a new header, except the magic number.
    ///
    /// # Safety
    ///
    /// `base` points to at least [`HEADER`] mapped bytes to which no other thread writes. All but the first
    /// eight are zero.
    pub(crate) unsafe fn write(&self, base: *mut u8) {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let half = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        let mut words = [0_u64; WORDS];
        let location = match self.location {
            Location::Namespace => 0,
            Location::Memory => PLACED,
            Location::File => ORDINARY,
        };
        words[1] = pair(FORMAT, self.layout);
        words[2] = pair(location | if self.persistent { PERSISTENT } else { 0 }, futex_offset());
        words[PID_NAMESPACE_AT] = self.pid_namespace;
        words[4] = self.file_length;
        words[5] = self.object_length;
        words[6] = self.extents[0];
        words[7] = self.extents[1];
        words[8] = pair(self.element.size, self.element.align);
        words[9] = self.element.hash;
        words[10] = self.generation[0];
        words[11] = self.generation[1];
        words[12] = half(&self.kind[..8]);
        words[13] = half(&self.kind[8..]);
        words[14] = size_of::<usize>() as u64;
        for (word, bytes) in
            words[NAME_AT..NAME_AT + NAME_WORDS].iter_mut().zip(self.element.name.as_bytes().chunks(8))
        {
            *word = half(bytes);
        }
        for (index, word) in words.iter().enumerate().skip(1) {
            // SAFETY: inside the header, by the caller's promise.
            unsafe { word_at(base, index) }.store(*word, Relaxed);
        }
    }

    /// Reads and checks the header of a file of this length. The error says what is wrong with it.
    pub(crate) fn read(file: &File, length: u64) -> Result<Self, Flaw> {
        let words = read_words(file).ok_or(Flaw::Corrupt("shorter than a header"))?;
        let header = Self::parse(&words)?;
        if header.file_length == length {
            Ok(header)
        } else {
            Err(Flaw::Corrupt("the file has another length than its header says"))
        }
    }

    /// Checks a copy of a header.
    pub(crate) fn parse(words: &[u64; WORDS]) -> Result<Self, Flaw> {
        if words[0] != MAGIC {
            return Err(Flaw::Corrupt("no magic number"));
        }
        if low(words[1]) != FORMAT
            || words[14] != size_of::<usize>() as u64
            || high(words[2]) != futex_offset()
        {
            return Err(Flaw::Version(format!("header format {}, this build reads {FORMAT}", low(words[1]))));
        }
        if words[5].checked_add(HEADER as u64).is_none_or(|end| end > words[4]) {
            return Err(Flaw::Corrupt("the object is longer than its header says"));
        }
        let location = match low(words[2]) & (PLACED | ORDINARY) {
            0 => Location::Namespace,
            PLACED => Location::Memory,
            ORDINARY => Location::File,
            _ => return Err(Flaw::Corrupt("it says that it lives in two places")),
        };
        let text = |range: std::ops::Range<usize>| {
            words[range].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()
        };
        let mut kind = [0; 16];
        kind.copy_from_slice(&text(12..14));
        Ok(Self {
            kind,
            layout: high(words[1]),
            persistent: low(words[2]) & PERSISTENT != 0,
            location,
            pid_namespace: words[PID_NAMESPACE_AT],
            file_length: words[4],
            object_length: words[5],
            extents: [words[6], words[7]],
            element: Element {
                size: low(words[8]),
                align: high(words[8]),
                hash: words[9],
                name: String::from_utf8_lossy(&text(NAME_AT..NAME_AT + NAME_WORDS))
                    .trim_end_matches('\0')
                    .to_owned(),
            },
            generation: [words[10], words[11]],
        })
    }

    /// Checks that thread ids in the object mean the same threads in this process.
    pub(crate) fn check_pid_namespace(&self) -> Result<(), Flaw> {
        if self.pid_namespace == pid_namespace() { Ok(()) } else { Err(Flaw::PidNamespace) }
    }
}

/// Writes the magic number: the object is complete.
///
/// # Safety
///
/// `base` is the start of a mapped header.
pub(crate) unsafe fn publish(base: *const u8) {
    // ORDER: Release pairs with the Acquire load in `Segment::attach`. A file gets its name after this store.
    // SAFETY: the caller's promise.
    unsafe { word_at(base, 0) }.store(MAGIC, Release);
}

/// What is wrong with a header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Corrupt(&'static str),
    Version(String),
    PidNamespace,
}

/// Returns whether a file must stay although no process has it mapped: it is persistent and has had its name,
/// or an in-flight reference keeps it. `None`: the file has no header of this crate.
pub(crate) fn must_stay(file: &File, temporary: bool, in_flight_age: Duration) -> Option<bool> {
    let words = read_words(file)?;
    if words[0] != MAGIC || low(words[2]) & (PLACED | ORDINARY) != 0 {
        return None;
    }
    let oldest = sys::boot_seconds().saturating_sub(in_flight_age.as_secs());
    let in_flight = words[REFERENCES_AT..REFERENCES_AT + 2 * REFERENCES]
        .chunks(2)
        .any(|reference| reference[0] != 0 && (reference[1] > oldest || in_flight_age == Duration::MAX));
    Some((low(words[2]) & PERSISTENT != 0 && !temporary) || in_flight)
}

/// Takes an in-flight reference; `None` if all are taken.
///
/// # Safety
///
/// `base` is the start of a mapped segment.
pub(crate) unsafe fn take_reference(base: *const u8, id: u64) -> Option<InFlightReference> {
    for index in 0..REFERENCES {
        // SAFETY: inside the header.
        let word = unsafe { word_at(base, REFERENCES_AT + 2 * index) };
        if word.compare_exchange(0, id, AcqRel, Relaxed).is_ok() {
            // CRASH: a reference with an old time. While this process is attached no sweep looks at it; after
            // that it counts as expired.
            // SAFETY: inside the header.
            unsafe { word_at(base, REFERENCES_AT + 2 * index + 1) }.store(sys::boot_seconds(), Relaxed);
            return Some(InFlightReference { index, id });
        }
    }
    None
}

/// Releases an in-flight reference. Returns false if it was released before.
///
/// # Safety
///
/// `base` is the start of a mapped segment.
pub(crate) unsafe fn release_reference(base: *const u8, reference: InFlightReference) -> bool {
    if reference.index >= REFERENCES || reference.id == 0 {
        return false;
    }
    // SAFETY: inside the header.
    let word = unsafe { word_at(base, REFERENCES_AT + 2 * reference.index) };
    word.compare_exchange(reference.id, 0, AcqRel, Relaxed).is_ok()
}

impl InFlightReference {
    /// No reference: a handle without one is never released.
    pub(crate) const NONE: Self = Self { index: u8::MAX as usize, id: 0 };

    pub(crate) fn to_wire(self) -> (u8, u64) {
        (u8::try_from(self.index).unwrap_or(u8::MAX), self.id)
    }

    pub(crate) fn from_wire((index, id): (u8, u64)) -> Self {
        Self { index: usize::from(index), id }
    }
}

fn read_words(file: &File) -> Option<[u64; WORDS]> {
    let mut bytes = [0; HEADER];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let mut words = [0; WORDS];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().ok()?);
    }
    Some(words)
}

fn futex_offset() -> u32 {
    u32::from_ne_bytes(i32::try_from(FUTEX_OFFSET).unwrap_or(0).to_ne_bytes())
}

/// # Safety
///
/// `base` is the start of a mapped header, and stays mapped for `'a`.
pub(crate) unsafe fn word_at<'a>(base: *const u8, index: usize) -> &'a AtomicU64 {
    debug_assert!(index < WORDS);
    // SAFETY: the caller's promise; headers are aligned to 64 bytes or more.
    unsafe { &*base.cast::<AtomicU64>().wrapping_add(index) }
}
