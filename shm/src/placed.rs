//! Objects in memory of the user's: a [`Region`] that he has mapped, with header and object somewhere in it.
//!
//! # Placing
//!
//! The header's first word decides. It is 0; one compare-and-exchange makes it a *claim*: a mark, the placer's thread, and a part of its pid namespace's number. Then everything
//! else is zeroed and written, and last the word becomes the magic number. Whoever finds a claim sees by its thread whether the placer is at work, or died: then the claim is taken over by
//! another compare-and-exchange, and all begins anew. So a death leaves either nothing, or a claim that the next placer sweeps away, or a whole object.
//!
//! # Attaching
//!
//! The header is copied, checked like a file's, and found in this process's registry by its generation: a thread that reached the same object through two mappings would
//! not know its own locks. Two mappings with one generation are of the same memory if what is written through one is read through the other; else one is a copy of
//! the other's bytes, which is refused while the other is attached here.
#![allow(unsafe_code, reason = "writes headers, owns what keeps the memory")]

use std::fmt;
use std::fs;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use memmap2::MmapRaw;

use crate::copy;
use crate::error::{Error, ErrorKind};
use crate::header::{self, Facts, HEADER, Home, MAGIC, PROBE_AT, WORDS};
use crate::registry::{self, Identity};
use crate::segment::{self, Address, Expected, HeldHere, Memory, Plan, Segment};
use crate::sys;
use multiproc_robust::low;

/// Memory that several processes have mapped, and in which [`Options::place`](crate::Options::place) puts objects.
///
/// It is implemented for [`memmap2::MmapRaw`], for `shared_memory::Shmem` (feature `shared_memory`), and for [`Arc`]s of regions, with which the caller
/// keeps one for himself, or places several objects in it.
///
/// # Safety
///
/// - All `len` bytes from `start` on are mapped, and stay so at this address until the value is dropped, also when it is moved.
/// - The value may be used and dropped by any thread.
/// - Nobody has a reference (`&[u8]`, say) to bytes in which an object is placed.
pub unsafe trait Region: 'static {
    /// The first byte.
    fn start(&self) -> *mut u8;

    /// How many bytes.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// SAFETY: the mapping lives as long as the value, which is `Send` and `Sync`; references into it are the unsafe business of who makes them.
unsafe impl Region for MmapRaw {
    fn start(&self) -> *mut u8 {
        self.as_mut_ptr()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

// SAFETY: as for `MmapRaw`; what keeps it from being `Send` is its pointer, and its destructor (munmap, shm_unlink, close) may run on any thread.
#[cfg(feature = "shared_memory")]
unsafe impl Region for shared_memory::Shmem {
    fn start(&self) -> *mut u8 {
        self.as_ptr()
    }

    fn len(&self) -> usize {
        self.len()
    }
}

// SAFETY: those of the region, which lives as long as any `Arc` of it.
unsafe impl<R: Region + ?Sized> Region for Arc<R> {
    fn start(&self) -> *mut u8 {
        R::start(self)
    }

    fn len(&self) -> usize {
        R::len(self)
    }
}

/// A region, and where in it an object begins.
#[derive(Clone)]
pub(crate) struct Users {
    region: Arc<dyn Region>,
    offset: usize,
    /// The address where the memory from the object on ceases to be shared.
    shared_until: usize,
}

// SAFETY: promised by `Region`: any thread may use and drop it.
unsafe impl Send for Users {}
// SAFETY: as above.
unsafe impl Sync for Users {}

impl Users {
    /// Looks whether an object that is aligned so can be here, and whether the memory is shared and can be written.
    pub(crate) fn new(
        region: impl Region,
        offset: usize,
        align: usize,
        operation: &'static str,
        shown: &str,
    ) -> Result<Self, Error> {
        let mut this = Self { region: Arc::new(region), offset, shared_until: 0 };
        let fail = |kind, detail: String| Err(Error::new(kind, operation, shown).with_detail(detail));
        let align = align.max(LINE);
        let address = this.region.start().addr();
        if !(address.wrapping_add(offset)).is_multiple_of(align) {
            return fail(
                ErrorKind::Misaligned,
                format!("byte {offset} of the region is at {address:#x} + {offset}; it must be at a multiple of {align}"),
            );
        }
        this.needs(HEADER, operation, shown)?;
        this.shared_until = shared_until(this.base().addr());
        this.shares(HEADER, operation, shown)?;
        this.touch(HEADER, operation, shown)?;
        Ok(this)
    }

    /// Whether so many bytes are shared memory that can be written: in private memory an object would be nobody else's, in memory for reading only the first store would be a fault.
    fn shares(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        if self.shared_until - self.base().addr() >= bytes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, operation, shown)
            .with_detail("the region is not one shared mapping that can be written"))
    }

