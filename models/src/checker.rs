//! A small explicit-state model checker: breadth first, every interleaving, shortest counterexample.
//!
//! A [`Model`] says which states follow a state. The checker visits all of them, and asks of each whether it
//! is wrong. A state in which no process can move by itself is *quiet*; the models use it to find lost
//! wake-ups.
//!
//! Only a 64-bit fingerprint and the predecessor of each visited state are kept (about 20 B). The states
//! themselves are kept only until they have been expanded. Two states with one fingerprint would be taken for
//! one. With 10⁸ states the odds of any such accident are about 1 in 4,000, and a different accident would
//! happen in every model. A trace is recovered by walking the fingerprints back, and stepping forward again
//! along them.
//!
//! With [`Limits::live`] the graph is kept too. Two more things are then proved of the steps that processes
//! and the kernel take by themselves (no death, no time-out). From every state a quiet state can be reached.
//! And no cycle contains a step that wakes a sleeper, so processes cannot wake each other for ever.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

/// What the checker explores.
pub(crate) trait Model {
    /// One state of the whole system. Everything in it counts for its identity.
    type State: Copy + Hash;

    /// The one state in which everything begins.
    fn start(&self) -> Self::State;

    /// Appends every state that may follow `state`.
    fn steps(&self, state: &Self::State, next: &mut Vec<Step<Self::State>>);

    /// Renames interchangeable processes, so that states that differ only in names become one.
    fn canonical(&self, state: &mut Self::State);

    /// What is wrong with `state`, if anything; `quiet` says that no process can move by itself.
    fn wrong(&self, state: &Self::State, quiet: bool) -> Option<&'static str>;

    /// One line for a trace.
    fn show(&self, state: &Self::State) -> String;
}

/// One transition.
#[derive(Debug)]
pub(crate) struct Step<S> {
    /// Which process moves.
    pub(crate) process: usize,
    /// What it does, for traces.
    pub(crate) what: &'static str,
    /// What kind of move it is.
    pub(crate) kind: Kind,
    /// Where it leads.
    pub(crate) state: S,
}

/// What decides that a step happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A process (or the kernel for a dead one) goes on: this happens sooner or later.
    Own,
    /// The same, and it ends the sleep of at least one process.
    Wakes,
    /// Death, time-out, spurious wake-up: may happen, need not.
    Chance,
}

/// How far to look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Give up after this many states.
    pub(crate) states: usize,
    /// Keep the graph, and check that no process can be kept busy for ever.
    pub(crate) live: bool,
    /// Do not stop at wrong quiet states: count them.
    pub(crate) count: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Distinct states visited.
    pub(crate) states: usize,
    /// The answer.
    pub(crate) verdict: Verdict,
    /// The way to the wrong state, one line a step.
    pub(crate) trace: Vec<String>,
    /// Quiet states visited, and how many of them were wrong, by complaint (only with [`Limits::count`]).
    pub(crate) quiet: usize,
    /// See `quiet`.
    pub(crate) wrong: BTreeMap<&'static str, usize>,
}

/// The answer of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every reachable state is right.
    Holds,
    /// A state is wrong, and why.
    Broken(&'static str),
    /// More states than allowed: nothing wrong among those seen.
    TooBig,
}

