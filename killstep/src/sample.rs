//! Which states a sample visits: the seed chooses, so that another commit visits others.

/// A case with more states than this is swept in parts, one per run.
pub(crate) const SWEPT_WHOLE: u64 = 200;
/// In so many parts.
pub(crate) const PARTS: u64 = 4;
/// The seed where nothing else is known.
pub(crate) const FIXED_SEED: &str = "0";

/// The choice for one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    number: u64,
}

impl Choice {
    /// The choice of `seed` for the case of this name. `PARTS` seeds that are consecutive numbers choose all
    /// parts of every case. Any other text, such as the hash of a commit, chooses a part at random.
    pub(crate) fn new(seed: &str, case: &str) -> Self {
        let seed = seed.parse().unwrap_or_else(|_| hash(seed));
        Self { number: hash(case).wrapping_add(seed) }
    }

    /// In how many parts a case with so many states is swept.
    pub(crate) fn parts(states: u64) -> u64 {
        if states > SWEPT_WHOLE { PARTS } else { 1 }
    }

    /// The states to visit in this run, up to one that no run has reached: the first, the last and all behind
    /// it (a run may have more than the first had), and those of the chosen part.
    pub(crate) fn part(self, states: u64) -> impl Iterator<Item = u64> {
        let parts = Self::parts(states);
        let part = self.number % parts;
        (0..).filter(move |state| *state == 0 || state + 2 > states || state % parts == part)
    }

    /// So many of the numbers below `states`, evenly spread from one that is chosen.
    pub(crate) fn spread(self, count: u64, states: u64) -> impl Iterator<Item = u64> {
        let apart = states / count.clamp(1, states.max(1));
        spread(count, states).map(move |state| state + self.number % apart.max(1))
    }
}

/// So many of the numbers below `states`, evenly spread, the first among them.
pub(crate) fn spread(count: u64, states: u64) -> impl Iterator<Item = u64> {
    let count = count.min(states);
    (0..count).map(move |number| number * states / count)
}

/// FNV-1a: the same number on every machine and with every compiler.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    text.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
