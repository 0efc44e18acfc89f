//! [`Shared`]: a handle to one object in one segment, and the verbs that make, find and remove it, written once for every type.
#![allow(unsafe_code, reason = "reaches objects through their mapping")]

use std::fmt;
use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, ErrorKind};
use crate::header::{Element, Ticket};
use crate::identity::Me;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::robust_lock::RobustLock;
use crate::segment::{Expected, LARGEST, Plan, Segment};
use crate::sys;
use crate::transit;

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

/// A public type around a [`Shared`] object, so that [`Options`] can make it.
pub trait Handle: Sized {
    /// What it is a handle to.
    type Object: Object;

    /// Wraps the object.
    fn from_shared(shared: Shared<Self::Object>) -> Self;
}

/// The verbs with every knob, for any [`Handle`].
///
/// ```
/// use multiproc_shm::{Options, Value};
///
/// let counter: Value<u64> = Options::new().persistent(true).create("hits-of-all-times", 0)?;
/// drop(counter); // nobody has it now, and it stays
/// let counter: Value<u64> = Options::new().open("hits-of-all-times")?;
/// # Value::<u64>::unlink("hits-of-all-times")?;
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a verb ends the chain"]
pub struct Options {
    namespace: Option<Namespace>,
    persistent: bool,
}

impl Options {
    /// The default namespace, gone with its last user.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this namespace.
    pub fn namespace(mut self, namespace: &Namespace) -> Self {
        self.namespace = Some(namespace.clone());
        self
    }

    /// The object stays, with its name, until somebody unlinks it (or the machine restarts). Meant for makers; finding takes objects of both sorts.
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.persistent = persistent;
        self
    }

    /// Makes an object without a name, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// [`Error`]: invalid parameters, no space.
    pub fn anonymous<H: Handle>(&self, params: <H::Object as Object>::Params) -> Result<H, Error> {
        Shared::make(&self.chosen_namespace()?, None, params, self.persistent)?
            .map(H::from_shared)
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", H::Object::KIND))
    }

    /// Makes an object that must not exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or in use, invalid parameters, no space.
    pub fn create<H: Handle>(&self, name: &str, params: <H::Object as Object>::Params) -> Result<H, Error> {
        let name = Name::chosen(name, "create")?;
        Shared::make(&self.chosen_namespace()?, Some(&name), params, self.persistent)?
            .map(H::from_shared)
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", format_args!("{} {name}", H::Object::KIND)))
    }

    /// Finds an object that must exist.
    ///
    /// # Errors
    ///
    /// [`Error`]: nobody uses the name, or what is there is something else; both sides are named.
    pub fn open<H: Handle>(&self, name: &str) -> Result<H, Error> {
        let name = Name::chosen(name, "open")?;
        Shared::find(&self.chosen_namespace()?, &name, None, None)?
            .map(H::from_shared)
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "open", format_args!("{} {name}", H::Object::KIND)))
    }

    /// Finds an object, or makes it. Of many that call this at once, one makes it and all get the same.
    ///
    /// # Errors
    ///
    /// [`Error`]; [`Mismatch`](ErrorKind::Mismatch) if what is there was made with other parameters.
    pub fn open_or_create<H: Handle>(&self, name: &str, params: <H::Object as Object>::Params) -> Result<H, Error>
    where
        <H::Object as Object>::Params: Clone,
    {
        let name = Name::chosen(name, "open")?;
        let namespace = self.chosen_namespace()?;
        let extents = checked_extents::<H::Object>(&params, &name.to_string())?;
        // Each turn fails only if somebody else made or removed the name in between.
        for _ in 0..1000 {
            if let Some(found) = Shared::find(&namespace, &name, Some(extents), None)? {
                return Ok(H::from_shared(found));
            }
            if let Some(made) = Shared::make(&namespace, Some(&name), params.clone(), self.persistent)? {
                return Ok(H::from_shared(made));
            }
        }
        Err(Error::new(ErrorKind::Busy, "open or create", format_args!("{} {name}", H::Object::KIND)))
    }

    /// Takes a name away at once; those who have handles keep the object.
    ///
    /// # Errors
    ///
    /// [`Error`]: the name is bad or not in use.
    pub fn unlink(&self, name: &str) -> Result<(), Error> {
        let name = Name::chosen(name, "unlink")?;
        self.chosen_namespace()?.unlink(&name, "unlink")
    }

    fn chosen_namespace(&self) -> Result<Namespace, Error> {
        self.namespace.clone().map_or_else(Namespace::current, Ok)
    }
}

