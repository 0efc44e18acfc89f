//! Putting: `put`, `put_to`, `put_many`; and closing.

use std::sync::atomic::Ordering::SeqCst;

use multiproc_robust::Deadline;

use crate::guard::ProducerGuard;
use crate::header::record_words;
use crate::memory::Memory;
use crate::messages::Messages;
use crate::record::Appended;
use crate::view::{Refusal, View};
use crate::wait::Wait;
use crate::words::Peer;

impl<M: Memory> View<'_, M> {
    /// Appends a message.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    #[inline]
    pub fn put(self, message: &[u8], deadline: Deadline) -> Result<(), Refusal> {
        self.put_to(message, None, deadline)
    }

    /// Appends a message for these peers. If there were such peers, and all have disconnected, it is refused.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    #[inline]
    pub fn put_to(self, message: &[u8], others: Option<Peer>, deadline: Deadline) -> Result<(), Refusal> {
        let need = self.words_for(message)?;
        if others.is_some_and(|others| self.are_disconnected(others)) {
            return Err(Refusal::Closed);
        }
        let guard = self.enter_producers(deadline)?;
        match guard.end().append(message, need, || deadline == Deadline::NOW) {
            Ok(Appended::Yes) => {
                guard.leave();
                Ok(())
            }
            not => guard.put_slowly(not, message, need, others, deadline),
        }
    }

    /// Appends messages in their order, as many at a time as there is room for. `done` counts them, also if
    /// it fails.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn put_many(self, messages: &Messages, done: &mut usize, deadline: Deadline) -> Result<(), Refusal> {
        let mut wait = Wait::default();
        while *done < messages.len() {
            let guard = self.enter_producers(deadline)?;
            let mut result = Ok(Appended::Yes);
            let (mut need, before) = (0, *done);
            while let Some(message) = messages.get(*done) {
                result = self.words_for(message).and_then(|words| {
                    need = words;
                    guard.end().append(message, words, || wait.may_grow || deadline == Deadline::NOW)
                });
                if result != Ok(Appended::Yes) {
                    guard.end().pass_on_room();
                    break;
                }
                *done += 1;
                wait = Wait::default();
            }
            if *done == before {
                guard.leave_without_progress()
            } else {
                guard.leave()
            }
            match result? {
                Appended::Yes => {}
                not => self.wait_to_append(not, &mut wait, need, None, deadline)?,
            }
        }
        Ok(())
    }

    /// Closes the ring: no more puts, and gets go on until the log is empty. Idempotent.
    pub fn close(self) {
        let guard = self.enter_producers(Deadline::NEVER);
        if guard.is_ok() {
            self.producers().set_waiters_bit();
        }
        // CRASH: the commit. The lock is held, with `W` set, so the kernel wakes one thread that watches it,
        // and that thread notifies the others. (A thread that can take no lock, because it holds a thousand,
        // closes all the same; only, no thread repeats its wake-ups if it dies now.)
        self.producer_words().closed.store(1, SeqCst);
        self.notify_everyone();
        if let Ok(guard) = guard {
            guard.leave();
        }
    }

    /// The words of a record with this message.
    fn words_for(self, message: &[u8]) -> Result<u32, Refusal> {
        self.words_for_length(message.len())
    }

    /// The words of a record with a message of this length.
    pub(crate) fn words_for_length(self, length: usize) -> Result<u32, Refusal> {
        record_words(length).filter(|_| length <= self.log().sizes.longest()).ok_or(Refusal::TooLarge)
    }
}

impl<M: Memory> ProducerGuard<'_, M> {
    /// Having found no room: waits for some, and tries again.
    #[cold]
    #[inline(never)]
    fn put_slowly(
        mut self,
        mut done: Result<Appended, Refusal>,
        message: &[u8],
        need: u32,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let view = *self.end();
        let mut wait = Wait::default();
        while done != Ok(Appended::Yes) {
            self.end().pass_on_room();
            self.leave_without_progress();
            view.wait_to_append(done?, &mut wait, need, others, deadline)?;
            self = view.enter_producers(deadline)?;
            done = self.end().append(message, need, || wait.may_grow || deadline == Deadline::NOW);
        }
        self.leave();
        Ok(())
    }
}