    /// Makes sure that there is memory behind so many bytes: a file may be shorter than its mapping, or its disk full.
    fn touch(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        sys::touch(self.base(), bytes).map_err(|error| Error::os(operation, shown, error))
    }

    /// Whether the region has room for so many bytes.
    fn needs(&self, bytes: usize, operation: &'static str, shown: &str) -> Result<(), Error> {
        let there = self.region.len().saturating_sub(self.offset);
        if there >= bytes {
            return Ok(());
        }
        Err(Error::new(ErrorKind::TooSmall, operation, shown)
            .with_detail(format_args!("{bytes} bytes are needed from byte {} on, {there} are there", self.offset)))
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.region.start().wrapping_add(self.offset)
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the region is aligned and has room for a header (`new`), and lives as long as `self`.
        unsafe { header::word_at(self.base(), index) }
    }
}

impl Segment {
    /// Places an object; `fill` initialises it, zeroed. `Ok(None)`: there is one already.
    pub(crate) fn place(
        users: Users,
        plan: Plan<'_>,
        held_here: HeldHere,
        fill: impl FnOnce(*mut u8),
    ) -> Result<Option<Arc<Self>>, Error> {
        let operation = "place";
        let shown = plan.kind;
        users.needs(HEADER + plan.bytes, operation, shown)?;
        users.shares(HEADER + plan.bytes, operation, shown)?;
        users.touch(HEADER + plan.bytes, operation, shown)?;
        let facts = plan.facts(Home::Memory).map_err(|error| Error::os(operation, shown, error))?;
        if !claim(users.word(0), operation, shown)? {
            return Ok(None);
        }
        let base = users.base();
        // CRASH: from the claim on until `publish`: whoever attaches finds nothing ready, and the next placer takes the claim over.
        // SAFETY: the region has room for header and object (`needs`), and the claim is ours: nobody looks at more than its first word.
        unsafe { ptr::write_bytes(base.wrapping_add(copy::WORD), 0, HEADER + plan.bytes - copy::WORD) };
        // SAFETY: as above; zeroed but for the first word.
        unsafe { facts.write(base) };
        fill(base.wrapping_add(HEADER));
        // Known to this process before anybody can attach: another thread must find this mapping, not another one of the same memory.
        let identity = Identity::Memory(facts.generation);
        let segment = registry::insert(Self::new(Memory::Users(users), Address::Memory, identity, facts, held_here));
        // SAFETY: the header just written; the segment keeps the memory.
        unsafe { header::publish(base) };
        Ok(Some(segment))
    }

