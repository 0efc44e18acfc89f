//! [`Shared`]: a handle to one object, wherever it lives, written once for every type. The verbs that make and find it are in `options.rs`.
#![allow(unsafe_code, reason = "reaches objects through their mapping")]

use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::{Element, Ticket};
use crate::name::Name;
use crate::namespace::{Namespace, Sharing};
use crate::segment::{Address, Expected, HeldHere, LARGEST, Plan, Segment};
use crate::transit;
use multiproc_robust::RobustLock;
use multiproc_robust::ThisThread;

/// What can live in a segment: a `repr(C)` struct of atomics, perhaps with more such bytes behind it.
///
/// # Safety
///
/// - `Self` is `repr(C)`, holds only integers of fixed width inside atomics, is aligned to at most 1,024 bytes, and every bit pattern is valid.
/// - [`size`](Self::size) is at least `size_of::<Self>()`, and the same for the same extents in every build with this `LAYOUT`.
/// - [`locks`](Self::locks) and [`more_locks`](Self::more_locks) tell every [`RobustLock`] in it.
pub unsafe trait Object: Sized + Sync + 'static {
    /// What it is called in headers and errors: at most 16 ASCII letters.
    const KIND: &'static str;
    /// Its layout version.
    const LAYOUT: u32;
    /// What its maker chooses.
    type Params;

    /// The two numbers that `params` mean for everybody; they stand in the header.
    ///
    /// # Errors
    ///
    /// What is wrong with the parameters.
    fn extents(params: &Self::Params) -> Result<[u64; 2], String>;

    /// Bytes of an object with these extents; `None` if there can be none.
    fn size(extents: [u64; 2]) -> Option<usize>;

    /// Bytes, from the object's beginning on, for which memory is set aside when it is made. What lies behind costs nothing until somebody has called
    /// [`populate`](Shared::populate) for it; touched before, a full file system would be a fault there.
    fn reserved(extents: [u64; 2]) -> Option<usize> {
        Self::size(extents)
    }

    /// The parameters of an object all of whose bytes must be there from the beginning: in memory of the user's, and in an ordinary file. An object that
    /// grows by [`reserved`](Self::reserved) makes itself a fixed one here.
    fn placed(params: Self::Params) -> Self::Params {
        params
    }

    /// What its elements are.
    fn element() -> Element {
        Element::none()
    }

    /// Fills a new object, all zeros so far; `tail` is where the bytes behind `Self` begin.
    ///
    /// # Safety
    ///
    /// - `self` and `tail` are the two parts of a new object with the extents of `params`, [`size`](Self::size) bytes in all, that nobody else knows.
    unsafe fn init(&self, tail: *const AtomicU64, params: Self::Params);

    /// Its robust locks.
    fn locks(&self) -> [Option<&RobustLock>; 2];

    /// Those behind `Self`, if there are any.
    ///
    /// # Safety
    ///
    /// - `tail` is where the bytes behind `self` begin, and `extents` are this object's.
    unsafe fn more_locks(&self, _tail: *const AtomicU64, _extents: [u64; 2]) -> &[RobustLock] {
        &[]
    }
}

/// A handle to a shared object: `Clone + Send + Sync`, and serde, so that it may be an argument, a result, or part of a message.
///
/// The object lives as long as anybody has a handle to it, in whatever process; a killed process has none. A persistent object stays until it is unlinked.
/// This is the building block under `Lock`, `Queue`, [`Value`](crate::Value) and the rest.
pub struct Shared<T: Object> {
    segment: Arc<Segment>,
    extents: [u64; 2],
    /// Inside the segment: one load less on every operation.
    object: *const T,
}

// SAFETY: the object is only atomics (`Object`), mapped as long as `segment`.
unsafe impl<T: Object> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Object> Sync for Shared<T> {}

