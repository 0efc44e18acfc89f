//! Dead letters: a second log. The consumers' lock of the queue guards both its ends.

use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};

use multiproc_ring::{Appended, ConsumerEnd, Cursor, Found, Memory, Refusal, View, record_words};
use multiproc_robust::{Deadline, high, low};

use super::{FROM_LETTERS, JobEnd, JobView, LEASED, Last, Letter, TO_LETTERS};
use crate::jobs::block::{Jobs, LETTER_HEADER, LETTERS_INITIAL};

impl<M: Jobs> JobView<'_, M> {
    /// Returns dead letters, the oldest first.
    pub(crate) fn letters(self, most: usize) -> Result<Vec<Letter>, Refusal> {
        self.with_letters(Vec::new(), |_, dead| {
            let mut next = dead.head();
            let mut letters = Vec::new();
            // No two lie in the same words, and none where there is no memory: a log that a peer has bent to
            // a circle has an end, too.
            let mut room = dead.words_with_memory();
            while letters.len() < most
                && let Some((letter, after)) = read_letter(dead, next)?
            {
                let words = record_words(letter.message.len() + LETTER_HEADER).unwrap_or(u32::MAX);
                room = room.checked_sub(words).ok_or(Refusal::Corrupt)?;
                letters.push(letter);
                next = after;
            }
            Ok(letters)
        })
    }

    /// Takes the oldest dead letter.
    pub(crate) fn take_letter(self) -> Result<Option<Letter>, Refusal> {
        self.with_letters(None, |_, dead| {
            let head = dead.head();
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            dead.move_head(next);
            dead.tidy(head, next);
            Ok(Some(letter))
        })
    }

    /// Makes the oldest dead letter a job again, with no deliveries. False if there is none, or no free lease
    /// for it.
    pub(crate) fn replay_letter(self) -> Result<bool, Refusal> {
        let replayed = self.with_letters(None, |jobs, dead| {
            let head = dead.head();
            let Some((letter, next)) = read_letter(dead, head)? else { return Ok(None) };
            let Some(number) = jobs.claim_free()? else { return Ok(None) };
            if let Err(refusal) = jobs.fill(number, &letter.message, 0) {
                jobs.give_back_job(number);
                return Err(refusal);
            }
            jobs.set_state(number, FROM_LETTERS | u64::from(head.count) << 32);
            // ORDER: SeqCst pairs with the looks in `is_finished`; between the lease and the commit. A thread
            // that looks whether all is done, and has seen the lease free, sees that this has moved.
            jobs.leases().replayed.fetch_add(1, SeqCst);
            // CRASH: the commit.
            dead.move_head(next);
            jobs.set_state(number, LEASED);
            dead.tidy(head, next);
            Ok(Some(number))
        })?;
        // CRASH: the job comes back in any case.
        Ok(replayed.is_some_and(|number| self.give_back_job(number)))
    }

    /// Returns how many dead letters there are.
    pub(crate) fn letter_count(self) -> usize {
        if self.has_letters() { View::new(&self.memory.dead_letters()).len() } else { 0 }
    }

    /// Returns how many jobs have ever become dead letters.
    pub(super) fn dead_lettered(self) -> u64 {
        if self.has_letters() { View::new(&self.memory.dead_letters()).counters().puts } else { 0 }
    }

    /// Whether the dead-letter log has memory to look at.
    pub(super) fn has_letters(self) -> bool {
        self.leases().has_letters.load(Relaxed) != 0
    }

    /// Works on the dead letters with the consumers' lock; returns `none` if there never was a dead letter.
    fn with_letters<R>(
        self,
        none: R,
        work: impl FnOnce(JobEnd<'_, M>, ConsumerEnd<'_, M::DeadLetters<'_>>) -> Result<R, Refusal>,
    ) -> Result<R, Refusal> {
        let guard = self.enter(Deadline::NEVER)?;
        let letters = self.memory.dead_letters();
        let result = if self.has_letters() {
            work(guard.end(), View::new(&letters).ends_guarded_elsewhere().1)
        } else {
            Ok(none)
        };
        guard.leave(true);
        result
    }
}

impl<M: Jobs> JobEnd<'_, M> {
    /// With the lease's claim: makes its job a dead letter. False if there is no memory for it; then the
    /// claim is still held.
    #[cold]
    pub(super) fn make_dead_letter(self, number: usize, message: &[u8], letter: &Letter) -> bool {
        if !self.has_letters() && self.open_letters().is_err() {
            return false;
        }
        let letters = self.memory.dead_letters();
        let (dead, _) = View::new(&letters).ends_guarded_elsewhere();
        let record = written(letter, message);
        let Some(need) = record_words(record.len()) else { return false };
        self.set_state(number, TO_LETTERS | u64::from(dead.tail().count) << 32);
        // CRASH: the commit is in `append`.
        if dead.append(&record[..], need, || true) != Ok(Appended::Yes) {
            self.set_state(number, LEASED);
            return false;
        }
        self.finish(number)
    }

    /// Gives the dead-letter log its first memory.
    #[cold]
    fn open_letters(self) -> Result<(), Refusal> {
        self.memory.dead_letters().populate(0..LETTERS_INITIAL).map_err(|_| Refusal::NoSpace)?;
        // CRASH: memory, not noted: it is set aside once more.
        self.leases().has_letters.store(1, Relaxed);
        Ok(())
    }
}

/// Returns a dead letter as it lies in its log: deliveries and whether the holder died, the last holder, the
/// job.
fn written(letter: &Letter, message: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(LETTER_HEADER + message.len());
    let first = u64::from(letter.deliveries) | u64::from(letter.last.died) << 32;
    record.extend_from_slice(&first.to_ne_bytes());
    record.extend_from_slice(&letter.last.holder.to_ne_bytes());
    record.extend_from_slice(message);
    record
}

/// Returns the dead letter at this cursor, and the cursor of the next one.
fn read_letter<D: Memory>(dead: ConsumerEnd<'_, D>, at: Cursor) -> Result<Option<(Letter, Cursor)>, Refusal> {
    let mut record = Vec::new();
    loop {
        match dead.take(at, &mut record)? {
            (Found::Taken, next) => {
                let (first, holder, message) = parts(&record).ok_or(Refusal::Corrupt)?;
                let last = Last { holder, died: high(first) != 0 };
                return Ok(Some((Letter { deliveries: low(first), last, message: message.to_vec() }, next)));
            }
            (Found::Longer(length), _) => {
                record.try_reserve(length).map_err(|_| Refusal::NoMemory(length))?
            }
            (Found::Nothing, _) => return Ok(None),
            // There are no reservations here.
            (Found::Aborted, _) => return Err(Refusal::Corrupt),
        }
    }
}

fn parts(record: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (first, rest) = record.split_first_chunk()?;
    let (second, message) = rest.split_first_chunk()?;
    Some((u64::from_ne_bytes(*first), u64::from_ne_bytes(*second), message))
}
