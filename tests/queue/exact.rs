//! Whether one FIFO queue can have answered a short history, by trying everything (Wing and Gong; Lowe's memory of what was tried).

use std::collections::{HashSet, VecDeque};

use crate::history::{Step, What};

/// Steps of one history: bits of a word.
pub(crate) const MOST: usize = u128::BITS as usize;

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct State {
    inside: VecDeque<u64>,
    closed: bool,
}

/// Whether some order of the steps, in which each lies between its moments, is what a queue that holds so many does.
///
/// # Panics
///
/// If there are more than [`MOST`] steps.
pub(crate) fn is_a_queues(steps: &[Step], capacity: Option<usize>) -> bool {
    assert!(steps.len() <= MOST, "{} steps are too many", steps.len());
    let precedes = |one: usize, other: usize| {
        let same = steps[one].call == steps[other].call;
        if same { one < other } else { steps[one].ended < steps[other].begun }
    };
    let before: Vec<u128> = (0..steps.len())
        .map(|step| (0..steps.len()).filter(|other| precedes(*other, step)).fold(0, |bits, other| bits | 1 << other))
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
    /// What a queue is.
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
