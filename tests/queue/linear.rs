//! Recorded histories of several processes, and of threads, are those of one FIFO queue: every value, and
//! every *empty*, *full* and *closed*, with and without time-outs, one at a time and many at once.
//!
//! Short histories are tried in all orders (`exact.rs`); long ones are checked for necessary conditions
//! (`history.rs`). The two checkers are compared with each other, on right and on wrong histories.
#![allow(unsafe_code, reason = "asks for the time as a C program does")]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use multiproc::{Barrier, GetError, PutError, Queue};
use serde::{Deserialize, Serialize};

use crate::common::{Dice, Outcome, spawn, value};
use crate::exact::{MOST, is_a_queues};
use crate::history::{Step, What, check, left};
use crate::kit::watchdog;

/// Returns the nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` may be written.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// Calls a queue, and records its answers.
struct Recorder {
    queue: Queue<u64>,
    dice: Dice,
    /// The upper bits of this recorder's values and calls.
    id: u64,
    next: u64,
    calls: u64,
    steps: Vec<Step>,
}

impl Recorder {
    fn new(queue: Queue<u64>, id: u64, seed: u64) -> Self {
        Self { queue, dice: Dice::new(seed << 8 | id), id: id << 32, next: 0, calls: 0, steps: Vec::new() }
    }

