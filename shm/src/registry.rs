//! What this process has mapped: an object that is opened twice is mapped once.
//!
//! An object in a file is known by its inode, one in memory of the user's by the random generation in its header.
//!
//! A lock is known by its address, so a thread that had an object mapped twice would not find that it holds the lock already. A forked child therefore begins with a copy
//! of its parent's registry; with an empty one if that was locked at the fork, by a thread that the child does not have.
#![allow(unsafe_code, reason = "one static that a fork replaces")]

use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::segment::Segment;

struct Registry {
    process: u32,
    mapped: Mutex<HashMap<Identity, Weak<Segment>>>,
}

/// What makes an object the same object, seen from one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// Device and inode.
    File(u64, u64),
    /// The generation.
    Memory([u64; 2]),
}

static CURRENT: AtomicPtr<Registry> = AtomicPtr::new(ptr::null_mut());

fn current() -> &'static Registry {
    let process = std::process::id();
    loop {
        let known = CURRENT.load(Acquire);
        // SAFETY: null, or a registry that was leaked below.
        if let Some(registry) = unsafe { known.as_ref() }.filter(|registry| registry.process == process) {
            return registry;
        }
        // SAFETY: as above.
        let inherited = unsafe { known.as_ref() }.and_then(|parents| parents.mapped.try_lock().map(|mapped| mapped.clone()));
        let fresh = Box::into_raw(Box::new(Registry { process, mapped: Mutex::new(inherited.unwrap_or_default()) }));
        if CURRENT.compare_exchange(known, fresh, AcqRel, Acquire).is_err() {
            // SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

pub(crate) fn find(identity: Identity) -> Option<Arc<Segment>> {
    current().mapped.lock().get(&identity).and_then(Weak::upgrade)
}

pub(crate) fn insert(segment: Segment) -> Arc<Segment> {
    let segment = Arc::new(segment);
    current().mapped.lock().insert(segment.identity(), Arc::downgrade(&segment));
    segment
}

/// As [`insert`], unless another thread has been faster with the same object: then its mapping is the one.
pub(crate) fn find_or_insert(segment: Segment) -> Arc<Segment> {
    let segment = Arc::new(segment);
    let mut mapped = current().mapped.lock();
    let known = mapped.get(&segment.identity()).and_then(Weak::upgrade);
    if known.is_none() {
        mapped.insert(segment.identity(), Arc::downgrade(&segment));
    }
    // Before our own is dropped, which asks for the lock.
    drop(mapped);
    known.unwrap_or(segment)
}

/// Forgets a segment that is being dropped, unless another mapping of the same file has taken its place.
pub(crate) fn forget(identity: Identity) {
    let mut mapped = current().mapped.lock();
    if mapped.get(&identity).is_some_and(|known| known.strong_count() == 0) {
        mapped.remove(&identity);
    }
}
