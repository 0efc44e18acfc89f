//! Dead letters: a second log, whose both ends belong to whoever holds the consumers' lock of the queue.

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

use multiproc_robust::Deadline;

use super::{BURYING, JobView, Last, Letter, OUT, REVIVING, high, word};
use crate::jobs::block::{Jobs, MORGUE_HOME, RECORD};
use multiproc_ring::{Appended, Cursor, Found, HEAD, Memory, Refusal, TAIL, View, record_words};

impl<M: Jobs> JobView<'_, M> {
    /// Dead letters, from the oldest on.
    pub(crate) fn letters(self, most: usize) -> Result<Vec<Letter>, Refusal> {
        self.in_morgue(Vec::new(), |dead| {
            let head = Cursor::load(dead.consumer(HEAD));
            let mut next = head;
            let mut letters = Vec::new();
            // No two lie in the same words, and none where there is no memory: a log that somebody has bent to a circle has an end, too.
            let sizes = dead.log().sizes;
            let mut room = dead.top().clamp(sizes.home, sizes.span);
            while letters.len() < most
                && let Some((letter, after)) = read_letter(dead, next)?
            {
                let words = record_words(letter.message.len() + RECORD).unwrap_or(u32::MAX);
                room = room.checked_sub(words).ok_or(Refusal::Corrupt)?;
                letters.push(letter);
                next = after;
            }
            Ok(letters)
        })
    }

    /// Takes the oldest dead letter out.
    pub(crate) fn take_letter(self) -> Result<Option<Letter>, Refusal> {
        self.in_morgue(None, |dead| {
            let head = Cursor::load(dead.consumer(HEAD));
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            dead.move_head(next);
            dead.tidy(head, next);
            Ok(Some(letter))
        })
    }

    /// Makes the oldest dead letter a job again that nobody has had yet; false when there is none, or no slot for it.
    pub(crate) fn revive_letter(self) -> Result<bool, Refusal> {
        let revived = self.in_morgue(None, |dead| {
            let head = Cursor::load(dead.consumer(HEAD));
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            let Some(slot) = self.claim()? else { return Ok(None) };
            if let Err(refusal) = self.fill_slot(slot, &letter.message, 0) {
                self.give_back_job(slot);
                return Err(refusal);
            }
            self.set_state(slot, REVIVING | u64::from(head.count) << 32);
            // Between the slot and the commit: who looks whether all is done, and has seen the slot free, sees this move.
            self.leases().revived.fetch_add(1, SeqCst);
            // CRASH: the commit.
            dead.move_head(next);
            self.set_state(slot, OUT);
            dead.tidy(head, next);
            Ok(Some(slot))
        })?;
        // CRASH: it comes back in any case.
        Ok(revived.is_some_and(|slot| self.give_back_job(slot)))
    }

    /// How many dead letters there are.
    pub(crate) fn letter_count(self) -> usize {
        if self.has_morgue() { View { memory: &self.memory.morgue() }.len() } else { 0 }
    }

    /// How many jobs have become dead letters so far.
    pub(super) fn dead_lettered(self) -> u64 {
        if self.has_morgue() { View { memory: &self.memory.morgue() }.counters().puts } else { 0 }
    }

    /// Whether there is memory to look at.
    fn has_morgue(self) -> bool {
        self.leases().morgue.load(Relaxed) != 0
    }

    /// With the lock of the consumers, as who alone may touch the dead letters; `none` where there never was one.
    fn in_morgue<R>(self, none: R, work: impl FnOnce(View<'_, M::Morgue<'_>>) -> Result<R, Refusal>) -> Result<R, Refusal> {
        self.enter(&self.ring().consumers, Deadline::NEVER, || self.recover_leases())?;
        let morgue = self.memory.morgue();
        let result = if self.has_morgue() { work(View { memory: &morgue }) } else { Ok(none) };
        self.leave_consumers_of_jobs(false);
        result
    }

    /// With the consumers' lock and the slot's: makes the job a dead letter; false when there is no memory for it, and the slot is still held.
    #[cold]
    pub(super) fn bury_job(self, slot: usize, message: &[u8], letter: Letter) -> bool {
        if !self.has_morgue() && self.open_morgue().is_err() {
            return false;
        }
        let morgue = self.memory.morgue();
        let dead = View { memory: &morgue };
        let record = written(&letter, message);
        let Some(need) = record_words(record.len()) else { return false };
        let tail = Cursor::load(dead.producer(TAIL));
        self.set_state(slot, BURYING | u64::from(tail.count) << 32);
        // CRASH: the commit is in `append`.
        if dead.append(&record[..], need, || true) != Ok(Appended::Yes) {
            self.set_state(slot, OUT);
            return false;
        }
        self.finish(slot)
    }

    /// With the consumers' lock: the dead letters' log gets its first memory.
    #[cold]
    pub(super) fn open_morgue(self) -> Result<(), Refusal> {
        let morgue = self.memory.morgue();
        morgue.populate(0..MORGUE_HOME).map_err(|_| Refusal::NoSpace)?;
        // CRASH: memory, not noted: once more.
        self.leases().morgue.store(1, Relaxed);
        Ok(())
    }
}

/// A letter as it lies in the dead letters' log: deliveries and how it came back, who had it last, the job.
fn written(letter: &Letter, message: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(RECORD + message.len());
    let first = u64::from(letter.deliveries) | u64::from(letter.last.died) << 32;
    record.extend_from_slice(&first.to_ne_bytes());
    record.extend_from_slice(&letter.last.holder.to_ne_bytes());
    record.extend_from_slice(message);
    record
}

/// With the consumers' lock of the queue: the dead letter at this place, and where the next one is.
fn read_letter<D: Memory>(dead: View<'_, D>, place: Cursor) -> Result<Option<(Letter, Cursor)>, Refusal> {
    let mut record = Vec::new();
    loop {
        match dead.take(place, &mut record)? {
            (Found::Taken, next) => {
                let (first, holder, message) = parts(&record).ok_or(Refusal::Corrupt)?;
                let last = Last { holder, died: high(first) != 0 };
                return Ok(Some((Letter { deliveries: word(first), last, message: message.to_vec() }, next)));
            }
            (Found::Longer(length), _) => record.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?,
            (Found::Nothing, _) => return Ok(None),
            // Nobody can reserve here.
            (Found::Hole, _) => return Err(Refusal::Corrupt),
        }
    }
}

fn parts(record: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (first, rest) = record.split_first_chunk()?;
    let (second, message) = rest.split_first_chunk()?;
    Some((u64::from_ne_bytes(*first), u64::from_ne_bytes(*second), message))
}
