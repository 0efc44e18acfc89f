//! Which files have a result. Pure bookkeeping of the parent: no queue, no process.

use std::collections::HashMap;

use crate::{Part, count::Outcome};

/// What is known of every file.
#[derive(Debug)]
pub struct Ledger {
    /// By file: whether its result was taken. Whatever else arrives about it is a repetition.
    done: Vec<bool>,
    /// By file: how often its job was handed out, as far as that is known.
    deliveries: Vec<u32>,
    count: usize,
    /// The results that have arrived in part: by file, then by worker and its attempt.
    arriving: HashMap<u32, HashMap<(u32, u32), Vec<u8>>>,
}

impl Ledger {
    /// Nothing is known of `files` files.
    pub fn new(files: usize) -> Self {
        Self { done: vec![false; files], deliveries: vec![0; files], count: 0, arriving: HashMap::new() }
    }

    /// How many files are done.
    pub fn done(&self) -> usize {
        self.count
    }

    /// Is every file done?
    pub fn is_complete(&self) -> bool {
        self.count == self.done.len()
    }

    /// How often a job was handed out again, because whoever had it died.
    pub fn redelivered(&self) -> u64 {
        self.deliveries.iter().map(|deliveries| u64::from(deliveries.saturating_sub(1))).sum()
    }

    /// A part of a result arrived. Returns the outcome when it is complete, and the first for its file.
    pub fn arrived(&mut self, part: Part) -> Result<Option<Outcome>, postcard::Error> {
        let file = part.file as usize;
        self.deliveries[file] = self.deliveries[file].max(part.delivery);
        if self.done[file] {
            return Ok(None);
        }
        // The parts of one attempt come from one worker, so in order: the last one completes it.
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
