//! The kilobyte before every object: what it is, for whom, and the tickets of handles on their way.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic; in memory of the user's: 0, or who is placing an object there (`placed.rs`) |
//! | 8 | 4 + 4 | header format, layout version of the object |
//! | 16 | 4 + 4 | flags (1: persistent, 2: in memory of the user's, 4: in an ordinary file), distance from list node to lock word |
//! | 24 | 8 | inode of the creator's pid namespace |
//! | 32 | 8 + 8 | length of the file, length of the object |
//! | 48 | 16 | extents: two numbers that the object's kind gives a meaning |
//! | 64 | 4 + 4 + 8 | element size, alignment, hash of its type name |
//! | 80 | 16 | generation: random, tells this object from another one that had its name |
//! | 96 | 16 | kind, ASCII |
//! | 112 | 8 + 8 | pointer width in bytes; probe: random, left by a process that asked whether two mappings are of the same memory |
//! | 128 | 128 | element type name, cut |
//! | 256 | 512 | 32 tickets: id, second of birth (`CLOCK_BOOTTIME`, which nobody can set) |
//! | 768 | 256 | reserved |
//!
//! All but the tickets and the probe is written before the file gets its name and never again, except that an ordinary file's pid namespace is that of those who
//! use it now. A reader copies the whole of it once, checks the copy, and never looks again.
#![allow(unsafe_code, reason = "words of a mapping")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use crate::copy;
use crate::sys;
use multiproc_robust::FUTEX_OFFSET;
use multiproc_robust::{high, low};

/// Bytes before the object.
pub(crate) const HEADER: usize = 1024;
pub(crate) const WORDS: usize = HEADER / copy::WORD;
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"multiprc");
const FORMAT: u32 = 1;
const PERSISTENT: u32 = 1;
const PLACED: u32 = 2;
const ORDINARY: u32 = 4;
/// The word of the pid namespace, and that of the probe.
pub(crate) const PID_NAMESPACE_AT: usize = 3;
pub(crate) const PROBE_AT: usize = 15;
const NAME_AT: usize = 16;
const NAME_WORDS: usize = 16;
const TICKETS_AT: usize = 32;
const TICKETS: usize = 32;

/// What an element of an object is, as far as two programs must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    size: u32,
    align: u32,
    hash: u64,
    name: String,
}

/// A private, checked copy of the immutable part of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) kind: [u8; 16],
    pub(crate) layout: u32,
    pub(crate) persistent: bool,
    pub(crate) home: Home,
    pub(crate) pid_namespace: u64,
    pub(crate) file_length: u64,
    pub(crate) object_length: u64,
    pub(crate) extents: [u64; 2],
    pub(crate) element: Element,
    pub(crate) generation: [u64; 2],
}

/// Where an object lives. Each has its own rules of who may open it, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// A file in a namespace.
    Namespace,
    /// Memory of the user's.
    Memory,
    /// An ordinary file.
    File,
}

/// A ticket in a header: the slot and its one-time id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    slot: usize,
    id: u64,
}

impl Element {
    /// No elements: a lock, an event.
    pub fn none() -> Self {
        Self { size: 0, align: 0, hash: 0, name: String::new() }
    }

    /// Elements that lie in the object as they are.
    pub fn of<T>() -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self { size: number(size_of::<T>()), align: number(align_of::<T>()), ..Self::message::<T>() }
    }

    /// Elements that travel as bytes: only the type's name is compared.
    pub fn message<T: ?Sized>() -> Self {
        let name = std::any::type_name::<T>();
        let mut kept = name.len().min(NAME_WORDS * copy::WORD);
        while !name.is_char_boundary(kept) {
            kept -= 1;
        }
        Self { size: 0, align: 0, hash: fnv(name.as_bytes()), name: name[..kept].to_owned() }
    }

    /// How the type is called.
    pub(crate) fn describe(&self) -> String {
        format!("{} ({} bytes, aligned to {})", self.name, self.size, self.align)
    }
}

/// FNV-1a: stable between builds, which std's hashers do not promise.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A kind's name as it stands in the header.
pub(crate) fn kind_bytes(kind: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let length = kind.len().min(16);
    bytes[..length].copy_from_slice(&kind.as_bytes()[..length]);
    bytes
}

