//! Recorded histories of several processes, and of threads, are those of one FIFO queue: every value, and every *empty*, *full* and *closed*, with and without time-outs, one by one and many at once.
//! Short ones are tried in all orders (`exact.rs`), long ones by what can be told quickly (`history.rs`); and the two checkers are held against each other, on right and on wrong histories.
#![allow(unsafe_code, reason = "asks for the time as a C program does")]

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use multiproc::{Barrier, GetError, PutError, Queue};
use serde::{Deserialize, Serialize};

use crate::common::{Dice, Outcome, spawn, value};
use crate::exact::{MOST, is_a_queues};
use crate::history::{Step, What, check, left};
use crate::kit::watchdog;

/// Nanoseconds of a clock that all processes share.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap()
}

/// Who calls a queue, and writes down what it answers.
struct Scribe {
    queue: Queue<u64>,
    dice: Dice,
    /// Above the values and calls of this one.
    me: u64,
    next: u64,
    calls: u64,
    steps: Vec<Step>,
}

impl Scribe {
    fn new(queue: Queue<u64>, me: u64, seed: u64) -> Self {
        Self { queue, dice: Dice::new(seed << 8 | me), me: me << 32, next: 0, calls: 0, steps: Vec::new() }
    }

    fn note(&mut self, begun: u64, whats: impl IntoIterator<Item = What>) {
        let ended = now();
        self.calls += 1;
        let call = self.me | self.calls;
        self.steps.extend(whats.into_iter().map(|what| Step { call, begun, ended, what }));
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    fn moment(&mut self) -> Duration {
        Duration::from_nanos(self.dice.below(60_000))
    }

    /// Puts one, or up to `most` at once; waits at most a moment, or, if it `may_wait`, as long as it takes.
    fn put(&mut self, most: usize, may_wait: bool) {
        let count = 1 + self.below(most);
        let (how, moment) = (self.below(if may_wait { 3 } else { 2 }), self.moment());
        let values: Vec<u64> = (0..count as u64).map(|number| self.me | (self.next + number)).collect();
        self.next += count as u64;
        let begun = now();
        // How many went in, and what was said of the next.
        let (done, refusal) = if count == 1 {
            let result = match how {
                0 => self.queue.try_put(values[0]),
                1 => self.queue.put_timeout(values[0], moment),
                _ => self.queue.put(values[0]),
            };
            (usize::from(result.is_ok()), result.err().map(|error| refused(&error)))
        } else {
            let result = match how {
                0 => self.queue.try_put_many(values.clone()),
                1 => self.queue.put_many_timeout(values.clone(), moment),
                _ => self.queue.put_many(values.clone()),
            };
            let refusal = result.as_ref().err().map(refused);
            (count - result.err().map_or(0, |error| error.into_inner().len()), refusal)
        };
        self.note(begun, values.into_iter().take(done).map(What::Put).chain(refusal.flatten()));
    }

    /// Gets one, or up to `most` at once. Tells false when it is closed.
    fn get(&mut self, most: usize, may_wait: bool) -> bool {
        let (how, moment) = (self.below(if may_wait { 3 } else { 2 }), self.moment());
        let begun = now();
        let result = if most == 1 {
            match how {
                0 => self.queue.try_get(),
                1 => self.queue.get_timeout(moment),
                _ => self.queue.get(),
            }
            .map(|value| vec![value])
        } else {
            match how {
                0 => self.queue.try_get_many(most),
                1 => self.queue.get_many_timeout(most, moment),
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
        self.note(begun, what);
        !closed
    }

    fn close(&mut self) {
        let begun = now();
        self.queue.close();
        self.note(begun, [What::Close]);
    }
}

/// What a refusal says of the queue.
fn refused<V>(error: &PutError<V>) -> Option<What> {
    match error {
        PutError::Full(_) => Some(What::Full),
        PutError::Closed(_) => Some(What::PutClosed),
        PutError::Busy(_) => None,
        error => panic!("{error}"),
    }
}

/// What each does in a short history.
#[derive(Clone, Serialize, Deserialize)]
struct Rules {
    capacity: usize,
    calls: usize,
    /// Values that one call puts or gets, at most.
    at_once: usize,
    closes: bool,
}

/// So many at once make a history.
const PARTIES: u64 = 4;

type Play = (Vec<Queue<u64>>, Barrier, Rules, u64);

/// One history after the other, each on a queue of its own; all begin together.
fn play((queues, barrier, rules, me): Play) -> Vec<Vec<Step>> {
    let round = |(number, queue): (usize, Queue<u64>)| {
        let mut scribe = Scribe::new(queue, me, number as u64);
        barrier.wait().unwrap();
        for _ in 0..rules.calls {
            let most = if scribe.below(3) == 0 { rules.at_once } else { 1 };
            match scribe.below(20) {
                0 if rules.closes => scribe.close(),
                0..10 => scribe.put(most, false),
                _ => drop(scribe.get(most, false)),
            }
        }
        barrier.wait().unwrap();
        // The first one takes what is left.
        while me == 0 && !scribe.queue.is_empty() {
            scribe.get(1, false);
        }
        scribe.steps
    };
    queues.into_iter().enumerate().map(round).collect()
}

/// The histories of several parties, put together; each must be a queue's.
fn judge(parts: &[Vec<Vec<Step>>], rules: &Rules) {
    let (mut full, mut empty) = (0, 0);
    for round in 0..parts[0].len() {
        let steps: Vec<Step> = parts.iter().flat_map(|part| part[round].clone()).collect();
        let is_there = |what: &What| steps.iter().any(|step| step.what == *what);
        full += usize::from(is_there(&What::Full));
        empty += usize::from(is_there(&What::Empty));
        assert_eq!(left(&steps), 0, "{}", told(&steps));
        check(&steps, Some(rules.capacity)).unwrap_or_else(|fault| panic!("{fault}: {}", told(&steps)));
        assert!(is_a_queues(&steps, Some(rules.capacity)), "no queue of {} does this: {}", rules.capacity, told(&steps));
    }
    assert!(full > 0 && empty > 0, "a dull test: {full} full, {empty} empty");
}

const RULES: [Rules; 4] = [
    Rules { capacity: 1, calls: 5, at_once: 1, closes: false },
    Rules { capacity: 2, calls: 6, at_once: 1, closes: true },
    Rules { capacity: 2, calls: 5, at_once: 3, closes: false },
    Rules { capacity: 3, calls: 5, at_once: 3, closes: true },
];
const HISTORIES: usize = 120;

#[test]
fn short_histories_of_processes() -> Outcome {
    let _watchdog = watchdog();
    for rules in RULES {
        let queues = (0..HISTORIES).map(|_| Queue::new(rules.capacity)).collect::<Result<Vec<_>, _>>()?;
        let barrier = Barrier::new(usize::try_from(PARTIES)?)?;
        let parties: Vec<_> = (0..PARTIES).map(|me| spawn(play, (queues.clone(), barrier.clone(), rules.clone(), me))).collect();
        judge(&parties.iter().map(value).collect::<Vec<_>>(), &rules);
    }
    Ok(())
}

#[test]
fn short_histories_of_threads() -> Outcome {
    let _watchdog = watchdog();
    for rules in RULES {
        let queues = (0..HISTORIES).map(|_| Queue::new(rules.capacity)).collect::<Result<Vec<_>, _>>()?;
        let barrier = Barrier::new(usize::try_from(PARTIES)?)?;
        let parts: Vec<_> = std::thread::scope(|scope| {
            let start = |me| {
                let given = (queues.clone(), barrier.clone(), rules.clone(), me);
                scope.spawn(move || play(given))
            };
            let threads: Vec<_> = (0..PARTIES).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        judge(&parts, &rules);
    }
    Ok(())
}

#[test]
fn long_histories_of_processes() -> Outcome {
    let _watchdog = watchdog();
    const CALLS: usize = 6000;
    for (capacity, at_once) in [(1, 1), (4, 1), (4, 3), (100_000, 5)] {
        let queue = Queue::new(capacity)?;
        type Work = (Queue<u64>, usize, u64);
        fn produce((queue, at_once, me): Work) -> Vec<Step> {
            let mut scribe = Scribe::new(queue, me, 1);
            (0..CALLS).for_each(|_| scribe.put(at_once, true));
            scribe.steps
        }
        fn consume((queue, at_once, me): Work) -> Vec<Step> {
            let mut scribe = Scribe::new(queue, me, 2);
            while scribe.get(at_once, true) {}
            scribe.steps
        }
        let consumers = [2, 3].map(|me| spawn(consume, (queue.clone(), at_once, me)));
        let producers = [0, 1].map(|me| spawn(produce, (queue.clone(), at_once, me)));
        let mut steps = producers.each_ref().map(value).concat();
        let mut scribe = Scribe::new(queue, 4, 3);
        scribe.close();
        steps.extend(scribe.steps);
        steps.extend(consumers.each_ref().map(value).concat());
        assert_eq!(left(&steps), 0);
        check(&steps, Some(capacity))?;
    }
    Ok(())
}

/// A history that a queue did, each step somewhere in a call that is a little longer; in parts, if calls have several steps.
fn dream(dice: &mut Dice, capacity: Option<usize>, in_parts: bool) -> Vec<Step> {
    const SLACK: u64 = 60;
    let mut inside = VecDeque::new();
    let (mut steps, mut next, mut closed) = (Vec::<Step>::new(), 0, false);
    // A call per thread at a time: the same caller's calls do not overlap.
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
            let both =
                |one: &What, other: &What| matches!((one, other), (What::Put(_), What::Put(_)) | (What::Got(_), What::Got(_)));
            in_parts && both(&steps[*last].what, &what) && dice.below(2) == 0
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

/// A history to be read.
fn told(steps: &[Step]) -> String {
    let line = |step: &Step| format!("\n{:x}: {}-{} {:?}", step.call, step.begun, step.ended, step.what);
    steps.iter().map(line).collect()
}

/// Changes a thing or two.
fn spoil(steps: &mut [Step], dice: &mut Dice) {
    for _ in 0..dice.below(10) {
        let mut any = || usize::try_from(dice.below(steps.len() as u64)).unwrap();
        let (one, other) = (any(), any());
        let (first, second) = (steps[one].what.clone(), steps[other].what.clone());
        match (first, second) {
            // Who got what.
            (What::Got(first), What::Got(second)) => {
                steps[one].what = What::Got(second);
                steps[other].what = What::Got(first);
            }
            (What::Put(first), What::Put(second)) => {
                steps[one].what = What::Put(second);
                steps[other].what = What::Put(first);
            }
            // When.
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
fn the_two_checkers_agree() {
    // The same ones in each run; others if one likes.
    let mut dice = Dice::new(std::env::var("MULTIPROC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1));
    let (mut right, mut wrong, mut unseen) = (0, 0, 0);
    for round in 0..20_000 {
        let capacity = [None, None, Some(1), Some(2)][round % 4];
        let in_parts = round % 8 >= 4;
        let mut steps = dream(&mut dice, capacity, in_parts);
        assert!(is_a_queues(&steps, capacity), "a bad dream, {capacity:?}: {}", told(&steps));
        spoil(&mut steps, &mut dice);
        let (exact, fast) = (is_a_queues(&steps, capacity), check(&steps, capacity));
        if exact {
            right += 1;
            assert_eq!(fast, Ok(()), "{capacity:?}: {}", told(&steps));
        } else {
            wrong += 1;
            // What it cannot see is a matter of how much there is room for, or of what one call does in several steps.
            assert!(fast.is_err() || capacity.is_some() || in_parts, "not seen: {}", told(&steps));
            unseen += usize::from(fast.is_ok());
        }
    }
    assert!(right > 2000 && wrong > 2000, "a dull test: {right} right, {wrong} wrong");
    assert!(unseen * 10 < wrong, "{unseen} of {wrong} wrong ones are not seen");
}

/// Both must tell the same of a history in words: `begun-ended what value`.
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
fn checkers_allow_what_overlaps() {
    assert!(both(None, "0-5 put 0, 2-3 put 1, 0-9 got 0, 4-5 got 1, 1-4 empty"));
    assert!(both(Some(1), "0-5 put 0, 2-7 put 1, 3-9 got 0, 8-9 got 1, 6-7 full"));
    assert!(both(None, "0-9 put 0, 3-4 empty, 5-6 empty, 7-20 got 0"));
    assert!(both(Some(3), "0-1 put 0 1 2, 2-3 full, 4-5 got 0 1, 6-7 got 2, 8-9 empty"));
    assert!(both(None, "0-1 put 0, 2-5 close, 3-4 put 1, 6-7 putclosed, 6-8 got 0 1, 7-9 getclosed"));
}

#[test]
fn checkers_see_an_overtaking() {
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 8-9 got 0, 4-5 got 1"));
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 4-5 got 1"));
    assert!(!both(None, "0-1 put 0 1, 2-3 got 1, 4-5 got 0"));
    assert!(!both(None, "0-1 put 0, 2-3 put 1, 4-5 got 1 0"));
    assert!(!both(None, "0-9 put 0 1, 10-15 got 1 0"));
}

#[test]
fn checkers_see_a_double_a_loss_and_an_invention() {
    assert!(!both(None, "0-1 put 0, 2-3 got 0, 4-5 got 0"));
    assert!(!both(None, "0-1 put 0, 2-3 got 7"));
    assert!(!both(None, "5-6 put 0, 2-3 got 0"));
    assert_eq!(left(&[Step { call: 0, begun: 0, ended: 1, what: What::Put(0) }]), 1);
}

#[test]
fn checkers_see_a_false_empty() {
    assert!(!both(None, "0-1 put 0, 2-3 empty, 4-5 got 0"));
    // Always one of the two, though neither all the time.
    assert!(!both(None, "0-1 put 0, 4-5 put 1, 2-9 empty, 6-7 got 0, 10-11 got 1"));
    assert!(both(None, "0-1 put 0, 4-7 put 1, 2-9 empty, 6-7 got 0, 10-11 got 1"));
    // The first of two that were put by one call is in when the second is got.
    assert!(!both(None, "0-20 put 0 1, 2-3 got 1, 4-5 empty, 8-9 got 0"));
}

#[test]
fn checkers_see_a_false_full() {
    assert!(!both(Some(2), "0-1 put 0, 2-3 full, 4-5 got 0"));
    assert!(!both(Some(1), "0-1 put 0, 2-3 got 0, 4-5 full"));
    assert!(!both(Some(1), "0-1 put 0, 2-3 put 1, 4-5 got 0, 6-7 got 1"));
    assert!(both(Some(1), "0-1 put 0, 2-4 put 1, 3-5 got 0, 6-7 got 1"));
}

#[test]
fn checkers_see_a_false_close() {
    assert!(!both(None, "0-1 put 0, 2-3 putclosed, 4-5 close"));
    assert!(!both(None, "0-1 close, 2-3 put 0"));
    assert!(!both(None, "0-1 close, 2-3 empty"));
    assert!(!both(None, "0-1 put 0, 2-3 close, 4-5 getclosed, 6-7 got 0"));
    assert!(!both(None, "0-1 getclosed"));
}