impl<T: Object> Shared<T> {
    /// What its maker asked for, worked out and checked.
    pub(crate) fn plan<'a>(element: &'a Element, extents: [u64; 2], shown: &str) -> Result<Plan<'a>, Error> {
        let bytes = checked_size::<T>(extents).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "create", shown).with_detail(format_args!("sizes {extents:?} are too large"))
        })?;
        usable_thread("create", shown)?;
        let reserved = T::reserved(extents).map_or(bytes, |reserved| reserved.clamp(size_of::<T>(), bytes));
        let access = Access::PRIVATE;
        Ok(Plan {
            kind: T::KIND,
            layout: T::LAYOUT,
            element,
            extents,
            bytes,
            reserved,
            persistent: false,
            access,
            huge_pages: false,
        })
    }

    /// What must be there.
    pub(crate) fn expected<'a>(element: &'a Element, shown: &str) -> Result<Expected<'a>, Error> {
        usable_thread("open", shown)?;
        let size = checked_size::<T>;
        Ok(Expected { kind: T::KIND, layout: T::LAYOUT, element, extents: None, size, generation: None })
    }

    /// Initialises a new object with these parameters.
    pub(crate) fn fill(params: T::Params) -> impl FnOnce(*mut u8) {
        |object| {
            // SAFETY: `Segment`'s makers hand over an object of the plan's size: zeroed, aligned (all zeros is a valid `T`), and nobody else knows it yet.
            let this = unsafe { &*object.cast::<T>() };
            // SAFETY: as above; the segment has `bytes` bytes from `object` on.
            unsafe { this.init(object.wrapping_add(size_of::<T>()).cast(), params) };
        }
    }

    /// Makes the locks of an object that nobody uses such as the kernel leaves those of the dead.
    pub(crate) fn mend(object: *mut u8, extents: [u64; 2]) {
        // SAFETY: `Segment::open_file` hands over an object that it has checked, and mapped.
        let this = unsafe { &*object.cast::<T>() };
        let tail = object.wrapping_add(size_of::<T>()).cast_const().cast();
        // SAFETY: the two parts of one object, whose extents were checked.
        let more = unsafe { this.more_locks(tail, extents) };
        this.locks().into_iter().flatten().chain(more).for_each(RobustLock::mark_abandoned);
    }

    pub(crate) const HELD_HERE: HeldHere = held_here::<T>;

    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let extents = segment.facts().extents;
        let object = segment.object().cast_const().cast();
        Self { segment, extents, object }
    }

    /// The two numbers that say how large it is, checked once when it was found.
    #[inline]
    pub fn extents(&self) -> [u64; 2] {
        self.extents
    }

    /// The first word behind the object's struct: its elements. Only to be reached as atomics or through [`copy`](crate::copy).
    #[inline]
    pub fn tail(&self) -> *const AtomicU64 {
        self.object.wrapping_add(1).cast()
    }

    /// Bytes of the object, from `&**self` on.
    pub fn bytes(&self) -> usize {
        T::size(self.extents).unwrap_or(size_of::<T>())
    }

    /// Sets memory aside for these bytes of the object (all of the pages they touch); what is there stays.
    ///
    /// # Errors
    ///
    /// [`NoSpace`](ErrorKind::NoSpace); [`Invalid`](ErrorKind::Invalid) outside of the object; [`Unsupported`](ErrorKind::Unsupported) before Linux 5.14, and in
    /// memory of the user's, where all of it is there.
    pub fn populate(&self, bytes: Range<usize>) -> Result<(), Error> {
        let operation = "set aside memory in";
        self.checked(&bytes, operation)?;
        self.segment.populate(bytes).map_err(|error| Error::os(operation, self.describe(), error))
    }

    /// Writes an object in an ordinary file to its disk, and returns when it is there. Until then it is where the kernel likes it: safe from the end of every process, not from a
    /// power cut. What others change meanwhile is written or not.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported) when it lives in memory; what the disk says.
    pub fn sync(&self) -> Result<(), Error> {
        self.segment.sync().map_err(|error| Error::os("write to its disk", self.describe(), error))
    }

    /// Asks for huge pages.
    pub(crate) fn prefer_huge_pages(&self) {
        self.segment.prefer_huge_pages();
    }

    /// Gives memory back: the pages that lie wholly inside these bytes of the object read as zeros afterwards, and cost nothing. To be touched again only after
    /// [`populate`](Self::populate). Whoever calls this makes sure that nobody reads or writes there meanwhile; who does finds zeros, or loses what he wrote.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) outside of the object; [`Unsupported`](ErrorKind::Unsupported) in memory of the user's; what the file system says.
    pub fn give_back(&self, bytes: Range<usize>) -> Result<(), Error> {
        let operation = "give back memory of";
        self.checked(&bytes, operation)?;
        self.segment.give_back(bytes).map_err(|error| Error::os(operation, self.describe(), error))
    }

    fn checked(&self, bytes: &Range<usize>, operation: &'static str) -> Result<(), Error> {
        if bytes.start <= bytes.end && bytes.end <= self.bytes() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, operation, self.describe()).with_detail(format_args!("{bytes:?} lies outside")))
    }

    /// Its name for messages: quoted, or `(anonymous)`, or `(placed)`, or a path.
    pub fn describe(&self) -> String {
        format!("{} {}", T::KIND, self.segment.address().describe())
    }

    /// Its name; `None` for an anonymous one, and where it has none.
    pub fn name(&self) -> Option<&str> {
        match self.segment.address() {
            Address::Name(_, name) => Some(name.as_str()).filter(|name| !name.starts_with('.')),
            Address::File(..) | Address::Memory => None,
        }
    }

    /// Its path, if it lives in an ordinary file.
    pub fn path(&self) -> Option<&Path> {
        match self.segment.address() {
            Address::File(path, _) => Some(path),
            Address::Name(..) | Address::Memory => None,
        }
    }

    /// Whether both are handles to the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) || self.segment.identity() == other.segment.identity()
    }
}