    /// Attaches to what was placed. `Ok(None)`: nothing is there.
    pub(crate) fn attach(users: Users, expected: Expected<'_>, held_here: HeldHere) -> Result<Option<Arc<Self>>, Error> {
        let operation = "attach";
        let shown = expected.kind;
        // ORDER: Acquire pairs with `publish`: with the magic number, all that was written before it is seen.
        match users.word(0).load(Acquire) {
            0 => return Ok(None),
            word if word & CLAIM_MASK == CLAIM => return Err(Error::new(ErrorKind::NotReady, operation, shown)),
            _ => {}
        }
        let words: [u64; WORDS] = std::array::from_fn(|index| users.word(index).load(Relaxed));
        let failed = |flaw: header::Flaw| flaw.into_error(operation, shown);
        let facts = Facts::parse(&words).map_err(failed)?;
        facts.check_pid_namespace().map_err(failed)?;
        segment::check(&facts, Home::Memory, expected, operation, shown)?;
        let bytes = usize::try_from(facts.file_length).unwrap_or(usize::MAX);
        users.needs(bytes, operation, shown)?;
        users.shares(bytes, operation, shown)?;
        let identity = Identity::Memory(facts.generation);
        let memory = Memory::Users(users.clone());
        let segment = registry::find_or_insert(Self::new(memory, Address::Memory, identity, facts, held_here));
        if segment.base() == users.base() || same_memory(&users, &segment) {
            return Ok(Some(segment));
        }
        Err(Error::new(ErrorKind::Mismatch, operation, shown)
            .with_detail("its bytes are a copy of an object that this process uses"))
    }
}

/// Takes the first word; false if there is an object already.
fn claim(word: &AtomicU64, operation: &'static str, shown: &str) -> Result<bool, Error> {
    let namespace = (multiproc_robust::pid_namespace() & 0xffff) << 32;
    let mine = CLAIM | namespace | u64::from(multiproc_robust::thread_id());
    let mut seen = word.load(Acquire);
    loop {
        match seen {
            0 => {}
            MAGIC => return Ok(false),
            claim if claim & CLAIM_MASK != CLAIM => {
                return Err(Error::new(ErrorKind::Corrupt, operation, shown)
                    .with_detail("something else is there; who knows that nobody needs it makes its first eight bytes zero"));
            }
            claim if claim & NAMESPACE_MASK != namespace => {
                return Err(Error::new(ErrorKind::OtherPidNamespace, operation, shown));
            }
            claim if claim != mine && !multiproc_robust::has_ended(low(claim)) => {
                return Err(Error::new(ErrorKind::Busy, operation, shown)
                    .with_detail(format_args!("thread {} is placing an object there", low(claim))));
            }
            // Of a thread that has ended: it writes nothing any more.
            _ => {}
        }
        match word.compare_exchange(seen, mine, AcqRel, Acquire) {
            Ok(_) => return Ok(true),
            Err(now) => seen = now,
        }
    }
}

/// Whether the object that this process has mapped already is in the same memory: what is written here must be read there. Others may ask the same at the same time, hence some tries.
fn same_memory(users: &Users, known: &Segment) -> bool {
    // SAFETY: the known object begins with a header, too.
    let there = unsafe { header::word_at(known.base(), PROBE_AT) };
    (0..100).any(|_| {
        let Ok(random) = sys::random::<8>() else { return false };
        let random = u64::from_ne_bytes(random);
        users.word(PROBE_AT).store(random, SeqCst);
        there.load(SeqCst) == random
    })
}

/// Where the memory from this address on ceases to be mapped, shared and writable, as /proc tells it.
fn shared_until(start: usize) -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let mut covered = start;
    for line in maps.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let Some((from, to)) = range.split_once('-').and_then(|(from, to)| Some((hex(from)?, hex(to)?))) else { continue };
        if from <= covered && covered < to && rest.starts_with("rw") && rest.as_bytes().get(3) == Some(&b's') {
            covered = to;
        }
    }
    covered
}

/// Objects begin on a cache line.
const LINE: usize = 64;
/// The first word while somebody is placing: a mark, then 16 bits of his pid namespace's inode, then his thread.
const CLAIM: u64 = 0x6d70 << 48;
const CLAIM_MASK: u64 = 0xffff << 48;
const NAMESPACE_MASK: u64 = 0xffff << 32;
const _: () = assert!(MAGIC & CLAIM_MASK != CLAIM);

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("bytes", &self.region.len()).field("offset", &self.offset).finish()
    }
}
