//! Getting: `get`, `get_from`, `get_many`, `get_with`, all over one loop.

use std::sync::atomic::Ordering::Acquire;

use multiproc_robust::planted_bugs::{Bug, is_planted};
use multiproc_robust::{AcquireError, Deadline};

use crate::guard::{ConsumerEnd, ConsumerGuard};
use crate::header::{Cursor, Header, record_words};
use crate::memory::Memory;
use crate::messages::Messages;
use crate::payload::Payload;
use crate::sink::{InPlace, Sink};
use crate::take::Found;
use crate::view::{Refusal, TRIES, View};
use crate::wait::Wait;
use crate::words::Peer;

/// One call takes at most so many messages: other consumers wait for its lock.
const MAX_MESSAGES: usize = 1 << 16;

/// What one step of a get came to, with the lock held.
enum Step<R> {
    /// It is done, and the next record is here.
    Done(R, Cursor),
    /// It skipped an aborted record, and the next record is here.
    Skipped(Cursor),
    /// There is a message of so many bytes, for which there is too little room.
    Longer(usize),
    /// There is nothing yet.
    Nothing,
}

impl<R> Step<R> {
    /// The step that took what was found, or did not; `done` is what the get returns.
    fn of((found, next): (Found, Cursor), done: R) -> Self {
        match found {
            Found::Taken => Self::Done(done, next),
            Found::Aborted => Self::Skipped(next),
            Found::Longer(length) => Self::Longer(length),
            Found::Nothing => Self::Nothing,
        }
    }
}

/// A consumer's guard inside a step. Dropping it leaves, also if a closure of the user's panics.
struct Leaving<'a, M: Memory> {
    guard: Option<ConsumerGuard<'a, M>>,
    moved: bool,
}

impl<M: Memory> Drop for Leaving<'_, M> {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take() {
            guard.leave_after(self.moved);
        }
    }
}

impl<'a, M: Memory> View<'a, M> {
    /// Enters the consumers' side. There is nothing to repair: the head moves by one store.
    #[inline(always)]
    fn enter_consumers(self, deadline: Deadline) -> Result<ConsumerGuard<'a, M>, Refusal> {
        self.enter_as_consumer(deadline, |_| ())
    }

    /// Takes the oldest message out into `message`, whose content is replaced.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    #[inline]
    pub fn get(self, message: &mut impl Sink, deadline: Deadline) -> Result<(), Refusal> {
        self.get_from(message, None, deadline)
    }

    /// Takes the oldest message out, from these peers. If there were such peers, and all have disconnected,
    /// it does not wait.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    #[inline]
    pub fn get_from(
        self,
        message: &mut impl Sink,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(others));
        }
        let guard = self.enter_consumers(deadline)?;
        let head = self.head();
        // ORDER: Acquire pairs with the commit, as in `take`.
        let header = Header::from(self.log().at(head.position).load(Acquire));
        if let Header::Message { length, cpu } = header
            && self.may_be(head, length as usize)
            && message.holds(length as usize)
            && !is_planted(Bug::LengthReadTwice)
        {
            message.clear();
            let next = guard.end().take_this(head, length as usize, cpu, message);
            guard.end().move_head(next);
            guard.leave();
            self.tidy(head, next);
            return Ok(());
        }
        guard.get_slowly(message, others, deadline)
    }

    /// Takes up to `most` of the oldest messages out and appends them to `messages`; waits only for the
    /// first. One call takes no more bytes than `messages` has room for, but at least one message.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn get_many(self, messages: &mut Messages, most: usize, deadline: Deadline) -> Result<(), Refusal> {
        let most = most.min(MAX_MESSAGES);
        if most == 0 {
            return Ok(());
        }
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(None));
        }
        messages.reserve(most);
        let step = |end: ConsumerEnd<'a, M>, head: Cursor, messages: &mut Messages| {
            let mut next = head;
            loop {
                match end.take(next, messages.bytes_mut()) {
                    Ok((Found::Taken, after)) => {
                        messages.end_one();
                        next = after;
                        if next.count.wrapping_sub(head.count) as usize >= most {
                            return Ok(Step::Done((), next));
                        }
                    }
                    _ if next != head => return Ok(Step::Done((), next)),
                    other => return other.map(|found| Step::of(found, ())),
                }
            }
        };
        let make_room = |messages: &mut Messages, length| messages.bytes_mut().try_reserve(length).is_ok();
        self.enter_consumers(deadline)?.get_by_steps(messages, None, deadline, step, make_room)
    }

    /// Shows the oldest message where it lies, with the consumers' lock held, and takes it.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn get_with<R, F: FnOnce(Payload<'a>) -> R>(self, deadline: Deadline, read: F) -> Result<R, Refusal> {
        if deadline == Deadline::NOW && !self.has_data() {
            return Err(self.nothing(None));
        }
        let step = |end: ConsumerEnd<'a, M>, head: Cursor, read: &mut Option<F>| {
            let mut message = InPlace::default();
            let (found, next) = end.take(head, &mut message)?;
            if found != Found::Taken {
                return Ok(Step::of((found, next), None));
            }
            let start = next.position.wrapping_sub(record_words(message.length).ok_or(Refusal::Corrupt)? - 1);
            // CRASH: the message is still there. (A panic unwinds to `Leaving`, and it is still there, too.)
            let result = read.take().map(|read| read(Payload::new(end.log(), start, message.length)));
            if !end.consumers().lock().is_held_by_this_thread() {
                return Err(Refusal::Lock(AcquireError::NotHeld));
            }
            Ok(Step::Done(result, next))
        };
        let result =
            self.enter_consumers(deadline)?.get_by_steps(&mut Some(read), None, deadline, step, |_, _| false);
        result?.ok_or(Refusal::Corrupt)
    }
}