pub(crate) fn checked_extents<T: Object>(params: &T::Params, shown: &str) -> Result<[u64; 2], Error> {
    T::extents(params).map_err(|problem| Error::new(ErrorKind::Invalid, "create", shown).with_detail(problem))
}

pub(crate) fn checked_size<T: Object>(extents: [u64; 2]) -> Option<usize> {
    T::size(extents).filter(|bytes| *bytes >= size_of::<T>() && *bytes as u64 <= LARGEST)
}

/// Better an error when an object is made than at its first lock.
fn usable_thread(operation: &'static str, shown: &str) -> Result<(), Error> {
    let unsupported = || {
        Error::new(ErrorKind::Unsupported, operation, shown).with_detail(
            "this thread has no robust list of the usual form, or /proc is missing, or it was forked into another pid namespace",
        )
    };
    ThisThread::current().map(|_| ()).map_err(|_| unsupported())
}

fn held_here<T: Object>(segment: &Segment) -> bool {
    // SAFETY: the segment was made or checked for `T`, and is still mapped.
    let object = unsafe { &*segment.object().cast::<T>() };
    let tail = segment.object().wrapping_add(size_of::<T>()).cast_const().cast();
    // SAFETY: the two parts of one object, whose extents were checked.
    let more = unsafe { object.more_locks(tail, segment.facts().extents) };
    object
        .locks()
        .into_iter()
        .flatten()
        .chain(more)
        .filter_map(RobustLock::owner)
        .any(|owner| multiproc_robust::is_thread_of_this_process(owner.tid))
}

impl<T: Object> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: made or checked for `T`, and mapped; `T` is only atomics, so a shared reference to memory that others write is sound.
        unsafe { &*self.object }
    }
}

impl<T: Object> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { segment: Arc::clone(&self.segment), extents: self.extents, object: self.object }
    }
}

impl<T: Object> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// Where the object of a handle in a message lives.
#[derive(Serialize, Deserialize)]
enum WireHome {
    /// The default namespace of whoever reads it.
    Default,
    Directory(PathBuf),
    /// A directory that a group shares: the group, the directory's owner.
    Shared(PathBuf, u32, u32),
    /// An ordinary file: mode and group.
    File(PathBuf, u32, Option<u32>),
}

/// A handle in a message: where, name, generation, ticket.
#[derive(Serialize, Deserialize)]
struct Wire {
    home: WireHome,
    name: String,
    generation: [u64; 2],
    ticket: (u8, u64),
}

impl<T: Object> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let generation = self.segment.facts().generation;
        let wire = match self.segment.address() {
            Address::Name(namespace, name) => {
                let path = || namespace.path().to_owned();
                let home = match namespace.sharing() {
                    Some(Sharing { group, owner }) => WireHome::Shared(path(), group, owner),
                    None if namespace.is_default() => WireHome::Default,
                    None => WireHome::Directory(path()),
                };
                Wire { home, name: name.as_str().to_owned(), generation, ticket: transit::ticket_for(&self.segment).to_wire() }
            }
            Address::File(path, access) => {
                let home = WireHome::File(path.clone(), access.mode, access.group);
                Wire { home, name: String::new(), generation, ticket: Ticket::NONE.to_wire() }
            }
            Address::Memory => {
                let problem =
                    format!("the {} was placed in memory: others attach to it there, by a region of their own", T::KIND);
                return Err(serde::ser::Error::custom(problem));
            }
        };
        wire.serialize(serializer)
    }
}

impl<'de, T: Object> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let shared: Self = arrive(wire.home, &wire.name, wire.generation).map_err(serde::de::Error::custom)?;
        transit::arrived(&shared.segment, Ticket::from_wire(wire.ticket));
        Ok(shared)
    }
}

/// Attaches to what a message meant.
fn arrive<T: Object>(home: WireHome, name: &str, generation: [u64; 2]) -> Result<Shared<T>, Error> {
    let element = T::element();
    let expected = Expected { generation: Some(generation), ..Shared::<T>::expected(&element, name)? };
    let namespace = match home {
        WireHome::Default => Namespace::current()?,
        WireHome::Directory(path) => Namespace::existing(path, None)?,
        WireHome::Shared(path, group, owner) => Namespace::existing(path, Some(Sharing { group, owner }))?,
        WireHome::File(path, mode, group) => {
            let access = Access { mode, group };
            let found = Segment::open_file(&path, access, expected, held_here::<T>, Shared::<T>::mend)?;
            let stale = || Error::new(ErrorKind::Stale, "open", format_args!("{} {}", T::KIND, path.display()));
            return found.map(Shared::new).ok_or_else(stale);
        }
    };
    let name = Name::existing(name, "open")?;
    let found = Segment::open(&namespace, &name, namespace.access(), expected, held_here::<T>)?;
    found.map(Shared::new).ok_or_else(|| Error::new(ErrorKind::Stale, "open", format_args!("{} {name}", T::KIND)))
}
