//! Which files are still owed a result. Pure bookkeeping of the parent: no queue, no process.

use std::collections::{HashMap, VecDeque};

use crate::{Part, count::Outcome};

/// Every file is in one of these states, and moves down only, but for the step that [`Ledger::worker_died`] takes back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// In `owed`: to be put into the jobs queue.
    Owed,
    /// Was put; no complete result yet.
    Underway,
    /// Its result was taken. Whatever else arrives about it is a repetition.
    Done,
}

/// The state of every file.
#[derive(Debug)]
pub struct Ledger {
    states: Vec<State>,
    owed: VecDeque<u32>,
    done: usize,
    /// The results that have arrived in part: by file, then by worker and its attempt.
    arriving: HashMap<u32, HashMap<(u32, u32), Vec<u8>>>,
}

impl Ledger {
    /// All `files` are owed.
    pub fn new(files: u32) -> Self {
        let states = vec![State::Owed; files as usize];
        Self { states, owed: (0..files).collect(), done: 0, arriving: HashMap::new() }
    }

    /// How many files are done.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Is every file done?
    pub fn is_complete(&self) -> bool {
        self.done == self.states.len()
    }

    /// The file to be put next.
    pub fn next_owed(&mut self) -> Option<u32> {
        // A file may have been finished while it was owed a second time.
        while self.owed.front().is_some_and(|&file| self.states[file as usize] == State::Done) {
            self.owed.pop_front();
        }
        self.owed.front().copied()
    }

    /// The file that `next_owed` named was put.
    pub fn was_put(&mut self) {
        if let Some(file) = self.owed.pop_front() {
            self.states[file as usize] = State::Underway;
        }
    }

    /// Some worker died: it may have had any of the files that are under way, so all of them are owed again.
    pub fn worker_died(&mut self) {
        for (file, state) in (0..).zip(&mut self.states) {
            if *state == State::Underway {
                *state = State::Owed;
                self.owed.push_back(file);
            }
        }
    }

    /// A part of a result arrived. Returns the outcome when it is complete, and the first for its file.
    pub fn arrived(&mut self, part: Part) -> Result<Option<Outcome>, postcard::Error> {
        if self.states[part.file as usize] == State::Done {
            return Ok(None);
        }
        // The parts of one attempt come from one worker, so in order: the last one completes it.
        let attempts = self.arriving.entry(part.file).or_default();
        let bytes = attempts.entry((part.worker, part.attempt)).or_default();
        bytes.extend(part.bytes);
        if !part.last {
            return Ok(None);
        }
        let outcome = postcard::from_bytes(bytes)?;
        self.arriving.remove(&part.file);
        self.states[part.file as usize] = State::Done;
        self.done += 1;
        Ok(Some(outcome))
    }
}
