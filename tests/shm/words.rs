//! An object with all wait words, for tests in which processes wait for each other.
#![allow(unsafe_code, reason = "the promise of an object's layout")]

use std::sync::atomic::AtomicU64;

use multiproc::Options;
use multiproc::robust::{EventCount, RawEvent, RobustLock, Side};
use multiproc::shm::{Error, Handle, Object, Shared};
use serde::{Deserialize, Serialize};

/// It begins as zeros.
#[repr(C, align(64))]
pub(crate) struct WordsBlock {
    pub(crate) puts: Side,
    pub(crate) takes: Side,
    pub(crate) count: EventCount,
    reserved: u32,
    pub(crate) event: RawEvent,
    pub(crate) cells: [AtomicU64; 5],
}

// SAFETY: `repr(C)`, atomics and integers of fixed width; always the same size; `locks` returns both locks.
unsafe impl Object for WordsBlock {
    const KIND: &'static str = "test words";
    const LAYOUT: u32 = 1;
    type Params = ();

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [Some(self.puts.lock()), Some(self.takes.lock())]
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Words(Shared<WordsBlock>);

impl Handle for Words {
    type Object = WordsBlock;

    fn from_shared(shared: Shared<WordsBlock>) -> Self {
        Self(shared)
    }

    fn shared(&self) -> Option<&Shared<WordsBlock>> {
        Some(&self.0)
    }
}

impl Words {
    pub(crate) fn new() -> Result<Self, Error> {
        Options::new().anonymous(())
    }
}

impl std::ops::Deref for Words {
    type Target = WordsBlock;

    fn deref(&self) -> &WordsBlock {
        &self.0
    }
}
