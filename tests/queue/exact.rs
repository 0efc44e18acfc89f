//! Decides whether one FIFO queue can have produced a short history, by trying all orders (Wing and Gong's
//! search, with Lowe's cache of visited states).

use std::collections::{HashSet, VecDeque};

use crate::history::{Step, What};

/// The most steps of one history: each is a bit of a word.
pub(crate) const MOST: usize = u128::BITS as usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct State {
    inside: VecDeque<u64>,
    closed: bool,
}

/// Returns whether a queue of this capacity can do the steps in some order in which each lies between its
/// beginning and its end.
///
/// # Panics
///
/// Panics if there are more than [`MOST`] steps.
pub(crate) fn is_a_queues(steps: &[Step], capacity: Option<usize>) -> bool {
    assert!(steps.len() <= MOST, "{} steps are too many", steps.len());
    let precedes = |one: usize, other: usize| {
        let same = steps[one].call == steps[other].call;
        if same { one < other } else { steps[one].ended < steps[other].begun }
    };
    let before: Vec<u128> = (0..steps.len())
        .map(|step| {
            (0..steps.len()).filter(|other| precedes(*other, step)).fold(0, |bits, other| bits | 1 << other)
        })
        .collect();
    let all = if steps.len() == MOST { u128::MAX } else { (1 << steps.len()) - 1 };
    let mut tried = HashSet::new();
    let mut open = vec![(0_u128, State::default())];
    while let Some((done, state)) = open.pop() {
        if done == all {
            return true;
        }
        for (index, step) in steps.iter().enumerate() {
            if done & 1 << index != 0 || before[index] & !done != 0 {
                continue;
            }
            let mut after = state.clone();
            let next = done | 1 << index;
            if after.may(&step.what, capacity.unwrap_or(usize::MAX)) && tried.insert((next, after.clone())) {
                open.push((next, after));
            }
        }
    }
    false
}

impl State {
    /// Applies a step to the queue; returns false if a queue cannot do it.
    fn may(&mut self, what: &What, capacity: usize) -> bool {
        match what {
            What::Put(value) if !self.closed && self.inside.len() < capacity => {
                self.inside.push_back(*value);
                true
            }
            What::Put(_) => false,
            What::Got(values) => values.iter().all(|value| self.inside.pop_front() == Some(*value)),
            What::Empty => self.inside.is_empty() && !self.closed,
            What::Full => self.inside.len() >= capacity && !self.closed,
            What::Close => {
                self.closed = true;
                true
            }
            What::PutClosed => self.closed,
            What::GetClosed => self.inside.is_empty() && self.closed,
        }
    }
}