impl<'a, M: Memory> ConsumerGuard<'a, M> {
    /// The rest of a get that did not find what most gets find.
    #[cold]
    #[inline(never)]
    fn get_slowly(
        self,
        message: &mut impl Sink,
        others: Option<Peer>,
        deadline: Deadline,
    ) -> Result<(), Refusal> {
        let step = |end: ConsumerEnd<'a, M>, head, message: &mut _| {
            Sink::clear(message);
            end.take(head, message).map(|found| Step::of(found, ()))
        };
        let make_room = |message: &mut _, length| Sink::make_room(message, length).is_ok();
        self.get_by_steps(message, others, deadline, step, make_room)
    }

    /// The loop of every get: makes steps with the lock held, and waits without it in between, until a step
    /// is done.
    fn get_by_steps<S, R>(
        mut self,
        sink: &mut S,
        others: Option<Peer>,
        deadline: Deadline,
        step: impl Fn(ConsumerEnd<'a, M>, Cursor, &mut S) -> Result<Step<R>, Refusal>,
        make_room: impl Fn(&mut S, usize) -> bool,
    ) -> Result<R, Refusal> {
        let end = self.end();
        let mut wait = Wait::default();
        loop {
            let head = end.head();
            let mut leaving = Leaving { guard: Some(self), moved: false };
            let found = step(end, head, sink)?;
            let mut pause = 0;
            match &found {
                Step::Done(_, next) | Step::Skipped(next) => {
                    end.move_head(*next);
                    leaving.moved = true;
                }
                Step::Nothing => pause = end.next_pause(head),
                Step::Longer(_) => {}
            }
            drop(leaving);
            match found {
                Step::Done(result, next) => {
                    end.tidy(head, next);
                    return Ok(result);
                }
                Step::Skipped(next) => {
                    end.tidy(head, next);
                    wait.skipped += 1;
                    // Only a hostile log has many aborted records, and there a call that must not wait ends
                    // all the same.
                    if wait.skipped > TRIES && deadline.has_passed() {
                        return Err(Refusal::Busy);
                    }
                }
                // Memory is fetched without the lock: an allocator is other people's code.
                Step::Longer(length) if make_room(sink, length) => {}
                Step::Longer(length) => return Err(Refusal::NoMemory(length)),
                Step::Nothing => end.wait_or_end(&mut wait, pause, head, others, deadline)?,
            }
            self = end.enter_consumers(deadline)?;
        }
    }
}
