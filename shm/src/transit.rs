//! Handles in messages, on their way from one process to another.
//!
//! A handle in a message is a name. Between the sender's drop and the receiver's open no process may have the
//! object mapped, and a sweep would remove it. So a handle that is serialised inside a [`Transit`] takes an
//! *in-flight reference* in the object's header, and the receiver releases it once it has attached. A put
//! that fails releases the references, too. A message that is lost with its receiver leaves its references,
//! which expire after ten minutes.
//!
//! A handle that is serialised outside a `Transit` (into a file, by another transport) takes no reference.
//! Then this process keeps the object mapped until it exits.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::LocalKey;

use crate::header::InFlightReference;
use crate::segment::Segment;

/// The references of one message.
type References = Vec<(Arc<Segment>, InFlightReference)>;

/// The references of open scopes, each with the number of its scope.
type Open = RefCell<Vec<(usize, Arc<Segment>, InFlightReference)>>;

thread_local! {
    /// How many `Transit` scopes are open. A message without handles, as most are, touches nothing but this
    /// and `ANY_SENT`.
    static SENDING: Cell<usize> = const { Cell::new(0) };
    /// Whether `SENT` holds any reference.
    static ANY_SENT: Cell<bool> = const { Cell::new(false) };
    /// The references taken in open `Transit` scopes.
    static SENT: Open = const { RefCell::new(Vec::new()) };
    /// The same three for `Reading`.
    static READING: Cell<usize> = const { Cell::new(0) };
    static ANY_READ: Cell<bool> = const { Cell::new(false) };
    static READ: Open = const { RefCell::new(Vec::new()) };
}

/// A scope in which this thread serialises one message. Every handle in it takes an in-flight reference.
///
/// ```
/// use multiproc_shm::{Transit, Value};
///
/// let value = Value::new(7_u64)?;
/// let transit = Transit::begin();
/// let bytes = postcard::to_stdvec(&value)?;
/// // ... hand `bytes` over; if that worked:
/// transit.sent();
/// drop(value); // the object stays: a message references it
/// let received: Value<u64> = postcard::from_bytes(&bytes)?;
/// assert_eq!(received.get()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped without `sent`, it releases the references"]
pub struct Transit {
    here: PhantomData<*const ()>,
}

impl Transit {
    /// Opens a scope on this thread. Scopes nest.
    #[inline]
    pub fn begin() -> Self {
        SENDING.set(SENDING.get() + 1);
        Self { here: PhantomData }
    }

    /// Ends the scope after the message was sent: its references stay in flight.
    #[inline]
    pub fn sent(self) {
        if ANY_SENT.get() {
            drop(take_scope(SENDING.get(), &SENT, &ANY_SENT));
        }
    }
}

impl Drop for Transit {
    #[inline]
    fn drop(&mut self) {
        if ANY_SENT.get() {
            release(take_scope(SENDING.get(), &SENT, &ANY_SENT));
        }
        SENDING.set(SENDING.get() - 1);
    }
}

/// Removes the references of the innermost scope, which has this number, from the thread's list.
#[cold]
fn take_scope(scope: usize, open: &'static LocalKey<Open>, any: &'static LocalKey<Cell<bool>>) -> References {
    let taken = open.try_with(|open| {
        let mut open = open.borrow_mut();
        let first = open.iter().position(|(of, ..)| *of == scope).unwrap_or(open.len());
        let taken = open.drain(first..).map(|(_, segment, reference)| (segment, reference)).collect();
        any.set(!open.is_empty());
        taken
    });
    taken.unwrap_or_default()
}

fn release(references: References) {
    for (segment, reference) in references {
        segment.release_reference(reference);
    }
}

/// A scope in which this thread reads a message that may have to be read again. The references of its handles
/// stay in flight.
///
/// Otherwise a handle that is read releases its reference, and a second reader would not find an object that
/// no process uses. So a message that is delivered again if its reader dies is read in such a scope. Its
/// references are [released](InFlight::release) once it will not be read again.
#[derive(Debug)]
#[must_use = "dropped without `end`, it leaves the references in flight for ten minutes"]
pub struct Reading {
    here: PhantomData<*const ()>,
}

/// The in-flight references of a message that was read and may be read again. Dropped without
/// [`release`](Self::release), they stay in flight: the next reader finds the objects, for ten minutes.
#[derive(Default)]
pub struct InFlight(References);

impl Reading {
    /// Opens a scope on this thread. Scopes nest.
    #[inline]
    pub fn begin() -> Self {
        READING.set(READING.get() + 1);
        Self { here: PhantomData }
    }

    /// Ends the scope after the message was read, and returns its references.
    #[inline]
    pub fn end(self) -> InFlight {
        InFlight(if ANY_READ.get() { take_scope(READING.get(), &READ, &ANY_READ) } else { References::new() })
    }
}

impl Drop for Reading {
    #[inline]
    fn drop(&mut self) {
        if ANY_READ.get() {
            drop(take_scope(READING.get(), &READ, &ANY_READ));
        }
        READING.set(READING.get() - 1);
    }
}

impl InFlight {
    /// Releases the references: the message will not be read again.
    pub fn release(self) {
        release(self.0);
    }
}

impl fmt::Debug for InFlight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InFlight").field(&self.0.len()).finish()
    }
}

/// Called when a handle with this reference was received: releases it, or leaves that to an open `Reading`.
pub(crate) fn received(segment: &Arc<Segment>, reference: InFlightReference) {
    let scope = READING.get();
    let kept = scope > 0
        && READ.try_with(|read| read.borrow_mut().push((scope, Arc::clone(segment), reference))).is_ok();
    if kept {
        ANY_READ.set(true);
    } else {
        segment.release_reference(reference);
    }
}

/// Takes a reference for a handle in the innermost `Transit`. Outside of every `Transit`, or if all
/// references are taken, returns `NONE`: then this process keeps the object.
pub(crate) fn reference_for(segment: &Arc<Segment>) -> InFlightReference {
    let scope = SENDING.get();
    // In a destructor of another thread-local value the list may have gone. Then it is as outside of every
    // `Transit`.
    let taken = SENT.try_with(|sent| {
        let reference = (scope > 0).then(|| segment.take_reference()).flatten()?;
        sent.borrow_mut().push((scope, Arc::clone(segment), reference));
        ANY_SENT.set(true);
        Some(reference)
    });
    taken.ok().flatten().unwrap_or_else(|| {
        std::mem::forget(Arc::clone(segment));
        InFlightReference::NONE
    })
}