/// Visits every state of `model`.
pub(crate) fn check<M: Model>(model: &M, limits: Limits) -> Report {
    let mut seen = Seen::new();
    let mut graph = Graph::default();
    let mut report =
        Report { states: 0, verdict: Verdict::Holds, trace: Vec::new(), quiet: 0, wrong: BTreeMap::new() };

    let mut first = model.start();
    model.canonical(&mut first);
    seen.insert(fingerprint(&first), 0);
    let (mut level, mut after, mut next) = (vec![first], Vec::new(), Vec::new());
    let mut index = 0;
    while !level.is_empty() {
        for state in level.drain(..) {
            next.clear();
            model.steps(&state, &mut next);
            let quiet = next.iter().all(|step| step.kind == Kind::Chance);
            report.quiet += usize::from(quiet);
            if let Some(why) = model.wrong(&state, quiet) {
                *report.wrong.entry(why).or_default() += 1;
                if !(limits.count && quiet) || report.trace.is_empty() {
                    report.trace = seen.trace(model, index);
                }
                if !(limits.count && quiet) {
                    report.verdict = Verdict::Broken(why);
                    report.states = seen.len();
                    return report;
                }
            }
            for step in &mut next {
                model.canonical(&mut step.state);
                let (found, new) = seen.insert(fingerprint(&step.state), index);
                if new {
                    after.push(step.state);
                }
                if limits.live && step.kind != Kind::Chance {
                    graph.edge(found, step.kind == Kind::Wakes);
                }
            }
            if limits.live {
                graph.close(quiet);
            }
            index += 1;
        }
        if seen.len() > limits.states {
            report.verdict = Verdict::TooBig;
            report.states = seen.len();
            return report;
        }
        std::mem::swap(&mut level, &mut after);
    }
    report.states = seen.len();
    if limits.live
        && let Some((node, why)) = graph.busy_for_ever()
    {
        report.trace = seen.trace(model, node);
        report.verdict = Verdict::Broken(why);
    }
    report
}

/// The visited states: fingerprints in the order of discovery, and an open-addressed table of their indices.
struct Seen {
    prints: Vec<u64>,
    parents: Vec<u32>,
    table: Vec<u32>,
}

const EMPTY: u32 = u32::MAX;

impl Seen {
    fn new() -> Self {
        Self { prints: Vec::new(), parents: Vec::new(), table: vec![EMPTY; 1 << 16] }
    }

    fn len(&self) -> usize {
        self.prints.len()
    }

    /// The index of the fingerprint, and whether it is new.
    fn insert(&mut self, print: u64, parent: u32) -> (u32, bool) {
        if self.prints.len() * 4 >= self.table.len() * 3 {
            self.grow();
        }
        let mut at = slot(print, self.table.len());
        while self.table[at] != EMPTY {
            if self.prints[self.table[at] as usize] == print {
                return (self.table[at], false);
            }
            at = (at + 1) & (self.table.len() - 1);
        }
        let index = u32::try_from(self.prints.len()).unwrap_or(EMPTY);
        assert!(index < Graph::WAKES, "more states than an index can name");
        self.table[at] = index;
        self.prints.push(print);
        self.parents.push(parent);
        (index, true)
    }

    fn grow(&mut self) {
        let mut table = vec![EMPTY; self.table.len() * 2];
        for (index, &print) in (0_u32..).zip(&self.prints) {
            let mut at = slot(print, table.len());
            while table[at] != EMPTY {
                at = (at + 1) & (table.len() - 1);
            }
            table[at] = index;
        }
        self.table = table;
    }

    /// The steps from the start to state `index`, found again by their fingerprints.
    fn trace<M: Model>(&self, model: &M, mut index: u32) -> Vec<String> {
        let mut path = Vec::new();
        while index != 0 {
            path.push(self.prints[index as usize]);
            index = self.parents[index as usize];
        }
        // Stepped without renaming, so that a process keeps its name through the whole story.
        let mut state = model.start();
        let mut lines = vec![format!("{:>24}  {}", "start", model.show(&state))];
        let mut next = Vec::new();
        for print in path.into_iter().rev() {
            next.clear();
            model.steps(&state, &mut next);
            let step = next.iter().find(|step| {
                let mut state = step.state;
                model.canonical(&mut state);
                fingerprint(&state) == print
            });
            let Some(step) = step else {
                lines.push("(the way is lost: `canonical` does more than rename)".into());
                break;
            };
            state = step.state;
            lines.push(format!("{:>2}: {:>20}  {}", step.process + 1, step.what, model.show(&state)));
        }
        lines
    }
}

fn slot(print: u64, len: usize) -> usize {
    // The table never has more than 2³² slots.
    usize::try_from(print >> 16).unwrap_or(0) & (len - 1)
}

/// The steps among the visited states, in the order in which the states are expanded.
#[derive(Default)]
struct Graph {
    /// Where the edges of each state end.
    ends: Vec<usize>,
    edges: Vec<u32>,
    quiet: Vec<bool>,
}

impl Graph {
    /// Marks an edge that wakes a sleeper.
    const WAKES: u32 = 1 << 31;

