//! [`Shared`]: a handle to an object of any type. `options.rs` makes and finds them, `wire.rs` sends them.
#![allow(unsafe_code, reason = "reaches objects through their mapping")]

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use multiproc_robust::{RobustLock, ThisThread, is_thread_of_this_process};

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::Element;
use crate::segment::{Address, Expected, HeldHere, LARGEST, Plan, Segment};

/// A type of objects in shared memory: a `repr(C)` struct of atomics, optionally with more such bytes behind
/// it.
///
/// # Safety
///
/// - `Self` is `repr(C)`, holds only integers of fixed width inside atomics, is aligned to at most 1,024
///   bytes, and every bit pattern is valid.
/// - [`size`](Self::size) is at least `size_of::<Self>()`, and the same for the same extents in every build
///   with this `LAYOUT`.
/// - [`locks`](Self::locks) and [`more_locks`](Self::more_locks) return every [`RobustLock`] in it.
pub unsafe trait Object: Sized + Sync + 'static {
    /// Its name in headers and errors: at most 16 ASCII letters.
    const KIND: &'static str;
    /// Its layout version.
    const LAYOUT: u32;
    /// What the maker of an object chooses.
    type Params;

    /// Returns the two numbers that the size depends on. They are stored in the header. Both are 0 by
    /// default: the size is always the same.
    ///
    /// # Errors
    ///
    /// Returns what is wrong with the parameters.
    fn extents(_params: &Self::Params) -> Result<[u64; 2], String> {
        Ok([0, 0])
    }

    /// Returns the bytes of an object with these extents; `None` if no object can have them. By default the
    /// size of `Self`, with extents of 0.
    fn size(extents: [u64; 2]) -> Option<usize> {
        (extents == [0, 0]).then_some(size_of::<Self>())
    }

    /// Returns how many bytes, from the object's beginning, get memory when it is made.
    ///
    /// The bytes behind cost nothing until a process calls [`populate`](Shared::populate) for them. Before
    /// that a store to them is SIGBUS if the file system is full.
    fn reserved(extents: [u64; 2]) -> Option<usize> {
        Self::size(extents)
    }

    /// Returns the parameters for an object in caller-provided memory, or in an ordinary file. All bytes of
    /// such an object exist from the beginning, so a type that grows (see [`reserved`](Self::reserved))
    /// returns parameters of a fixed size.
    fn placed(params: Self::Params) -> Self::Params {
        params
    }

    /// Describes its elements.
    fn element() -> Element {
        Element::none()
    }

    /// Initialises a new object, which is all zeros; by default it stays so. `tail` is the address of the
    /// bytes behind `Self`.
    ///
    /// # Safety
    ///
    /// - `self` and `tail` are the two parts of a new object that no other thread knows. It has the extents
    ///   of `params`, and [`size`](Self::size) bytes in all.
    unsafe fn init(&self, _tail: *const AtomicU64, _params: Self::Params) {}

    /// Returns the robust locks in `Self`.
    fn locks(&self) -> [Option<&RobustLock>; 2];

    /// Returns the robust locks behind `Self`.
    ///
    /// # Safety
    ///
    /// - `tail` is the address of the bytes behind `self`, and `extents` are this object's.
    unsafe fn more_locks(&self, _tail: *const AtomicU64, _extents: [u64; 2]) -> &[RobustLock] {
        &[]
    }
}

/// A handle to a shared object. It is `Clone + Send + Sync`, and serde sends it as an argument, a result, or
/// part of a message.
///
/// The object lives as long as any process has a handle to it. The handles of a killed process do not count.
/// A persistent object stays until it is unlinked.
///
/// `Lock`, `Queue`, [`Value`](crate::Value) and the other types are made of this.
pub struct Shared<T: Object> {
    segment: Arc<Segment>,
    extents: [u64; 2],
    /// Points into the segment, which saves a load on every operation.
    object: *const T,
}

// SAFETY: the object is only atomics (`Object`), and stays mapped as long as `segment` lives.
unsafe impl<T: Object> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Object> Sync for Shared<T> {}

