//! Handles on their way from one process to another.
//!
//! A handle in a message is a name; between the sender's drop and the receiver's open nobody would have the object mapped, and it would be swept. So serialising a handle inside a
//! [`Transit`] takes a one-time *ticket* in the object's header, which the reader gives back once it has attached. A put that fails rolls the tickets back. A message that
//! is lost with its reader leaves its ticket, which expires after ten minutes.
//!
//! Serialised outside a `Transit` (into a file, by a foreign transport) a handle takes no ticket: this process then keeps the object until it exits.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::LocalKey;

use crate::header::Ticket;
use crate::segment::Segment;

/// The tickets that one message took.
type Taken = Vec<(Arc<Segment>, Ticket)>;

thread_local! {
    /// How many scopes are open. Most messages have no handle in them, and need no more than this.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Whether there is something in `OPEN`.
    static ANY: Cell<bool> = const { Cell::new(false) };
    /// What was taken in open scopes.
    static OPEN: Open = const { RefCell::new(Vec::new()) };
    /// The same of [`Reading`].
    static READERS: Cell<usize> = const { Cell::new(0) };
    static ANY_READ: Cell<bool> = const { Cell::new(false) };
    static READ: Open = const { RefCell::new(Vec::new()) };
}

/// Tickets, each with the number of its scope.
type Open = RefCell<Vec<(usize, Arc<Segment>, Ticket)>>;

/// The time in which this thread serialises one message. Every handle in it takes a ticket.
///
/// ```
/// use multiproc_shm::{Transit, Value};
///
/// let value = Value::new(7_u64)?;
/// let transit = Transit::begin();
/// let bytes = postcard::to_stdvec(&value)?;
/// // ... hand `bytes` over; if that worked:
/// transit.sent();
/// drop(value); // the object stays: its ticket is out
/// let arrived: Value<u64> = postcard::from_bytes(&bytes)?;
/// assert_eq!(arrived.get()?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropped without `sent`, it takes the tickets back"]
pub struct Transit {
    here: PhantomData<*const ()>,
}

impl Transit {
    /// Opens a scope on this thread; scopes nest.
    #[inline]
    pub fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self { here: PhantomData }
    }

    /// The message is on its way: the tickets stay with it.
    #[inline]
    pub fn sent(self) {
        if ANY.get() {
            drop(taken_in(DEPTH.get(), &OPEN, &ANY));
        }
    }
}

impl Drop for Transit {
    #[inline]
    fn drop(&mut self) {
        if ANY.get() {
            for (segment, ticket) in taken_in(DEPTH.get(), &OPEN, &ANY) {
                segment.return_ticket(ticket);
            }
        }
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// Forgets what was taken in this scope, the innermost.
#[cold]
fn taken_in(scope: usize, open: &'static LocalKey<Open>, any: &'static LocalKey<Cell<bool>>) -> Taken {
    let taken = open.try_with(|open| {
        let mut open = open.borrow_mut();
        let first = open.iter().position(|(of, ..)| *of == scope).unwrap_or(open.len());
        let taken = open.drain(first..).map(|(_, segment, ticket)| (segment, ticket)).collect();
        any.set(!open.is_empty());
        taken
    });
    taken.unwrap_or_default()
}

/// The time in which this thread reads a message that may have to be read again: the tickets of the handles in it stay out.
///
/// A handle that is read ends its ticket's life; a second reader would find the object gone if nobody else has it. What is delivered once more when its reader dies is therefore read in such a scope, and its
/// tickets are [redeemed](Tickets::redeem) when it will not be read again.
#[derive(Debug)]
#[must_use = "dropped, it leaves the tickets out, and nobody can redeem them"]
pub struct Reading {
    here: PhantomData<*const ()>,
}

/// Tickets of a message that was read, and may be read again. Dropped, they stay out: the next reader finds the objects, for ten minutes.
#[derive(Default)]
pub struct Tickets(Taken);

impl Reading {
    /// Opens a scope on this thread; scopes nest.
    #[inline]
    pub fn begin() -> Self {
        READERS.set(READERS.get() + 1);
        Self { here: PhantomData }
    }

    /// The message was read.
    #[inline]
    pub fn end(self) -> Tickets {
        Tickets(if ANY_READ.get() { taken_in(READERS.get(), &READ, &ANY_READ) } else { Taken::new() })
    }
}

impl Drop for Reading {
    #[inline]
    fn drop(&mut self) {
        if ANY_READ.get() {
            drop(taken_in(READERS.get(), &READ, &ANY_READ));
        }
        READERS.set(READERS.get() - 1);
    }
}

impl Tickets {
    /// The message will not be read again.
    pub fn redeem(self) {
        for (segment, ticket) in self.0 {
            segment.return_ticket(ticket);
        }
    }
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Tickets").field(&self.0.len()).finish()
    }
}

/// A handle has arrived with this ticket.
pub(crate) fn arrived(segment: &Arc<Segment>, ticket: Ticket) {
    let scope = READERS.get();
    let kept = scope > 0 && READ.try_with(|read| read.borrow_mut().push((scope, Arc::clone(segment), ticket))).is_ok();
    if kept {
        ANY_READ.set(true);
    } else {
        segment.return_ticket(ticket);
    }
}

/// A ticket for this object in the innermost scope; none (slot 255) outside of every scope or when all are out: then the process keeps the object.
pub(crate) fn ticket_for(segment: &Arc<Segment>) -> Ticket {
    let depth = DEPTH.get();
    // In a destructor of another thread-local value the scopes may be gone: then handles are kept, as outside of every scope.
    let taken = OPEN.try_with(|open| {
        let ticket = (depth > 0).then(|| segment.take_ticket()).flatten()?;
        open.borrow_mut().push((depth, Arc::clone(segment), ticket));
        ANY.set(true);
        Some(ticket)
    });
    taken.ok().flatten().unwrap_or_else(|| {
        std::mem::forget(Arc::clone(segment));
        Ticket::from_wire((u8::MAX, 0))
    })
}
