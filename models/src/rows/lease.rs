//! The rows of the leased jobs.

use super::Case;
use crate::lease::{ALL, Bug, Lease, PROCESSES, Role, WORDS};

type Row = Case<Lease, PROCESSES, WORDS>;

/// A row: the processes that take part; the leases, how many of them were used, the messages that are there;
/// kills, time-outs, spurious wake-ups.
fn lease(roles: &[Role], [leases, used, filled]: [u8; 3], left: [u8; 3]) -> Row {
    Case::new(Lease { roles: roles.to_vec(), leases, used, filled, ..Lease::default() }, left)
}

impl Row {
    /// So many jobs may be given back.
    fn backs(self, backs: u8) -> Self {
        self.with(|lease| lease.backs = backs)
    }

    /// A dead process has left a job.
    fn legacy(self) -> Self {
        self.with(|lease| lease.legacy = true)
    }

    /// A job that comes back becomes a dead letter.
    fn poison(self) -> Self {
        self.with(|lease| lease.poison = true)
    }

    /// There is a dead letter.
    fn letter(self) -> Self {
        self.with(|lease| lease.letter = true)
    }

    fn closed(self) -> Self {
        self.with(|lease| lease.closed = true)
    }
}

const J: Role = Role::Joiner;
const ONE: Role = Role::Consumer { jobs: 1 };
const REVIVER: Role = Role::Reviver;
const MANY: Role = Role::Consumer { jobs: ALL };
const PUTS: Role = Role::Producer { messages: 1 };

pub(super) fn rows() -> impl Iterator<Item = Row> {
    [right(), bugs()].into_iter().flatten()
}

fn right() -> Vec<Row> {
    vec![
        // Jobs come back and are starved for; a put; the first use of slots; consumers and joiners that
        // sleep; the end; a dead letter.
        lease(&[MANY, MANY], [2, 0, 2], [1, 1, 1]).backs(1),
        lease(&[MANY, MANY], [1, 1, 2], [2, 0, 0]).backs(1),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).backs(1),
        lease(&[ONE, ONE, ONE], [2, 0, 3], [1, 0, 0]),
        lease(&[PUTS, MANY, MANY], [2, 0, 0], [1, 0, 0]),
        lease(&[PUTS, ONE, ONE], [1, 1, 1], [1, 0, 0]),
        lease(&[MANY, J], [2, 0, 2], [2, 1, 1]),
        lease(&[PUTS, MANY, J], [1, 0, 0], [1, 0, 0]),
        lease(&[ONE, ONE, J], [1, 1, 2], [1, 0, 0]),
        lease(&[MANY, MANY], [2, 0, 1], [2, 0, 0]).closed(),
        lease(&[ONE, J], [1, 1, 1], [2, 0, 1]).closed(),
        lease(&[MANY, MANY, MANY], [2, 2, 1], [0, 0, 1]).closed(),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter(),
        lease(&[REVIVER, J], [1, 0, 0], [2, 1, 1]).letter(),
        lease(&[REVIVER, MANY], [1, 1, 1], [2, 0, 0]).letter(),
        lease(&[REVIVER, ONE, ONE], [1, 1, 1], [1, 0, 0]).letter(),
        lease(&[ONE, ONE], [1, 1, 1], [1, 1, 1]).legacy(),
        lease(&[MANY, MANY], [1, 1, 2], [2, 0, 0]).backs(1).poison(),
        lease(&[MANY, J], [2, 0, 2], [2, 0, 0]).backs(1).poison(),
        // Large ones.
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).backs(1).poison().deep(),
        lease(&[ONE, ONE, J], [2, 0, 1], [1, 0, 0]).deep(),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).legacy().deep(),
        lease(&[ONE, ONE, J], [2, 2, 1], [1, 0, 0]).closed().deep(),
        lease(&[REVIVER, ONE, J], [2, 2, 0], [1, 0, 0]).letter().deep(),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [1, 0, 0]).letter().deep(),
        lease(&[MANY, MANY, J], [1, 1, 1], [1, 0, 0]).deep(),
        lease(&[MANY, MANY, J], [2, 0, 2], [1, 0, 0]).deep(),
        lease(&[PUTS, MANY, MANY, J], [1, 1, 0], [0, 0, 0]).deep(),
        lease(&[MANY, MANY, MANY], [1, 1, 2], [1, 0, 0]).deep(),
        lease(&[PUTS, MANY, J], [2, 0, 1], [2, 0, 0]).deep(),
        lease(&[PUTS, MANY, MANY], [1, 1, 0], [2, 0, 0]).deep(),
        lease(&[ONE, ONE, J], [1, 1, 1], [2, 0, 0])
            .gap(&["JOINS THOUGH ALL IS DONE", "LOST LOCK WAKE", "SLEEPS BESIDE A JOB"])
            .deep(),
        lease(&[ONE, ONE, ONE], [1, 1, 1], [2, 0, 0]).gap(&["SLEEPS BESIDE A JOB"]).deep(),
        // The same, with the liveness poll.
        lease(&[ONE, ONE, J], [1, 1, 1], [2, 0, 0]).poll().deep(),
        lease(&[ONE, ONE, ONE], [1, 1, 1], [2, 0, 0]).poll().deep(),
    ]
}