impl<T: Object> Shared<T> {
    /// Describes an object to be made, after checks.
    pub(crate) fn plan<'a>(element: &'a Element, extents: [u64; 2], shown: &str) -> Result<Plan<'a>, Error> {
        let bytes = checked_size::<T>(extents).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "create", shown)
                .with_detail(format_args!("sizes {extents:?} are too large"))
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

    /// Describes an object to be found.
    pub(crate) fn expected<'a>(element: &'a Element, shown: &str) -> Result<Expected<'a>, Error> {
        usable_thread("open", shown)?;
        let size = checked_size::<T>;
        Ok(Expected { kind: T::KIND, layout: T::LAYOUT, element, extents: None, size, generation: None })
    }

    /// Returns a function that initialises a new object with these parameters.
    pub(crate) fn fill(params: T::Params) -> impl FnOnce(*mut u8) {
        |object| {
            // SAFETY: `Segment` passes an object of the plan's size: zeroed, aligned (all zeros is a valid
            // `T`), and no other thread knows it.
            let this = unsafe { &*object.cast::<T>() };
            // SAFETY: as above; the segment has `bytes` bytes from `object` on.
            unsafe { this.init(object.wrapping_add(size_of::<T>()).cast(), params) };
        }
    }

    /// Puts the locks of an object that no process uses into the state in which the kernel leaves a lock
    /// whose owner dies.
    pub(crate) fn repair(object: *mut u8, extents: [u64; 2]) {
        // SAFETY: `Segment::open_file` passes an object that it has checked and mapped.
        unsafe { locks_of::<T>(object, extents) }.for_each(RobustLock::mark_abandoned);
    }

    pub(crate) const HELD_HERE: HeldHere = held_here::<T>;

    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn new(segment: Arc<Segment>) -> Self {
        let extents = segment.header.extents;
        let object = segment.object().cast_const().cast();
        Self { segment, extents, object }
    }

    /// Returns the two numbers that its size depends on. They were checked when it was found.
    #[inline]
    pub fn extents(&self) -> [u64; 2] {
        self.extents
    }

    /// Returns the address of the first word behind the object's struct. Access it as atomics or through
    /// [`copy`](crate::copy) only.
    #[inline]
    pub fn tail(&self) -> *const AtomicU64 {
        self.object.wrapping_add(1).cast()
    }

    /// Returns the bytes of the object, from `&**self` on.
    pub fn bytes(&self) -> usize {
        T::size(self.extents).unwrap_or(size_of::<T>())
    }

    /// Reserves memory for these bytes of the object, in whole pages. The contents stay.
    ///
    /// # Errors
    ///
    /// Returns [`NoSpace`](ErrorKind::NoSpace) if the file system is full, and
    /// [`Invalid`](ErrorKind::Invalid) if a byte is outside of the object. Returns
    /// [`Unsupported`](ErrorKind::Unsupported) before Linux 5.14, and in caller-provided memory, which is all
    /// there already.
    pub fn populate(&self, bytes: Range<usize>) -> Result<(), Error> {
        let operation = "set aside memory in";
        self.checked(&bytes, operation)?;
        self.segment.populate(bytes).map_err(|error| Error::os(operation, self.describe(), error))
    }

    /// Writes an object in an ordinary file to its disk, and returns when it is there.
    ///
    /// Without this call a change outlives the end of every process, but not a power cut. A change by another
    /// process during the call may or may not be written.
    ///
    /// # Errors
    ///
    /// Returns [`Unsupported`](ErrorKind::Unsupported) if the object is in memory, and the errors of the
    /// disk.
    pub fn sync(&self) -> Result<(), Error> {
        self.segment.sync().map_err(|error| Error::os("write to its disk", self.describe(), error))
    }

    /// Asks for huge pages.
    pub(crate) fn prefer_huge_pages(&self) {
        self.segment.prefer_huge_pages();
    }

    /// Releases the memory of the pages that lie wholly inside these bytes of the object. They read as zeros
    /// afterwards, and cost nothing. Touch them again only after [`populate`](Self::populate).
    ///
    /// The caller makes sure that no thread uses these bytes meanwhile. A reader would find zeros, and a
    /// writer would lose what it writes.
    ///
    /// # Errors
    ///
    /// Returns [`Invalid`](ErrorKind::Invalid) if a byte is outside of the object,
    /// [`Unsupported`](ErrorKind::Unsupported) in caller-provided memory, and the errors of the file system.
    pub fn give_back(&self, bytes: Range<usize>) -> Result<(), Error> {
        let operation = "give back memory of";
        self.checked(&bytes, operation)?;
        self.segment.give_back(bytes).map_err(|error| Error::os(operation, self.describe(), error))
    }

    fn checked(&self, bytes: &Range<usize>, operation: &'static str) -> Result<(), Error> {
        if bytes.start <= bytes.end && bytes.end <= self.bytes() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Invalid, operation, self.describe())
            .with_detail(format_args!("{bytes:?} lies outside")))
    }

    /// Returns its kind and its name for errors: the name in quotes, `(anonymous)`, `(placed)`, or a path.
    pub fn describe(&self) -> String {
        format!("{} {}", T::KIND, self.segment.address.describe())
    }

    /// Returns its name; `None` for an anonymous object, and for one in an ordinary file or in
    /// caller-provided memory.
    pub fn name(&self) -> Option<&str> {
        match &self.segment.address {
            Address::Name(_, name) => Some(name.as_str()).filter(|name| !name.starts_with('.')),
            Address::File(..) | Address::Memory => None,
        }
    }

    /// Returns its path if it is in an ordinary file.
    pub fn path(&self) -> Option<&Path> {
        match &self.segment.address {
            Address::File(path, _) => Some(path),
            Address::Name(..) | Address::Memory => None,
        }
    }

    /// Returns whether both are handles to the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) || self.segment.identity == other.segment.identity
    }
}

