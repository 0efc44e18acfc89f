//! The tables: which configurations are run, and what is to come out.

mod lease;
mod membership;
mod reservation;
mod ring;
mod sync;

use crate::kernel::{Protocol, Run};
use crate::{Expect, Row};

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = sync::locks().map(Case::row).collect();
    rows.extend(sync::conditions().map(Case::row));
    rows.extend(sync::semaphores().map(Case::row));
    rows.extend(sync::rwlocks().map(Case::row));
    rows.extend(sync::barriers().map(Case::row));
    rows.extend(ring::rows().map(Case::row));
    rows.extend(lease::rows().map(Case::row));
    rows.extend(membership::rows().map(Case::row));
    rows.extend(reservation::rows().map(Case::row));
    rows
}

/// A row of one model.
struct Case<M: Protocol<N, W>, const N: usize, const W: usize> {
    run: Run<M, N, W>,
    expect: Expect,
    deep: bool,
    live: bool,
}

impl<M: Protocol<N, W>, const N: usize, const W: usize> Case<M, N, W> {
    /// A configuration that is right and live, with as many kills, time-outs and spurious wake-ups as given.
    fn new(model: M, left: [u8; 3]) -> Self {
        let run = Run { model, left, poll: false, bug: None };
        Self { run, expect: Expect::Right, deep: false, live: true }
    }

    fn with(mut self, change: impl FnOnce(&mut M)) -> Self {
        change(&mut self.run.model);
        self
    }

    fn deep(mut self) -> Self {
        self.deep = true;
        self
    }

    fn live(mut self) -> Self {
        self.live = true;
        self
    }

    /// The same with a planted mistake, which must be found.
    fn bug(mut self, bug: M::Bug) -> Self {
        (self.run.bug, self.expect, self.live) = (Some(bug), Expect::Found, false);
        self
    }

    /// The same with a part of the protocol left out that is not needed: nothing must be found.
    fn spare(mut self, bug: M::Bug) -> Self {
        (self.run.bug, self.live) = (Some(bug), false);
        self
    }

    /// A known gap: exactly these complaints.
    fn gap(mut self, complaints: &'static [&'static str]) -> Self {
        self.expect = Expect::Gap(complaints);
        self
    }

    /// With the liveness poll.
    fn poll(mut self) -> Self {
        self.run.poll = true;
        self
    }
}

impl<M: Protocol<N, W> + Send + Sync + 'static, const N: usize, const W: usize> Case<M, N, W>
where
    M::Bug: Send + Sync,
{
    fn row(self) -> Row {
        let Self { run, expect, deep, live } = self;
        Row { system: Box::new(run), expect, deep, live }
    }
}
