//! What this process has mapped, and what happens when it stops using an object.
//!
//! A process maps an object once, however often it opens it. A lock is known by its address: through a second
//! mapping a thread would not find that it holds the lock already. Objects in files are identified by their
//! inode, objects in caller-provided memory by the random generation in their header.
//!
//! A forked child begins with a copy of its parent's registry. If another thread had locked the registry at
//! the fork, the child begins with an empty one: that thread does not exist in the child.
//!
//! # The end of a mapping
//!
//! When the last handle of this process is dropped, the object is unmapped, and its name is removed if no
//! other process uses the object. If a thread of this process still owns a lock in the object (a leaked
//! guard), the mapping stays for ever. The kernel will walk the thread's robust list through it.
#![allow(unsafe_code, reason = "a static that a fork replaces, the end of mappings")]

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::gc;
use crate::segment::{Address, Identity, Memory, Segment};

struct Registry {
    process: u32,
    mapped: Mutex<HashMap<Identity, Weak<Segment>>>,
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
        let parent = unsafe { known.as_ref() };
        let inherited = parent.and_then(|parent| parent.mapped.try_lock().map(|mapped| mapped.clone()));
        let fresh =
            Box::into_raw(Box::new(Registry { process, mapped: Mutex::new(inherited.unwrap_or_default()) }));
        if CURRENT.compare_exchange(known, fresh, AcqRel, Acquire).is_err() {
            // SAFETY: no other thread has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

pub(crate) fn find(identity: Identity) -> Option<Arc<Segment>> {
    current().mapped.lock().get(&identity).and_then(Weak::upgrade)
}

pub(crate) fn insert(segment: Segment) -> Arc<Segment> {
    let segment = Arc::new(segment);
    current().mapped.lock().insert(segment.identity, Arc::downgrade(&segment));
    segment
}

/// Inserts a segment unless another thread has inserted the same object before; then returns that thread's.
pub(crate) fn find_or_insert(segment: Segment) -> Arc<Segment> {
    let segment = Arc::new(segment);
    let mut mapped = current().mapped.lock();
    let known = mapped.get(&segment.identity).and_then(Weak::upgrade);
    if known.is_none() {
        mapped.insert(segment.identity, Arc::downgrade(&segment));
    }
    // Unlocked before `segment` is dropped, which takes this lock.
    drop(mapped);
    known.unwrap_or(segment)
}

/// Forgets a segment that is being dropped, unless another mapping of the same object has replaced it.
fn forget(identity: Identity) {
    let mut mapped = current().mapped.lock();
    if mapped.get(&identity).is_some_and(|known| known.strong_count() == 0) {
        mapped.remove(&identity);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        let held = (self.held_here)(self);
        // SAFETY: taken once, here; nothing uses this segment any more.
        let memory = unsafe { ManuallyDrop::take(&mut self.memory) };
        if held {
            // A leaked guard: the thread's robust list leads through the memory. Memory and name stay, known
            // to the registry, until the process ends.
            let kept =
                Self::new(memory, self.address.clone(), self.identity, self.header.clone(), self.held_here);
            std::mem::forget(insert(kept));
            return;
        }
        forget(self.identity);
        match memory {
            // If the descriptor keeps the lock, the lock ends last.
            Memory::Mapped { map, lock } => {
                drop(map);
                drop(lock);
            }
            Memory::Caller(memory) => drop(memory),
        }
        if let (Address::Name(namespace, name), Identity::File(device, inode)) =
            (&self.address, self.identity)
        {
            gc::remove_if_last(namespace, name, (device, inode));
        }
    }
}