    fn record(&mut self, begun: u64, whats: impl IntoIterator<Item = What>) {
        let ended = now();
        self.calls += 1;
        let call = self.id | self.calls;
        self.steps.extend(whats.into_iter().map(|what| Step { call, begun, ended, what }));
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    fn timeout(&mut self) -> Duration {
        Duration::from_nanos(self.dice.below(60_000))
    }

    /// Puts one value, or up to `most` at once. Waits no longer than a short time-out, or without limit if it
    /// `may_wait`.
    fn put(&mut self, most: usize, may_wait: bool) {
        let count = 1 + self.below(most);
        let (how, timeout) = (self.below(if may_wait { 3 } else { 2 }), self.timeout());
        let values: Vec<u64> = (0..count as u64).map(|number| self.id | (self.next + number)).collect();
        self.next += count as u64;
        let begun = now();
        // How many were put, and the refusal of the next.
        let (done, refusal) = if count == 1 {
            let result = match how {
                0 => self.queue.try_put(values[0]),
                1 => self.queue.put_timeout(values[0], timeout),
                _ => self.queue.put(values[0]),
            };
            (usize::from(result.is_ok()), result.err().map(|error| refused(&error)))
        } else {
            let result = match how {
                0 => self.queue.try_put_many(values.clone()),
                1 => self.queue.put_many_timeout(values.clone(), timeout),
                _ => self.queue.put_many(values.clone()),
            };
            let refusal = result.as_ref().err().map(refused);
            (count - result.err().map_or(0, |error| error.into_inner().len()), refusal)
        };
        self.record(begun, values.into_iter().take(done).map(What::Put).chain(refusal.flatten()));
    }

    /// Gets one value, or up to `most` at once. Returns false if the queue is closed and empty.
    fn get(&mut self, most: usize, may_wait: bool) -> bool {
        let (how, timeout) = (self.below(if may_wait { 3 } else { 2 }), self.timeout());
        let begun = now();
        let result = if most == 1 {
            match how {
                0 => self.queue.try_get(),
                1 => self.queue.get_timeout(timeout),
                _ => self.queue.get(),
            }
            .map(|value| vec![value])
        } else {
            match how {
                0 => self.queue.try_get_many(most),
                1 => self.queue.get_many_timeout(most, timeout),
                _ => self.queue.get_many(most),
            }
            .map(|values| values.into_iter().map(Result::unwrap).collect())
        };
        let closed = result == Err(GetError::Closed);
        let what = match result {
            Ok(values) => Some(What::Got(values)),
            Err(GetError::Empty) => Some(What::Empty),
            Err(GetError::Closed) => Some(What::GetClosed),
            Err(GetError::Busy) => None,
            Err(error) => panic!("{error}"),
        };
        self.record(begun, what);
        !closed
    }

    fn close(&mut self) {
        let begun = now();
        self.queue.close();
        self.record(begun, [What::Close]);
    }
}

/// Returns the step that a refusal is.
fn refused<V>(error: &PutError<V>) -> Option<What> {
    match error {
        PutError::Full(_) => Some(What::Full),
        PutError::Closed(_) => Some(What::PutClosed),
        PutError::Busy(_) => None,
        error => panic!("{error}"),
    }
}

/// The calls of each participant in a short history.
#[derive(Clone, Serialize, Deserialize)]
struct Rules {
    capacity: usize,
    calls: usize,
    /// The most values that one call puts or gets.
    at_once: usize,
    closes: bool,
}

/// The number of processes or threads that make a history.
const PARTICIPANTS: u64 = 4;

type Play = (Vec<Queue<u64>>, Barrier, Rules, u64);

/// Records this participant's part of one history after the other, each on a queue of its own; all
/// participants begin together.
fn play((queues, barrier, rules, id): Play) -> Vec<Vec<Step>> {
    let round = |(number, queue): (usize, Queue<u64>)| {
        let mut recorder = Recorder::new(queue, id, number as u64);
        barrier.wait().unwrap();
        for _ in 0..rules.calls {
            let most = if recorder.below(3) == 0 { rules.at_once } else { 1 };
            match recorder.below(20) {
                0 if rules.closes => recorder.close(),
                0..10 => recorder.put(most, false),
                _ => drop(recorder.get(most, false)),
            }
        }
        barrier.wait().unwrap();
        // The first participant takes the rest.
        while id == 0 && !recorder.queue.is_empty() {
            recorder.get(1, false);
        }
        recorder.steps
    };
    queues.into_iter().enumerate().map(round).collect()
}

/// Combines the parts of the participants; each history must be one of a queue.
fn judge(parts: &[Vec<Vec<Step>>], rules: &Rules) {
    let (mut full, mut empty) = (0, 0);
    for round in 0..parts[0].len() {
        let steps: Vec<Step> = parts.iter().flat_map(|part| part[round].clone()).collect();
        let is_there = |what: &What| steps.iter().any(|step| step.what == *what);
        full += usize::from(is_there(&What::Full));
        empty += usize::from(is_there(&What::Empty));
        let capacity = rules.capacity;
        assert_eq!(left(&steps), 0, "{}", listed(&steps));
        check(&steps, Some(capacity)).unwrap_or_else(|fault| panic!("{fault}: {}", listed(&steps)));
        assert!(is_a_queues(&steps, Some(capacity)), "no queue of {capacity} does this: {}", listed(&steps));
    }
    assert!(full > 0 && empty > 0, "too few refusals for a test: {full} full, {empty} empty");
}

const RULES: [Rules; 4] = [
    Rules { capacity: 1, calls: 5, at_once: 1, closes: false },
    Rules { capacity: 2, calls: 6, at_once: 1, closes: true },
    Rules { capacity: 2, calls: 5, at_once: 3, closes: false },
    Rules { capacity: 3, calls: 5, at_once: 3, closes: true },
];
const HISTORIES: usize = 120;

#[test]
fn short_histories_of_processes_are_a_queues() -> Outcome {
    let _watchdog = watchdog();
    for rules in RULES {
        let queues = (0..HISTORIES).map(|_| Queue::new(rules.capacity)).collect::<Result<Vec<_>, _>>()?;
        let barrier = Barrier::new(usize::try_from(PARTICIPANTS)?)?;
        let start = |id| spawn(play, (queues.clone(), barrier.clone(), rules.clone(), id));
        let participants: Vec<_> = (0..PARTICIPANTS).map(start).collect();
        judge(&participants.iter().map(value).collect::<Vec<_>>(), &rules);
    }
    Ok(())
}

#[test]
fn short_histories_of_threads_are_a_queues() -> Outcome {
    let _watchdog = watchdog();
    for rules in RULES {
        let queues = (0..HISTORIES).map(|_| Queue::new(rules.capacity)).collect::<Result<Vec<_>, _>>()?;
        let barrier = Barrier::new(usize::try_from(PARTICIPANTS)?)?;
        let parts: Vec<_> = std::thread::scope(|scope| {
            let start = |id| {
                let given = (queues.clone(), barrier.clone(), rules.clone(), id);
                scope.spawn(move || play(given))
            };
            let threads: Vec<_> = (0..PARTICIPANTS).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        judge(&parts, &rules);
    }
    Ok(())
}

#[test]
fn long_histories_of_processes_are_a_queues() -> Outcome {
    let _watchdog = watchdog();
    const CALLS: usize = 6000;
    for (capacity, at_once) in [(1, 1), (4, 1), (4, 3), (100_000, 5)] {
        let queue = Queue::new(capacity)?;
        type Work = (Queue<u64>, usize, u64);
        fn produce((queue, at_once, id): Work) -> Vec<Step> {
            let mut recorder = Recorder::new(queue, id, 1);
            (0..CALLS).for_each(|_| recorder.put(at_once, true));
            recorder.steps
        }
        fn consume((queue, at_once, id): Work) -> Vec<Step> {
            let mut recorder = Recorder::new(queue, id, 2);
            while recorder.get(at_once, true) {}
            recorder.steps
        }
        let consumers = [2, 3].map(|id| spawn(consume, (queue.clone(), at_once, id)));
        let producers = [0, 1].map(|id| spawn(produce, (queue.clone(), at_once, id)));
        let mut steps = producers.each_ref().map(value).concat();
        let mut recorder = Recorder::new(queue, 4, 3);
        recorder.close();
        steps.extend(recorder.steps);
        steps.extend(consumers.each_ref().map(value).concat());
        assert_eq!(left(&steps), 0);
        check(&steps, Some(capacity))?;
    }
    Ok(())
}

/// Invents a history that a queue can do: each step lies in a call that takes a little longer. `in_parts`:
/// calls may have several steps.
fn invent(dice: &mut Dice, capacity: Option<usize>, in_parts: bool) -> Vec<Step> {
    const SLACK: u64 = 60;
    let mut inside = VecDeque::new();
    let (mut steps, mut next, mut closed) = (Vec::<Step>::new(), 0, false);
    // The calls of one caller do not overlap.
    let mut free = [0_u64; 3];
    let length = 3 + dice.below(9);
    for at in 0..length {
        let moment = 100 + at * 20;
        let caller = usize::try_from(dice.below(3)).unwrap();
        let what = match dice.below(12) {
            0..6 if closed => What::PutClosed,
            0..6 if capacity.is_some_and(|capacity| inside.len() >= capacity) => What::Full,
            0..6 => {
                inside.push_back(next);
                next += 1;
                What::Put(next - 1)
            }
            6 if dice.below(4) == 0 => {
                closed = true;
                What::Close
            }
            _ if inside.is_empty() && closed => What::GetClosed,
            _ if inside.is_empty() => What::Empty,
            _ => What::Got(inside.drain(..1).collect()),
        };
        // As a further part of the caller's last call, or as a call of its own.
        let last = steps.iter().rposition(|step| step.call >> 32 == caller as u64);
        let joins = last.filter(|last| {
            let pair = (&steps[*last].what, &what);
            let alike = matches!(pair, (What::Put(_), What::Put(_)) | (What::Got(_), What::Got(_)));
            in_parts && alike && dice.below(2) == 0
        });
        if let Some(last) = joins {
            let Step { call, begun, .. } = steps[last];
            let ended = moment + dice.below(SLACK);
            steps.iter_mut().filter(|step| step.call == call).for_each(|step| step.ended = ended);
            steps.insert(last + 1, Step { call, begun, ended, what });
            free[caller] = ended + 1;
            continue;
        }
        let begun = (moment - dice.below(SLACK)).max(free[caller]).min(moment);
        let ended = moment + dice.below(SLACK);
        free[caller] = ended + 1;
        steps.push(Step { call: (caller as u64) << 32 | at, begun, ended, what });
    }
    steps
}

/// Returns a history as text, for a message.
fn listed(steps: &[Step]) -> String {
    let line = |step: &Step| format!("\n{:x}: {}-{} {:?}", step.call, step.begun, step.ended, step.what);
    steps.iter().map(line).collect()
}

/// Changes a few steps at random.
fn spoil(steps: &mut [Step], dice: &mut Dice) {
    for _ in 0..dice.below(10) {
        let mut any = || usize::try_from(dice.below(steps.len() as u64)).unwrap();
        let (one, other) = (any(), any());
        let (first, second) = (steps[one].what.clone(), steps[other].what.clone());
        match (first, second) {
            // Exchange the values of two gets, or of two puts.
            (What::Got(first), What::Got(second)) => {
                steps[one].what = What::Got(second);
                steps[other].what = What::Got(first);
            }
            (What::Put(first), What::Put(second)) => {
                steps[one].what = What::Put(second);
                steps[other].what = What::Put(first);
            }
            // Move a call in time.
            _ => {
                let call = steps[one].call;
                let later = dice.below(160);
                for step in steps.iter_mut().filter(|step| step.call == call) {
                    step.begun = (step.begun + later).saturating_sub(80);
                    step.ended = (step.ended + later).saturating_sub(80);
                }
            }
        }
    }
}

#[test]
fn both_checkers_agree() {
    // The same histories in each run, unless `MULTIPROC_SEED` is set.
    let seed = std::env::var("MULTIPROC_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut dice = Dice::new(seed.unwrap_or(1));
    let (mut right, mut wrong, mut unseen) = (0, 0, 0);
    for round in 0..20_000 {
        let capacity = [None, None, Some(1), Some(2)][round % 4];
        let in_parts = round % 8 >= 4;
        let mut steps = invent(&mut dice, capacity, in_parts);
        assert!(is_a_queues(&steps, capacity), "wrongly invented, {capacity:?}: {}", listed(&steps));
        spoil(&mut steps, &mut dice);
        let (exact, fast) = (is_a_queues(&steps, capacity), check(&steps, capacity));
        if exact {
            right += 1;
            assert_eq!(fast, Ok(()), "{capacity:?}: {}", listed(&steps));
        } else {
            wrong += 1;
            // The fast checker misses only faults of capacity, and faults within calls of several steps.
            assert!(fast.is_err() || capacity.is_some() || in_parts, "not found: {}", listed(&steps));
            unseen += usize::from(fast.is_ok());
        }
    }
    assert!(right > 2000 && wrong > 2000, "too few of a kind for a test: {right} right, {wrong} wrong");
    assert!(unseen * 10 < wrong, "{unseen} of {wrong} wrong histories are not found");
}

/// Gives a history in words (`begun-ended what value`) to both checkers, which must agree; returns their
/// answer.
fn both(capacity: Option<usize>, words: &str) -> bool {
    let mut calls = HashMap::new();
    let mut steps = Vec::new();
    for line in words.split(',').map(str::trim) {
        let mut fields = line.split([' ', '-']);
        let mut field = || fields.next().unwrap();
        let (begun, ended, what) = (field().parse().unwrap(), field().parse().unwrap(), field());
        let values: Vec<u64> = fields.map(|value| value.parse().unwrap()).collect();
        let number = calls.len() as u64;
        let call = *calls.entry((begun, ended, what == "put")).or_insert(number);
        let mut step = |what| steps.push(Step { call, begun, ended, what });
        match what {
            "put" => values.into_iter().map(What::Put).for_each(step),
            "got" => step(What::Got(values)),
            "empty" => step(What::Empty),
            "full" => step(What::Full),
            "close" => step(What::Close),
            "putclosed" => step(What::PutClosed),
            "getclosed" => step(What::GetClosed),
            other => panic!("{other}?"),
        }
    }
    assert!(steps.len() <= MOST);
    let exact = is_a_queues(&steps, capacity);
    assert_eq!(exact, check(&steps, capacity).is_ok(), "{words}");
    exact
}

#[test]
fn checkers_allow_any_order_of_overlapping_calls() {
    assert!(both(None, "0-5 put 0, 2-3 put 1, 0-9 got 0, 4-5 got 1, 1-4 empty"));
    assert!(both(Some(1), "0-5 put 0, 2-7 put 1, 3-9 got 0, 8-9 got 1, 6-7 full"));
    assert!(both(None, "0-9 put 0, 3-4 empty, 5-6 empty, 7-20 got 0"));
    assert!(both(Some(3), "0-1 put 0 1 2, 2-3 full, 4-5 got 0 1, 6-7 got 2, 8-9 empty"));
    assert!(both(None, "0-1 put 0, 2-5 close, 3-4 put 1, 6-7 putclosed, 6-8 got 0 1, 7-9 getclosed"));
}

#[test]
fn checkers_find_values_out_of_order() {
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 8-9 got 0, 4-5 got 1"));
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 4-5 got 1"));
    assert!(!both(None, "0-1 put 0 1, 2-3 got 1, 4-5 got 0"));
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 4-5 got 1 0"));
    assert!(!both(None, "0-9 put 0 1, 10-15 got 1 0"));
}

#[test]
fn checkers_find_duplicates_losses_and_inventions() {
    assert!(!both(None, "0-1 put 0, 2-3 got 0, 4-5 got 0"));
    assert!(!both(None, "0-1 put 0, 2-3 got 7"));
    assert!(!both(None, "5-6 put 0, 2-3 got 0"));
    assert_eq!(left(&[Step { call: 0, begun: 0, ended: 1, what: What::Put(0) }]), 1);
}

#[test]
fn checkers_find_a_false_empty() {
    assert!(!both(None, "0-1 put 0, 2-3 empty, 4-5 got 0"));
    // At every moment one of the two is inside, though neither is all the time.
    assert!(!both(None, "0-1 put 0, 4-5 put 1, 2-9 empty, 6-7 got 0, 10-11 got 1"));
    assert!(both(None, "0-1 put 0, 4-7 put 1, 2-9 empty, 6-7 got 0, 10-11 got 1"));
    // Of two values that one call puts, the first is inside when the second is got.
    assert!(!both(None, "0-20 put 0 1, 2-3 got 1, 4-5 empty, 8-9 got 0"));
}

#[test]
fn checkers_find_a_false_full() {
    assert!(!both(Some(2), "0-1 put 0, 2-3 full, 4-5 got 0"));
    assert!(!both(Some(1), "0-1 put 0, 2-3 got 0, 4-5 full"));
    assert!(!both(Some(1), "0-1 put 0, 2-3 put 1, 4-5 got 0, 6-7 got 1"));
    assert!(both(Some(1), "0-1 put 0, 2-4 put 1, 3-5 got 0, 6-7 got 1"));
}

#[test]
fn checkers_find_a_false_closed() {
    assert!(!both(None, "0-1 put 0, 2-3 putclosed, 4-5 close"));
    assert!(!both(None, "0-1 close, 2-3 put 0"));
    assert!(!both(None, "0-1 close, 2-3 empty"));
    assert!(!both(None, "0-1 put 0, 2-3 close, 4-5 getclosed, 6-7 got 0"));
    assert!(!both(None, "0-1 getclosed"));
}