fn bugs() -> Vec<Row> {
    vec![
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).bug(Bug::LeasedBeforeHead),
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).bug(Bug::HeadBeforeLeased),
        lease(&[MANY, MANY], [2, 0, 2], [0, 0, 0]).bug(Bug::FreeAfterRelease),
        lease(&[MANY, MANY], [2, 0, 2], [0, 0, 0]).bug(Bug::StateBeforeLock),
        lease(&[MANY, MANY], [2, 0, 2], [1, 0, 0]).bug(Bug::RecoverLate),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).bug(Bug::LeasesUnwatched),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).bug(Bug::FirstUseNotNotified),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).bug(Bug::LeasesCountedOnce),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).backs(1).bug(Bug::HalfMovedUnseen),
        lease(&[MANY, MANY], [1, 1, 1], [2, 0, 0]).poison().bug(Bug::NoDeadLettering),
        lease(&[REVIVER, J], [1, 1, 0], [1, 0, 0]).letter().bug(Bug::JoinerRecoversNothing),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).bug(Bug::JoinerKeepsWake),
        lease(&[ONE, ONE, J], [1, 1, 1], [1, 0, 0]).bug(Bug::WokenNotifiesNone),
        lease(&[PUTS, ONE, J], [1, 1, 1], [0, 0, 0]).bug(Bug::FinishedWithoutSecondLook),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter().bug(Bug::RevivedUncounted),
        lease(&[REVIVER, ONE, J], [2, 2, 1], [0, 0, 0]).letter().bug(Bug::CountedFirst),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).bug(Bug::NotifiesUnarmed),
        lease(&[MANY, J], [2, 0, 2], [1, 0, 0]).bug(Bug::DoneKeepsJoinersEpoch),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [1, 0, 0]).bug(Bug::DoneKeepsEpoch),
        lease(&[MANY, MANY], [1, 1, 2], [1, 0, 0]).backs(1).bug(Bug::BackKeepsEpoch),
        lease(&[ONE, ONE], [1, 1, 1], [1, 0, 0]).legacy().bug(Bug::RecovererKeepsEpoch),
        lease(&[ONE, ONE, ONE], [1, 1, 3], [0, 0, 0]).bug(Bug::StarvedForgotten),
        lease(&[MANY, MANY, MANY], [2, 2, 1], [0, 0, 1]).closed().bug(Bug::WokenNotifiesAll).live(),
        lease(&[Role::Producer { messages: 2 }, ONE, ONE], [2, 2, 0], [1, 0, 0]).bug(Bug::NoChain),
    ]
}