pub(crate) fn checked_extents<T: Object>(params: &T::Params, shown: &str) -> Result<[u64; 2], Error> {
    T::extents(params).map_err(|problem| Error::new(ErrorKind::Invalid, "create", shown).with_detail(problem))
}

pub(crate) fn checked_size<T: Object>(extents: [u64; 2]) -> Option<usize> {
    T::size(extents).filter(|bytes| *bytes >= size_of::<T>() && *bytes as u64 <= LARGEST)
}

/// Fails when an object is made or found, not at its first lock.
fn usable_thread(operation: &'static str, shown: &str) -> Result<(), Error> {
    let unsupported = || {
        Error::new(ErrorKind::Unsupported, operation, shown).with_detail(
            "this thread has no robust list of the usual form, or /proc is missing, \
             or it was forked into another pid namespace",
        )
    };
    ThisThread::current().map(|_| ()).map_err(|_| unsupported())
}

fn held_here<T: Object>(segment: &Segment) -> bool {
    // SAFETY: the segment was made or checked for `T`, and is still mapped.
    let mut owners =
        unsafe { locks_of::<T>(segment.object(), segment.header.extents) }.filter_map(RobustLock::owner);
    owners.any(|owner| is_thread_of_this_process(owner.tid))
}

/// Returns all robust locks of an object.
///
/// # Safety
///
/// `object` is a `T` with these extents, made or checked, and mapped for `'a`.
unsafe fn locks_of<'a, T: Object>(
    object: *mut u8,
    extents: [u64; 2],
) -> impl Iterator<Item = &'a RobustLock> {
    // SAFETY: the caller's promise.
    let this = unsafe { &*object.cast_const().cast::<T>() };
    let tail = object.wrapping_add(size_of::<T>()).cast_const().cast();
    // SAFETY: the two parts of one object, whose extents were checked.
    let more = unsafe { this.more_locks(tail, extents) };
    this.locks().into_iter().flatten().chain(more)
}

impl<T: Object> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: made or checked for `T`, and mapped. `T` is only atomics, so other processes may write it
        // meanwhile.
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
