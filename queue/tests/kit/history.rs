//! A history of calls, and whether one FIFO queue can have answered them, decided in `n log n`. (The
//! workspace's `tests/queue` uses it for processes, and compares it with a checker that tries every order.)
//!
//! Values are unique, and each call lies between two moments. A history is that of an unbounded queue
//! (Henzinger, Sezgin, Vafeiadis: *Aspect-oriented linearizability proofs*) if it contains none of these:
//!
//! - a value that was got twice, or before it was put;
//! - a value that overtook another which had been put before it;
//! - an answer that the queue is empty, at a time when there was always something in it.
//!
//! Two more things are checked only in part, so some wrong histories pass: a bounded queue never holds more
//! than its capacity and is *full* only if it can have been; and the steps of one call come one after the
//! other.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::collections::HashMap;

/// What one step of a call did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum What {
    Put(u64),
    /// All under one lock.
    Got(Vec<u64>),
    /// A get answered so.
    Empty,
    /// A put answered so.
    Full,
    Close,
    /// A put answered so.
    PutClosed,
    /// A get answered so: closed, and empty.
    GetClosed,
}

/// One step of the history. Steps of one call came one after the other, in this order. The moments are
/// nanoseconds of one clock.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Step {
    pub(crate) call: u64,
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) what: What,
}

/// The put or the get of a value.
#[derive(Clone, Copy, Debug)]
struct End {
    begun: u64,
    ended: u64,
    call: u64,
    /// Its position in its call.
    part: usize,
}

/// A value from its put to its get. A value that was not got counts as got after everything else.
#[derive(Clone, Copy, Debug)]
struct Stay {
    value: u64,
    put: End,
    get: End,
}

const NEVER: End = End { begun: u64::MAX, ended: u64::MAX, call: u64::MAX, part: 0 };

/// Checks a history of a queue that holds this many messages.
///
/// # Errors
///
/// What no FIFO queue can answer.
pub(crate) fn check(steps: &[Step], capacity: Option<usize>) -> Result<(), String> {
    let mut stays = stays(steps)?;
    tighten(&mut stays);
    in_order(&stays)?;
    in_order_in_calls(&stays)?;
    let frontier = Frontier::new(&stays);
    let closed = closed(steps, &frontier)?;
    emptiness(steps, &frontier, closed)?;
    capacity.map_or(Ok(()), |capacity| within(steps, &stays, capacity))
}

/// Returns the values that were put and not got.
pub(crate) fn left(steps: &[Step]) -> usize {
    let count = |step: &Step| match &step.what {
        What::Put(_) => 1,
        What::Got(values) => -values.len().cast_signed(),
        _ => 0,
    };
    steps.iter().map(count).sum::<isize>().cast_unsigned()
}

fn stays(steps: &[Step]) -> Result<Vec<Stay>, String> {
    let mut stays: Vec<Stay> = Vec::new();
    let mut known = HashMap::new();
    let mut gets = Vec::new();
    let (mut call, mut part) = (u64::MAX, 0);
    for step in steps {
        part = if step.call == call { part + 1 } else { 0 };
        call = step.call;
        let end = |part| End { begun: step.begun, ended: step.ended, call, part };
        match &step.what {
            What::Put(value) => {
                let before = known.insert(*value, stays.len());
                assert!(before.is_none(), "a bad history: {value} was put twice");
                stays.push(Stay { value: *value, put: end(part), get: NEVER });
            }
            What::Got(values) => {
                for value in values {
                    gets.push((*value, end(part)));
                    part += 1;
                }
            }
            _ => {}
        }
    }
    for (value, get) in gets {
        let stay = known.get(&value).map(|index| &mut stays[*index]);
        let stay = stay.ok_or_else(|| format!("{value} was got and never put"))?;
        if stay.get.call != NEVER.call {
            return Err(format!("{value} was got twice"));
        }
        if stay.put.begun > get.ended {
            return Err(format!("{value} was got before it was put"));
        }
        stay.get = get;
    }
    stays.sort_by_key(|stay| stay.put.ended);
    Ok(stays)
}

/// Of two values that were put one after the other, the second was not got first.
fn in_order(stays: &[Stay]) -> Result<(), String> {
    let mut by_beginning: Vec<&Stay> = stays.iter().collect();
    by_beginning.sort_by_key(|stay| stay.put.begun);
    let mut earlier = stays.iter().peekable();
    let mut latest = None;
    for stay in by_beginning {
        while let Some(other) = earlier.next_if(|other| other.put.ended < stay.put.begun) {
            latest = latest.max(Some((other.get.begun, other.value)));
        }
        overtaken(latest, stay)?;
    }
    Ok(())
}

/// `latest`: of the values that were put before, the one whose get began last.
fn overtaken(latest: Option<(u64, u64)>, stay: &Stay) -> Result<(), String> {
    match latest {
        Some((begun, value)) if stay.get.ended < begun => {
            Err(format!("{} has overtaken {value}", stay.value))
        }
        _ => Ok(()),
    }
}

/// The same for values that were put or got by one call.
fn in_order_in_calls(stays: &[Stay]) -> Result<(), String> {
    let mut puts: HashMap<u64, Vec<&Stay>> = HashMap::new();
    let mut gets: HashMap<u64, Vec<&Stay>> = HashMap::new();
    for stay in stays {
        puts.entry(stay.put.call).or_default().push(stay);
        gets.entry(stay.get.call).or_default().push(stay);
    }
    for together in puts.values_mut().filter(|together| together.len() > 1) {
        together.sort_by_key(|stay| stay.put.part);
        let mut latest = None;
        for stay in together.iter() {
            overtaken(latest, stay)?;
            latest = latest.max(Some((stay.get.begun, stay.value)));
        }
    }
    gets.remove(&NEVER.call);
    for together in gets.values_mut().filter(|together| together.len() > 1) {
        together.sort_by_key(|stay| stay.get.part);
        let (mut latest, mut last) = (0, HashMap::new());
        for stay in together.iter() {
            let (before, part) = (latest, last.insert(stay.put.call, stay.put.part));
            latest = latest.max(stay.put.begun);
            if stay.put.ended < before || part > Some(stay.put.part) {
                return Err(format!("{} came too late in its call", stay.value));
            }
        }
    }
    Ok(())
}

