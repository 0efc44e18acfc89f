//! Records which files have a result. Pure bookkeeping of the parent: no queue, no process.

use std::collections::HashMap;

use crate::{Part, count::Outcome};

/// The state of every file.
#[derive(Debug)]
pub struct Ledger {
    /// By file: whether its result was taken. Later results are repetitions.
    done: Vec<bool>,
    /// By file: how often its job was delivered, as far as the parent knows.
    deliveries: Vec<u32>,
    count: usize,
    /// The results that have arrived in part: by file, then by worker and its attempt.
    arriving: HashMap<u32, HashMap<(u32, u32), Vec<u8>>>,
}

impl Ledger {
    /// Returns a ledger of `files` files without results.
    pub fn new(files: usize) -> Self {
        Self { done: vec![false; files], deliveries: vec![0; files], count: 0, arriving: HashMap::new() }
    }

    /// Returns how many files are done.
    pub fn done(&self) -> usize {
        self.count
    }

    /// Returns whether every file is done.
    pub fn is_complete(&self) -> bool {
        self.count == self.done.len()
    }

    /// Returns how often a job was delivered again because its worker died.
    pub fn redelivered(&self) -> u64 {
        self.deliveries.iter().map(|deliveries| u64::from(deliveries.saturating_sub(1))).sum()
    }

    /// Records a part of a result. Returns the outcome if it is complete and the first for its file.
    pub fn arrived(&mut self, part: Part) -> Result<Option<Outcome>, postcard::Error> {
        let file = part.file as usize;
        self.deliveries[file] = self.deliveries[file].max(part.delivery);
        if self.done[file] {
            return Ok(None);
        }
        // The parts of one attempt come from one worker, so in order: the last part completes it.
        let attempts = self.arriving.entry(part.file).or_default();
        let bytes = attempts.entry((part.worker, part.delivery)).or_default();
        bytes.extend(part.bytes);
        if !part.last {
            return Ok(None);
        }
        let outcome = postcard::from_bytes(bytes)?;
        self.arriving.remove(&part.file);
        self.done[file] = true;
        self.count += 1;
        Ok(Some(outcome))
    }
}
