//! Objects in caller-provided memory: header and object lie somewhere in a mapped region.
//!
//! # Placing
//!
//! The header's first word decides. It is 0 at first. One compare-and-exchange makes it a *claim*: a mark,
//! the placer's thread, and a part of its pid namespace's number. Then the placer zeroes and writes
//! everything else, and last it stores the magic number in the word.
//!
//! Another placer that finds a claim looks at its thread. If that thread has ended, it takes the claim over
//! with a compare-and-exchange and begins anew. So a death leaves nothing, or a claim for the next placer to
//! take over, or a complete object.
//!
//! # Attaching
//!
//! The header is copied and checked as a file's is. Then the object is looked up in this process's registry
//! by its generation. A thread that reached one object through two mappings would not recognise its own
//! locks.
//!
//! Two mappings with one generation are of the same memory if what is written through one is read through the
//! other. Otherwise one holds a copy of the other's bytes. A copy is refused while the other object is
//! attached in this process.
#![allow(unsafe_code, reason = "writes headers")]

use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst,
};

use multiproc_robust::{has_ended, low, pid_namespace, thread_id};

use crate::copy;
use crate::error::{Error, ErrorKind};
use crate::header::{self, HEADER, Header, Location, MAGIC, PROBE_AT, WORDS};
use crate::region::CallerMemory;
use crate::registry;
use crate::segment::{self, Address, Expected, HeldHere, Identity, Memory, Plan, Segment};
use crate::sys;

impl Segment {
    /// Places an object, which `fill` initialises from zeros. `Ok(None)`: an object is there already.
    pub(crate) fn place(
        memory: CallerMemory,
        plan: Plan<'_>,
        held_here: HeldHere,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "place";
        let shown = plan.kind;
        memory.check(HEADER + plan.bytes, operation, shown)?;
        memory.touch(HEADER + plan.bytes, operation, shown)?;
        let header = plan.header(Location::Memory).map_err(|error| Error::os(operation, shown, error))?;
        if !claim(memory.word(0), operation, shown)? {
            return Ok(None);
        }
        let base = memory.base();
        // CRASH: from the claim until `publish`: a process that attaches finds the object not ready, and the
        // next placer takes the claim over.
        // SAFETY: the region has room for header and object (`check`). This thread has the claim, so others
        // look at the first word only.
        unsafe { ptr::write_bytes(base.wrapping_add(copy::WORD), 0, HEADER + plan.bytes - copy::WORD) };
        // SAFETY: as above; zeroed but for the first word.
        unsafe { header.write(base) };
        fill(base.wrapping_add(HEADER));
        // Known to this process before any thread can attach: another thread must find this mapping, not
        // another one of the same memory.
        let identity = Identity::Memory(header.generation);
        let memory = Memory::Caller(memory);
        let segment = registry::insert(Self::new(memory, Address::Memory, identity, header, held_here));
        // SAFETY: the header that was just written; the segment keeps the memory.
        unsafe { header::publish(base) };
        Ok(Some(segment))
    }

    /// Attaches to an object that was placed. `Ok(None)`: nothing is there.
    pub(crate) fn attach(
        memory: CallerMemory,
        expected: Expected<'_>,
        held_here: HeldHere,
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "attach";
        let shown = expected.kind;
        // ORDER: Acquire pairs with the Release store in `header::publish`: after the magic number, all that
        // was written before it is seen.
        match memory.word(0).load(Acquire) {
            0 => return Ok(None),
            word if word & CLAIM_MASK == CLAIM => {
                return Err(Error::new(ErrorKind::NotReady, operation, shown));
            }
            _ => {}
        }
        let words: [u64; WORDS] = std::array::from_fn(|index| memory.word(index).load(Relaxed));
        let failed = |flaw: header::Flaw| flaw.into_error(operation, shown);
        let header = Header::parse(&words).map_err(failed)?;
        header.check_pid_namespace().map_err(failed)?;
        segment::check(&header, Location::Memory, expected, operation, shown)?;
        let bytes = usize::try_from(header.file_length).unwrap_or(usize::MAX);
        memory.check(bytes, operation, shown)?;
        let identity = Identity::Memory(header.generation);
        let mapped = Memory::Caller(memory.clone());
        let segment =
            registry::find_or_insert(Self::new(mapped, Address::Memory, identity, header, held_here));
        if segment.base() == memory.base() || same_memory(&memory, &segment) {
            return Ok(Some(segment));
        }
        Err(Error::new(ErrorKind::Mismatch, operation, shown)
            .with_detail("its bytes are a copy of an object that this process uses"))
    }
}

/// Claims the memory by its first word. Returns false if an object is there already.
fn claim(word: &AtomicU64, operation: &'static str, shown: &str) -> Result<bool, Error> {
    let namespace = (pid_namespace() & 0xffff) << 32;
    let mine = CLAIM | namespace | u64::from(thread_id());
    let mut seen = word.load(Acquire);
    loop {
        match seen {
            0 => {}
            MAGIC => return Ok(false),
            claim if claim & CLAIM_MASK != CLAIM => {
                return Err(Error::new(ErrorKind::Corrupt, operation, shown).with_detail(
                    "something else is there; if no process needs it, make its first eight bytes zero",
                ));
            }
            claim if claim & NAMESPACE_MASK != namespace => {
                return Err(Error::new(ErrorKind::OtherPidNamespace, operation, shown));
            }
            claim if claim != mine && !has_ended(low(claim)) => {
                return Err(Error::new(ErrorKind::Busy, operation, shown)
                    .with_detail(format_args!("thread {} is placing an object there", low(claim))));
            }
            // The claim of a thread that has ended, which writes nothing any more.
            _ => {}
        }
        match word.compare_exchange(seen, mine, AcqRel, Acquire) {
            Ok(_) => return Ok(true),
            Err(now) => seen = now,
        }
    }
}

/// Whether an object that this process has mapped already is in the same memory: what is written here must be
/// read there. Another process may test the same at the same time, so there are several attempts.
fn same_memory(memory: &CallerMemory, known: &Segment) -> bool {
    // SAFETY: the known object begins with a header, too.
    let there = unsafe { header::word_at(known.base(), PROBE_AT) };
    (0..100).any(|_| {
        let Ok(random) = sys::random::<8>() else { return false };
        let random = u64::from_ne_bytes(random);
        memory.word(PROBE_AT).store(random, SeqCst);
        there.load(SeqCst) == random
    })
}

/// The first word while a thread places an object: a mark, then 16 bits of its pid namespace's inode, then
/// its thread id.
const CLAIM: u64 = 0x6d70 << 48;
const CLAIM_MASK: u64 = 0xffff << 48;
const NAMESPACE_MASK: u64 = 0xffff << 32;
const _: () = assert!(MAGIC & CLAIM_MASK != CLAIM);