/// A value was in the queue when a later value of the same call was got.
fn tighten(stays: &mut [Stay]) {
    stays.sort_by_key(|stay| (stay.put.call, std::cmp::Reverse(stay.put.part)));
    let (mut call, mut bound) = (u64::MAX, u64::MAX);
    for stay in stays.iter_mut() {
        bound = if stay.put.call == call { bound } else { u64::MAX };
        call = stay.put.call;
        bound = bound.min(stay.get.ended);
        stay.put.ended = stay.put.ended.min(bound);
    }
    stays.sort_by_key(|stay| stay.put.ended);
}

/// The first moment at which the queue can have been closed, if it was.
fn closed(steps: &[Step], frontier: &Frontier) -> Result<u64, String> {
    let of = |kind: &dyn Fn(&What) -> bool| steps.iter().filter(|step| kind(&step.what)).collect::<Vec<_>>();
    let closing = of(&|what| *what == What::Close);
    let afterwards = of(&|what| matches!(what, What::Close | What::PutClosed | What::GetClosed));
    let before = of(&|what| matches!(what, What::Put(_) | What::Full));
    let empty = of(&|what| *what == What::Empty);
    let latest =
        before.iter().map(|step| step.begun).chain(empty.iter().map(|step| frontier.after(step.begun))).max();
    let earliest = closing.iter().map(|step| step.begun).min();
    let moment = earliest.map_or(u64::MAX, |earliest| earliest.max(latest.unwrap_or(0)));
    match afterwards.iter().map(|step| step.ended).min() {
        Some(ended) if ended < moment => Err("closed before it was closed, or open afterwards".to_owned()),
        _ => Ok(moment),
    }
}

/// Checks the answers that say that the queue is empty.
fn emptiness(steps: &[Step], frontier: &Frontier, closed: u64) -> Result<(), String> {
    for step in steps {
        let from = match step.what {
            What::Empty => step.begun,
            // Nothing is put later, so everything was got.
            What::GetClosed => step.begun.max(closed).max(frontier.last()),
            _ => continue,
        };
        if frontier.after(from) > step.ended {
            return Err(format!(
                "said to be empty with something in it, from {} to {}",
                step.begun, step.ended
            ));
        }
    }
    Ok(())
}

/// Of the values that were put before a moment: when the last get began.
struct Frontier {
    put: Vec<u64>,
    latest: Vec<u64>,
}

impl Frontier {
    /// `stays` are sorted.
    fn new(stays: &[Stay]) -> Self {
        let latest = stays.iter().scan(0, |latest, stay| {
            *latest = stay.get.begun.max(*latest);
            Some(*latest)
        });
        Self { put: stays.iter().map(|stay| stay.put.ended).collect(), latest: latest.collect() }
    }

    /// When the last get of all began.
    fn last(&self) -> u64 {
        self.latest.last().copied().unwrap_or(0)
    }

    /// The first moment, from this one on, at which the queue can be empty: the get of everything that was
    /// put before has begun.
    fn after(&self, mut moment: u64) -> u64 {
        loop {
            let count = self.put.partition_point(|put| *put < moment);
            match count.checked_sub(1).map(|last| self.latest[last]) {
                Some(latest) if latest > moment => moment = latest,
                _ => return moment,
            }
        }
    }
}

/// The queue never holds more than this many messages, and says that it is full only if it can be.
fn within(steps: &[Step], stays: &[Stay], capacity: usize) -> Result<(), String> {
    let sorted = |moments: &mut dyn Iterator<Item = u64>| {
        let mut moments: Vec<u64> = moments.collect();
        moments.sort_unstable();
        moments
    };
    let surely = || stays.iter().filter(|stay| stay.put.ended < stay.get.begun);
    let (put, taken) =
        (sorted(&mut surely().map(|stay| stay.put.ended)), sorted(&mut surely().map(|stay| stay.get.begun)));
    let come = sorted(&mut stays.iter().map(|stay| stay.put.begun));
    let gone = sorted(&mut stays.iter().map(|stay| stay.get.ended));
    let before = |moments: &[u64], moment: u64| moments.partition_point(|other| *other < moment);
    let until = |moments: &[u64], moment: u64| moments.partition_point(|other| *other <= moment);
    // The fewest and the most messages that can be in it at a moment.
    let fewest = |moment: u64| before(&put, moment) - until(&taken, moment);
    let most = |moment: u64| until(&come, moment) - before(&gone, moment);
    let between = |moments: &[u64], step: &Step, is_so: &dyn Fn(u64) -> bool| {
        let some = &moments[before(moments, step.begun)..until(moments, step.ended)];
        is_so(step.begun) || some.iter().any(|moment| is_so(*moment))
    };
    for step in steps {
        let possible = match step.what {
            What::Put(_) => between(&taken, step, &|moment| fewest(moment) < capacity),
            What::Full => between(&come, step, &|moment| most(moment) >= capacity),
            _ => true,
        };
        if !possible {
            return Err(format!("{step:?} cannot have been, where {capacity} have room"));
        }
    }
    Ok(())
}
