//! A model over the kernel, as the checker walks it.

use super::{Hand, Low, Names, State, tid};
use crate::checker::{Kind, Model, Step};
use std::fmt;

/// The steps of a model: an enum of their names, a phase on each line. A process that has left is at `Gone`.
macro_rules! steps {
    ($(#[$doc:meta])* $vis:vis enum $name:ident { $($step:ident)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        $vis enum $name {
            $($step),*
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Gone
            }
        }
    };
}
pub(crate) use steps;

/// What the processes of a model do.
pub(crate) trait Protocol<const N: usize, const W: usize>: fmt::Display + Sized {
    /// The first word of a row.
    const NAME: &'static str;
    /// The mistakes that can be planted.
    type Bug: Copy + PartialEq + fmt::Debug;
    /// The model's own shared memory.
    type Shared: Copy + std::hash::Hash;
    /// The model's own part of a process. Names of processes in it are hidden by [`Protocol::nameless`].
    /// By default it has left, or died.
    type Process: Copy + std::hash::Hash + Ord + Default;

    /// How many processes take part.
    fn processes(&self) -> usize;

    /// The state in which everything begins.
    fn start(run: &Run<Self, N, W>) -> Of<Self, N, W>;

    /// The next step of a process by itself, in every way that it may go.
    fn step(turn: &Turn<'_, Self, N, W>, next: &mut Vec<Step<Of<Self, N, W>>>);

    /// What may happen to a process beside death: time-outs, spurious wake-ups, the end of its work.
    fn chances(turn: &Turn<'_, Self, N, W>, next: &mut Vec<Step<Of<Self, N, W>>>);

    /// Whether a process may be killed now. (One that has left may not.)
    fn is_mortal(_turn: &Turn<'_, Self, N, W>) -> bool {
        true
    }

    /// A process is being killed: what it leaves in the model's own memory.
    fn killed(_run: &Run<Self, N, W>, _state: &mut Of<Self, N, W>, _me: usize) {}

    /// The kernel takes a step for a dead process.
    fn marks(_run: &Run<Self, N, W>, _before: &Of<Self, N, W>, _state: &mut Of<Self, N, W>, _me: usize) {}

    /// Whether the kernel is older than 6.2, without the fix: it wakes through a pending word only if that is
    /// 0.
    fn is_old_kernel(_run: &Run<Self, N, W>) -> bool {
        false
    }

    /// Takes steps that no other process can notice together with the step before them.
    fn finish(_run: &Run<Self, N, W>, _state: &mut Of<Self, N, W>) {}

    /// Whether two processes do the same, and may be exchanged.
    fn alike(&self, one: usize, other: usize) -> bool;

    /// Forgets what no process will ask for.
    fn forget(_run: &Run<Self, N, W>, _state: &mut Of<Self, N, W>) {}

    /// A process without names, and the names of it that the model's own memory holds: for the order of
    /// processes.
    fn nameless(state: &Of<Self, N, W>, me: usize) -> (Self::Process, u8) {
        (state.processes[me], 0)
    }

    /// Renames processes in the model's own memory.
    fn rename(_state: &mut Of<Self, N, W>, _names: &Names) {}

    /// What is wrong with a state.
    fn wrong(run: &Run<Self, N, W>, state: &Of<Self, N, W>, quiet: bool) -> Option<&'static str>;

    /// A process that ought not to sleep, when no process can move by itself.
    fn stuck(_run: &Run<Self, N, W>, _state: &Of<Self, N, W>) -> Option<(usize, &'static str)> {
        None
    }

    /// The liveness poll of a process that is stuck: it looks again.
    fn poll(_turn: &Turn<'_, Self, N, W>, _state: &mut Of<Self, N, W>) {}

    /// One line for a trace.
    fn show(&self, state: &Of<Self, N, W>) -> String;
}

/// The states of a model.
pub(crate) type Of<M, const N: usize, const W: usize> =
    State<<M as Protocol<N, W>>::Shared, <M as Protocol<N, W>>::Process, N, W>;

/// One run: a model, how much may go wrong, and what is planted.
#[derive(Debug, Clone)]
pub(crate) struct Run<M: Protocol<N, W>, const N: usize, const W: usize> {
    pub(crate) model: M,
    /// Kills, time-outs, spurious wake-ups.
    pub(crate) left: [u8; 3],
    /// Whether a process that is stuck looks again, after a second.
    pub(crate) poll: bool,
    pub(crate) bug: Option<M::Bug>,
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> Run<M, N, W> {
    pub(crate) fn is(&self, bug: M::Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The words free, the processes as given, and as many things that may happen as the run says, with
    /// `more` of the model's own.
    pub(crate) fn begin(&self, own: M::Shared, processes: [M::Process; N], more: u8) -> Of<M, N, W> {
        let [kills, timeouts, spurious] = self.left;
        let left = [kills, timeouts, spurious, more];
        State { words: [Low(0); W], left, own, hands: [Hand::EMPTY; N], processes }
    }

    fn turn<'a>(&'a self, before: &'a Of<M, N, W>, me: usize) -> Turn<'a, M, N, W> {
        Turn { run: self, model: &self.model, before, me, p: before.processes[me] }
    }
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> fmt::Display for Run<M, N, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", M::NAME, self.model)?;
        if self.poll {
            write!(f, ", poll")?;
        }
        self.bug.map_or(Ok(()), |bug| write!(f, ", {bug:?}"))?;
        let [kills, timeouts, spurious] = self.left;
        write!(f, " | {kills}/{timeouts}/{spurious}")
    }
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> Model for Run<M, N, W> {
    type State = Of<M, N, W>;

    fn start(&self) -> Self::State {
        M::start(self)
    }

    fn steps(&self, state: &Self::State, next: &mut Vec<Step<Self::State>>) {
        for me in 0..self.model.processes() {
            let turn = self.turn(state, me);
            if state.hands[me].is_dying() {
                turn.die(next);
            } else if turn.p != M::Process::default() {
                M::step(&turn, next);
                M::chances(&turn, next);
                if M::is_mortal(&turn) {
                    turn.killed(next);
                }
            }
        }
        if self.poll
            && next.iter().all(|step| step.kind == Kind::Chance)
            && let Some((me, _)) = M::stuck(self, state)
        {
            let mut polled = *state;
            M::poll(&self.turn(state, me), &mut polled);
            next.push(Step { process: me, what: "liveness poll", kind: Kind::Own, state: polled });
        }
        for step in next.iter_mut() {
            M::finish(self, &mut step.state);
            let hand = &mut step.state.hands[step.process];
            if step.state.processes[step.process] == M::Process::default() && !hand.is_dying() {
                *hand = Hand::EMPTY;
            }
        }
    }

    /// Sorts the processes that do the same, and renames them in the words. Those that have left are only
    /// noted, and become one name.
    fn canonical(&self, state: &mut Self::State) {
        M::forget(self, state);
        let n = self.model.processes();
        let mut order: [usize; N] = std::array::from_fn(|i| i);
        let old = *state;
        let by_key = |one: &usize, other: &usize| {
            let (one, other) = (*one, *other);
            let model = M::nameless(&old, one).cmp(&M::nameless(&old, other));
            let hand = || old.hands[one].key().cmp(&old.hands[other].key());
            model.then_with(hand).then_with(|| old.owned(one).cmp(&old.owned(other)))
        };
        let mut from = 0;
        while from < n {
            let to = (from + 1..n).find(|&i| !self.model.alike(from, i)).unwrap_or(n);
            order[from..to].sort_by(by_key);
            from = to;
        }
        let mut names = Low::NAMES;
        for (new, &from) in order[..n].iter().enumerate() {
            let gone = old.processes[from] == M::Process::default() && !old.hands[from].is_dying();
            names[usize::from(tid(from))] = if gone { Low::TID } else { tid(new) };
        }
        if names == Low::NAMES {
            return;
        }
        for (new, &from) in order.iter().enumerate() {
            (state.hands[new], state.processes[new]) = (old.hands[from], old.processes[from]);
        }
        for low in state.words.iter_mut().chain(state.hands.iter_mut().flat_map(|hand| &mut hand.seen)) {
            *low = low.rename(&names);
        }
        M::rename(state, &names);
    }

    fn wrong(&self, state: &Self::State, quiet: bool) -> Option<&'static str> {
        M::wrong(self, state, quiet)
    }

    fn show(&self, state: &Self::State) -> String {
        self.model.show(state)
    }
}

/// One process in one state: everything that a step needs.
pub(crate) struct Turn<'a, M: Protocol<N, W>, const N: usize, const W: usize> {
    pub(crate) run: &'a Run<M, N, W>,
    pub(crate) model: &'a M,
    pub(crate) before: &'a Of<M, N, W>,
    pub(crate) me: usize,
    pub(crate) p: M::Process,
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> Turn<'_, M, N, W> {
    /// What may happen beside death, as indices of [`State::left`].
    pub(crate) const LATE: Option<usize> = Some(1);
    pub(crate) const SPURIOUS: Option<usize> = Some(2);
    /// What the model counts itself.
    pub(crate) const MORE: Option<usize> = Some(3);

    pub(crate) fn is(&self, bug: M::Bug) -> bool {
        self.run.is(bug)
    }

    pub(crate) fn hand(&self) -> &Hand<W> {
        &self.before.hands[self.me]
    }

    /// Goes on, having changed these.
    pub(crate) fn go(
        &self,
        next: &mut Vec<Step<Of<M, N, W>>>,
        what: &'static str,
        mut state: Of<M, N, W>,
        p: M::Process,
    ) {
        state.processes[self.me] = p;
        next.push(Step { process: self.me, what, kind: Kind::Own, state });
    }

    /// Wakes one process, or none, through a futex, and goes on as `then` says.
    pub(crate) fn wake(
        &self,
        next: &mut Vec<Step<Of<M, N, W>>>,
        futex: usize,
        what: &'static str,
        then: impl Fn(&mut M::Process, bool),
    ) {
        self.before.wake_one(futex, |mut state, woke, kind| {
            then(&mut state.processes[self.me], woke);
            next.push(Step { process: self.me, what, kind, state });
        });
    }

    /// Wakes all processes through a futex, and goes on as `then` says.
    pub(crate) fn wake_all(
        &self,
        next: &mut Vec<Step<Of<M, N, W>>>,
        futex: usize,
        what: &'static str,
        then: impl Fn(&mut M::Process),
    ) {
        let mut state = *self.before;
        let kind = state.wake_all(futex);
        then(&mut state.processes[self.me]);
        next.push(Step { process: self.me, what, kind, state });
    }

    /// Something that may happen, or not; as often as [`State::left`] says.
    pub(crate) fn chance(
        &self,
        next: &mut Vec<Step<Of<M, N, W>>>,
        left: Option<usize>,
        what: &'static str,
        edit: impl Fn(&mut Of<M, N, W>),
    ) {
        let mut state = *self.before;
        if let Some(left) = left {
            if state.left[left] == 0 {
                return;
            }
            state.left[left] -= 1;
        }
        edit(&mut state);
        next.push(Step { process: self.me, what, kind: Kind::Chance, state });
    }
}
