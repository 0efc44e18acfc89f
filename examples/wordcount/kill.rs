//! `--kill`: which worker to kill, and when.

use std::{
    collections::VecDeque,
    hash::{BuildHasher, RandomState},
    thread,
    time::Duration,
};

/// The kills to come, spread over the run.
#[derive(Debug)]
pub struct KillPlan {
    /// For each kill, the number of finished files at which it is due; rising, and below the number of all
    /// files, so that work is left at every kill.
    due: VecDeque<usize>,
    random: Random,
}

impl KillPlan {
    /// Plans `kills` kills in a run over `files` files. The same seed plans the same.
    pub fn new(kills: usize, files: usize, seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(kills) % 1_000_000);
        let mut random = Random(seed);
        if kills > 0 {
            eprintln!("wordcount: --seed {seed} repeats these kills");
        }
        // One kill in each of as many equal pieces of the run.
        let kills_due = if files == 0 { 0 } else { kills };
        let due =
            (0..kills_due).map(|kill| (kill * 1000 + random.below(1000)) * files / (kills * 1000)).collect();
        Self { due, random }
    }

    /// Returns the index of the worker to kill, now that `done` files are finished. Call until it returns
    /// `None`.
    pub fn due(&mut self, done: usize, workers: usize) -> Option<usize> {
        self.due.pop_front_if(|due| *due <= done)?;
        // The parent has just received a result. A pause lets the workers reach a random point.
        thread::sleep(Duration::from_micros(self.random.below(1000) as u64));
        Some(self.random.below(workers))
    }
}

/// SplitMix64.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }
}