    fn edge(&mut self, to: u32, wakes: bool) {
        self.edges.push(to | if wakes { Self::WAKES } else { 0 });
    }

    fn close(&mut self, quiet: bool) {
        self.ends.push(self.edges.len());
        self.quiet.push(quiet);
    }

    fn from(&self, node: u32) -> std::ops::Range<usize> {
        let node = node as usize;
        (if node == 0 { 0 } else { self.ends[node - 1] })..self.ends[node]
    }

    /// A state from which nothing quiet can be reached, or that lies on a cycle with a wake-up in it.
    ///
    /// Tarjan's algorithm, without recursion. Components come out sinks first, so whether a component reaches
    /// a quiet state is known from the components before it.
    fn busy_for_ever(&self) -> Option<(u32, &'static str)> {
        let n = self.ends.len();
        let (mut order, mut low, mut group) = (vec![0_u32; n], vec![0_u32; n], vec![EMPTY; n]);
        let mut calm: Vec<bool> = Vec::new(); // by component: reaches a quiet state
        let (mut count, mut stack, mut calls) = (0_u32, Vec::new(), Vec::new());
        for root in 0..u32::try_from(n).unwrap_or(EMPTY) {
            if order[root as usize] != 0 {
                continue;
            }
            calls.push((root, self.from(root).start));
            while let Some((node, at)) = calls.pop() {
                let here = node as usize;
                if at == self.from(node).start && order[here] == 0 {
                    count += 1;
                    (order[here], low[here]) = (count, count);
                    stack.push(node);
                }
                if at < self.from(node).end {
                    calls.push((node, at + 1));
                    let to = self.edges[at] & !Self::WAKES;
                    if order[to as usize] == 0 {
                        calls.push((to, self.from(to).start));
                    } else if group[to as usize] == EMPTY {
                        low[here] = low[here].min(order[to as usize]);
                    }
                    continue;
                }
                if let Some(&(parent, _)) = calls.last() {
                    low[parent as usize] = low[parent as usize].min(low[here]);
                }
                if low[here] != order[here] {
                    continue;
                }
                let name = u32::try_from(calm.len()).unwrap_or(EMPTY);
                let first = stack.iter().rposition(|&member| member == node).unwrap_or(0);
                for &member in &stack[first..] {
                    group[member as usize] = name;
                }
                let (mut is_calm, mut pingpong) = (false, false);
                for &member in &stack[first..] {
                    is_calm |= self.quiet[member as usize];
                    for edge in &self.edges[self.from(member)] {
                        let to = group[(edge & !Self::WAKES) as usize];
                        pingpong |= to == name && edge & Self::WAKES != 0;
                        is_calm |= to != name && calm[to as usize];
                    }
                }
                stack.truncate(first);
                calm.push(is_calm);
                if pingpong {
                    return Some((node, "PING-PONG"));
                }
                if !is_calm {
                    return Some((node, "NEVER QUIET"));
                }
            }
        }
        None
    }
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = Fold { hash: 0x243f_6a88_85a3_08d3, bytes: 0, count: 0 };
    state.hash(&mut hasher);
    hasher.finish()
}

/// A fast 64-bit hash. Each word goes in by steps that can be undone, so that nothing is lost on the way.
struct Fold {
    hash: u64,
    /// The bytes that do not yet make a word.
    bytes: u64,
    count: u32,
}

impl Fold {
    fn word(&mut self, word: u64) {
        let mixed = (self.hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(29);
    }
}

impl Hasher for Fold {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    #[inline]
    fn write_u8(&mut self, byte: u8) {
        self.bytes |= u64::from(byte) << self.count;
        self.count += 8;
        if self.count == 64 {
            self.word(self.bytes);
            (self.bytes, self.count) = (0, 0);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.word(word);
    }

    /// Lengths of arrays, which are the same in all states.
    fn write_usize(&mut self, _length: usize) {}

    /// The variant of an enum.
    fn write_isize(&mut self, variant: isize) {
        self.write_u64(variant.cast_unsigned() as u64);
    }

    fn finish(&self) -> u64 {
        let hash = self.hash ^ self.bytes;
        let mixed = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }
}
