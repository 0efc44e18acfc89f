//! All results together: merged, compared and printed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    path::Path,
    time::Duration,
};

use crate::count::{Outcome, Skipped};

/// How many of the most frequent words are shown.
const TOP: usize = 20;
/// How many differences `--check` shows of each kind.
const FEW: usize = 5;

/// The counts of all files together.
#[derive(Debug, Default)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
    pub words: HashMap<String, u64>,
    pub skipped: Vec<Skipped>,
    /// How often a job was delivered again.
    pub redelivered: u64,
    /// By the worker that counted them.
    pub workers: BTreeMap<u32, Share>,
}

/// The contribution of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub files: u64,
    pub bytes: u64,
    pub words: u64,
    /// Whether the worker was killed or died otherwise.
    pub died: bool,
}

impl Totals {
    /// Adds the outcome of one file, counted by `worker`. Call it once per file.
    pub fn add(&mut self, worker: u32, path: &Path, outcome: Outcome) {
        let counts = match outcome {
            Ok(counts) => counts,
            Err(reason) => return self.skipped.push(Skipped { path: path.to_owned(), reason }),
        };
        let share = self.workers.entry(worker).or_default();
        self.files += 1;
        share.files += 1;
        self.bytes += counts.bytes;
        share.bytes += counts.bytes;
        for (word, count) in counts.words {
            *self.words.entry(word).or_default() += count;
            share.words += count;
        }
    }

    /// Returns every difference to a recount; empty if there is none.
    pub fn differences(&self, recount: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut same = |what: &str, ours: u64, theirs: u64| {
            if ours != theirs {
                found.push(format!("{what}: {ours}, but {theirs} when recounted"));
            }
        };
        same("files", self.files, recount.files);
        same("bytes", self.bytes, recount.bytes);
        same("words", self.all_words(), recount.all_words());
        same("skipped", self.skipped.len() as u64, recount.skipped.len() as u64);
        let of_workers = |part: fn(&Share) -> u64| self.workers.values().map(part).sum();
        same("files of all workers", of_workers(|share| share.files), recount.files);
        same("bytes of all workers", of_workers(|share| share.bytes), recount.bytes);
        same("words of all workers", of_workers(|share| share.words), recount.all_words());

        let word = |totals: &Self, word: &str| totals.words.get(word).copied().unwrap_or(0);
        let known =
            self.words.keys().chain(recount.words.keys().filter(|word| !self.words.contains_key(*word)));
        let wrong = known.filter(|known| word(self, known) != word(recount, known));
        found.extend(wrong.take(FEW).map(|known| {
            let (ours, theirs) = (word(self, known), word(recount, known));
            format!("word {known:?}: {ours}, but {theirs} when recounted")
        }));

        let (ours, theirs) = (self.sorted_skipped(), recount.sorted_skipped());
        let only = |by: &str, s: &Skipped| format!("{}: skipped only {by}: {}", s.path.display(), s.reason);
        found.extend(ours.difference(&theirs).take(FEW).map(|skipped| only("by the workers", skipped)));
        found.extend(theirs.difference(&ours).take(FEW).map(|skipped| only("when recounted", skipped)));
        found
    }

    /// Returns the warnings for all paths that were not counted, a line each.
    pub fn warnings(&self) -> String {
        let line = |s: &&Skipped| format!("wordcount: skipped {}: {}\n", s.path.display(), s.reason);
        self.sorted_skipped().iter().map(line).collect()
    }

    /// Returns the tables.
    pub fn report(&self, took: Duration) -> String {
        let mut text = String::new();
        self.write_report(took, &mut text).expect("a String takes all that is written");
        text
    }

    fn write_report(&self, took: Duration, out: &mut String) -> std::fmt::Result {
        let mut ranking: Vec<_> = self.words.iter().collect();
        ranking.sort_unstable_by_key(|&(word, &count)| (Reverse(count), word));
        for (word, count) in ranking.iter().take(TOP) {
            writeln!(out, "{count:>12}  {word:.60}")?;
        }
        let seconds = took.as_secs_f64().max(1e-9);
        writeln!(out, "\nfiles  {:>12}  and {} skipped", self.files, self.skipped.len())?;
        writeln!(out, "words  {:>12}  {} different", self.all_words(), self.words.len())?;
        writeln!(
            out,
            "bytes  {:>12}  {seconds:.3} s, {:.1} MB/s",
            self.bytes,
            self.bytes as f64 / seconds / 1e6
        )?;
        writeln!(out, "jobs   {:>12}  redelivered", self.redelivered)?;
        writeln!(out, "\nworker        files         words         bytes")?;
        for (worker, share) in &self.workers {
            let fate = if share.died { "  died" } else { "" };
            writeln!(out, "{worker:>6} {:>12}  {:>12}  {:>12}{fate}", share.files, share.words, share.bytes)?;
        }
        Ok(())
    }

    fn all_words(&self) -> u64 {
        self.words.values().sum()
    }

    fn sorted_skipped(&self) -> BTreeSet<&Skipped> {
        self.skipped.iter().collect()
    }
}