/// A kind's name out of the header.
pub(crate) fn kind_name(bytes: [u8; 16]) -> String {
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

impl Facts {
    /// Writes a fresh header, all but the magic number.
    ///
    /// # Safety
    ///
    /// `base` points to at least [`HEADER`] mapped bytes that are zero (but for the first eight) and in which nobody else writes.
    pub(crate) unsafe fn write(&self, base: *mut u8) {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let half = |bytes: &[u8]| bytes.iter().rev().fold(0_u64, |word, byte| word << 8 | u64::from(*byte));
        let mut words = [0_u64; WORDS];
        let home = match self.home {
            Home::Namespace => 0,
            Home::Memory => PLACED,
            Home::File => ORDINARY,
        };
        words[1] = pair(FORMAT, self.layout);
        words[2] = pair(home | if self.persistent { PERSISTENT } else { 0 }, futex_offset());
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
        for (word, bytes) in words[NAME_AT..NAME_AT + NAME_WORDS].iter_mut().zip(self.element.name.as_bytes().chunks(8)) {
            *word = half(bytes);
        }
        for (index, word) in words.iter().enumerate().skip(1) {
            // SAFETY: inside the header, by the caller's promise.
            unsafe { word_at(base, index) }.store(*word, Relaxed);
        }
    }

    /// Reads and checks a header of a file of this length; the error says what is wrong with it.
    pub(crate) fn read(file: &File, length: u64) -> Result<Self, Flaw> {
        let words = read_words(file).ok_or(Flaw::Corrupt("shorter than a header"))?;
        let facts = Self::parse(&words)?;
        if facts.file_length == length {
            Ok(facts)
        } else {
            Err(Flaw::Corrupt("the file has another length than its header says"))
        }
    }

    /// Checks a copy of a header.
    pub(crate) fn parse(words: &[u64; WORDS]) -> Result<Self, Flaw> {
        if words[0] != MAGIC {
            return Err(Flaw::Corrupt("no magic number"));
        }
        if low(words[1]) != FORMAT || words[14] != size_of::<usize>() as u64 || high(words[2]) != futex_offset() {
            return Err(Flaw::Version(format!("header format {}, this build reads {FORMAT}", low(words[1]))));
        }
        if words[5].checked_add(HEADER as u64).is_none_or(|end| end > words[4]) {
            return Err(Flaw::Corrupt("the object is longer than its header says"));
        }
        let home = match low(words[2]) & (PLACED | ORDINARY) {
            0 => Home::Namespace,
            PLACED => Home::Memory,
            ORDINARY => Home::File,
            _ => return Err(Flaw::Corrupt("it says that it lives in two places")),
        };
        let text = |range: std::ops::Range<usize>| words[range].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let mut kind = [0; 16];
        kind.copy_from_slice(&text(12..14));
        Ok(Self {
            kind,
            layout: high(words[1]),
            persistent: low(words[2]) & PERSISTENT != 0,
            home,
            pid_namespace: words[PID_NAMESPACE_AT],
            file_length: words[4],
            object_length: words[5],
            extents: [words[6], words[7]],
            element: Element {
                size: low(words[8]),
                align: high(words[8]),
                hash: words[9],
                name: String::from_utf8_lossy(&text(NAME_AT..NAME_AT + NAME_WORDS)).trim_end_matches('\0').to_owned(),
            },
            generation: [words[10], words[11]],
        })
    }

    /// Thread ids mean something only in the pid namespace in which it was made.
    pub(crate) fn check_pid_namespace(&self) -> Result<(), Flaw> {
        if self.pid_namespace == multiproc_robust::pid_namespace() { Ok(()) } else { Err(Flaw::PidNamespace) }
    }
}

/// The last word of a birth: what is behind it is whole.
///
/// # Safety
///
/// `base` is the start of a mapped header.
pub(crate) unsafe fn publish(base: *const u8) {
    // ORDER: Release pairs with the Acquire load of whoever attaches to memory of the user's; a file has its name after this.
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

/// Whether the file must stay although nobody has it mapped: it is persistent (and had got its name), or a handle to it is on its way. `None`: not a header of ours.
pub(crate) fn must_stay(file: &File, unborn: bool, ticket_age: Duration) -> Option<bool> {
    let words = read_words(file)?;
    if words[0] != MAGIC || low(words[2]) & (PLACED | ORDINARY) != 0 {
        return None;
    }
    let oldest = now().saturating_sub(ticket_age.as_secs());
    let in_flight = words[TICKETS_AT..TICKETS_AT + 2 * TICKETS]
        .chunks(2)
        .any(|ticket| ticket[0] != 0 && (ticket[1] > oldest || ticket_age == Duration::MAX));
    Some((low(words[2]) & PERSISTENT != 0 && !unborn) || in_flight)
}

/// Takes a ticket; `None` when all are out.
///
/// # Safety
///
/// `base` is the start of a mapped segment.
pub(crate) unsafe fn take_ticket(base: *const u8, id: u64) -> Option<Ticket> {
    for slot in 0..TICKETS {
        // SAFETY: inside the header.
        let word = unsafe { word_at(base, TICKETS_AT + 2 * slot) };
        if word.compare_exchange(0, id, AcqRel, Relaxed).is_ok() {
            // CRASH: a ticket with an old birth: we are attached, so nobody judges it before we are gone; then the sweep takes it as expired.
            // SAFETY: inside the header.
            unsafe { word_at(base, TICKETS_AT + 2 * slot + 1) }.store(now(), Relaxed);
            return Some(Ticket { slot, id });
        }
    }
    None
}

/// Gives a ticket back: redeemed by its reader, or rolled back by its writer. False if it was used already.
///
/// # Safety
///
/// `base` is the start of a mapped segment.
pub(crate) unsafe fn return_ticket(base: *const u8, ticket: Ticket) -> bool {
    if ticket.slot >= TICKETS || ticket.id == 0 {
        return false;
    }
    // SAFETY: inside the header.
    let word = unsafe { word_at(base, TICKETS_AT + 2 * ticket.slot) };
    word.compare_exchange(ticket.id, 0, AcqRel, Relaxed).is_ok()
}

impl Ticket {
    /// No ticket.
    pub(crate) const NONE: Self = Self { slot: u8::MAX as usize, id: 0 };

    pub(crate) fn to_wire(self) -> (u8, u64) {
        (u8::try_from(self.slot).unwrap_or(u8::MAX), self.id)
    }

    pub(crate) fn from_wire((slot, id): (u8, u64)) -> Self {
        Self { slot: usize::from(slot), id }
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

fn now() -> u64 {
    sys::boot_seconds()
}

fn futex_offset() -> u32 {
    u32::from_ne_bytes(i32::try_from(FUTEX_OFFSET).unwrap_or(0).to_ne_bytes())
}

/// # Safety
///
/// `base` is the start of a mapped header, and stays mapped for `'a`.
pub(crate) unsafe fn word_at<'a>(base: *const u8, index: usize) -> &'a AtomicU64 {
    debug_assert!(index < WORDS);
    // SAFETY: the caller's promise; mappings are page aligned.
    unsafe { &*base.cast::<AtomicU64>().wrapping_add(index) }
}