impl<T: Object> Shared<T> {
    fn make(namespace: &Namespace, name: Option<&Name>, params: T::Params, persistent: bool) -> Result<Option<Self>, Error> {
        let shown = name.map_or_else(|| T::KIND.to_owned(), |name| format!("{} {name}", T::KIND));
        let extents = checked_extents::<T>(&params, &shown)?;
        let bytes = checked_size::<T>(extents).ok_or_else(|| {
            Error::new(ErrorKind::Invalid, "create", &shown).with_detail(format_args!("sizes {extents:?} are too large"))
        })?;
        usable_thread("create", &shown)?;
        let reserved = T::reserved(extents).map_or(bytes, |reserved| reserved.clamp(size_of::<T>(), bytes));
        let plan = Plan { kind: T::KIND, layout: T::LAYOUT, element: &T::element(), extents, bytes, reserved, persistent };
        let made = Segment::create(namespace, name, plan, held_here::<T>, |object| {
            // SAFETY: zeroed, aligned, large enough (all zeros is a valid `T`), and nobody else knows it yet.
            let this = unsafe { &*object.cast::<T>() };
            // SAFETY: as above; the segment has `bytes` bytes from `object` on.
            unsafe { this.init(object.wrapping_add(size_of::<T>()).cast(), params) };
        })?;
        Ok(made.map(|segment| Self::new(segment, extents)))
    }

    fn find(
        namespace: &Namespace,
        name: &Name,
        extents: Option<[u64; 2]>,
        generation: Option<[u64; 2]>,
    ) -> Result<Option<Self>, Error> {
        let shown = format!("{} {name}", T::KIND);
        usable_thread("open", &shown)?;
        let expected =
            Expected { kind: T::KIND, layout: T::LAYOUT, element: &T::element(), extents, size: checked_size::<T>, generation };
        let Some(segment) = Segment::open(namespace, name, expected, held_here::<T>)? else { return Ok(None) };
        let extents = segment.facts().extents;
        Ok(Some(Self::new(segment, extents)))
    }

    fn new(segment: Arc<Segment>, extents: [u64; 2]) -> Self {
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
    /// [`NoSpace`](ErrorKind::NoSpace); [`Invalid`](ErrorKind::Invalid) outside of the object; [`Unsupported`](ErrorKind::Unsupported) before Linux 5.14.
    pub fn populate(&self, bytes: Range<usize>) -> Result<(), Error> {
        let operation = "set aside memory in";
        self.checked(&bytes, operation)?;
        self.segment.populate(bytes).map_err(|error| Error::os(operation, self.describe(), error))
    }

    /// Gives memory back: the pages that lie wholly inside these bytes of the object read as zeros afterwards, and cost nothing. To be touched again only after
    /// [`populate`](Self::populate). Whoever calls this makes sure that nobody reads or writes there meanwhile; who does finds zeros, or loses what he wrote.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid) outside of the object; what the file system says.
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

    /// Its name for messages: quoted, or `(anonymous)`.
    pub fn describe(&self) -> String {
        format!("{} {}", T::KIND, self.segment.name())
    }

    /// Its name; `None` for an anonymous one.
    pub fn name(&self) -> Option<&str> {
        Some(self.segment.name().as_str()).filter(|name| !name.starts_with('.'))
    }

    /// Whether both are handles to the same object.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.segment, &other.segment) || self.segment.identity() == other.segment.identity()
    }
}

fn checked_extents<T: Object>(params: &T::Params, shown: &str) -> Result<[u64; 2], Error> {
    T::extents(params).map_err(|problem| Error::new(ErrorKind::Invalid, "create", shown).with_detail(problem))
}

fn checked_size<T: Object>(extents: [u64; 2]) -> Option<usize> {
    T::size(extents).filter(|bytes| *bytes >= size_of::<T>() && *bytes as u64 <= LARGEST)
}

/// Better an error when an object is made than at its first lock.
fn usable_thread(operation: &'static str, shown: &str) -> Result<(), Error> {
    let unsupported = || {
        Error::new(ErrorKind::Unsupported, operation, shown).with_detail(
            "this thread has no robust list of the usual form, or /proc is missing, or it was forked into another pid namespace",
        )
    };
    Me::current().map(|_| ()).map_err(|_| unsupported())
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
        .any(|owner| sys::is_thread_of_this_process(owner.tid))
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

/// A handle in a message: directory (none: the default), name, generation, ticket.
#[derive(Serialize, Deserialize)]
struct Wire {
    directory: Option<PathBuf>,
    name: String,
    generation: [u64; 2],
    ticket: (u8, u64),
}

impl<T: Object> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let namespace = self.segment.namespace();
        let wire = Wire {
            directory: (!namespace.is_default()).then(|| namespace.path().to_owned()),
            name: self.segment.name().as_str().to_owned(),
            generation: self.segment.facts().generation,
            ticket: transit::ticket_for(&self.segment).to_wire(),
        };
        wire.serialize(serializer)
    }
}

impl<'de, T: Object> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let attach = || {
            let namespace = wire.directory.map_or_else(Namespace::current, Namespace::existing)?;
            let name = Name::existing(&wire.name, "open")?;
            Self::find(&namespace, &name, None, Some(wire.generation))?
                .ok_or_else(|| Error::new(ErrorKind::Stale, "open", format_args!("{} {name}", T::KIND)))
        };
        let shared = attach().map_err(serde::de::Error::custom)?;
        shared.segment.return_ticket(Ticket::from_wire(wire.ticket));
        Ok(shared)
    }
}
