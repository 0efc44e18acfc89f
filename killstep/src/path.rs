//! The path of an operation: where its first run changed the shared state, so that later runs need not be led
//! step by step.
//!
//! A single step costs two context switches, and on a virtual machine some exits to the hypervisor: 20 to 45
//! us. The first run of a case is led so, and notes which instruction made each change. A later run goes at
//! full speed from one of these instructions to the next, and makes the instruction itself as a single step.
//! Each change is checked: a run that enters the kernel in between, that arrives with other shared bytes, or
//! whose instruction changes nothing has strayed from the path. The attempt is then repeated step by step.

use std::io;

use crate::control::stage;
use crate::sys;
use crate::victim::{Guide, Target, Victim};

/// The changes of a run, in order.
#[derive(Debug, Default)]
pub(crate) struct Path {
    changes: Vec<Change>,
    /// The instructions since the most recent change.
    since: Vec<usize>,
}

/// One change of the state.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// The instruction that makes the change, and at which of its executions since the change before; `None`:
    /// the victim wakes from its sleep in a system call.
    instruction: Option<(usize, usize)>,
    /// Whether it changes the victim's robust list. Only the victim itself does; the bytes its peers change
    /// too.
    list: bool,
    /// How many steps the victim has made after the change.
    step: u64,
}

impl Path {
    /// Notes a step that began at `instruction` (`None`: asleep), was the `step`th, and changed the state
    /// (`Some(true)`: with it the robust list) or did not (`None`).
    pub(crate) fn note(&mut self, instruction: Option<usize>, step: u64, changed: Option<bool>) {
        self.since.extend(instruction);
        if let Some(list) = changed {
            let executions = |at| (at, self.since.iter().filter(|other| **other == at).count());
            self.changes.push(Change { instruction: instruction.map(executions), list, step });
            self.since.clear();
        }
    }

    /// How many of the changes lie on the way to `target`.
    fn towards(&self, target: Target) -> &[Change] {
        let count = match target {
            Target::State(changes) => usize::try_from(changes).unwrap_or(usize::MAX).min(self.changes.len()),
            Target::Step(step) => self.changes.partition_point(|change| change.step <= step),
            Target::End => self.changes.len(),
        };
        &self.changes[..count]
    }
}

impl Victim {
    /// Leads the victim along `path` as far as that goes towards `target`. Returns `false` if the victim has
    /// strayed: its state is then unknown, and it can only be killed.
    pub(crate) fn follow(&mut self, path: &Path, target: Target, guide: &Guide<'_>) -> io::Result<bool> {
        let mut entered = false;
        for change in path.towards(target) {
            if entered {
                self.settle_all(guide);
            }
            let arrived = match change.instruction {
                None => self.blocked,
                Some(_) if self.blocked => false,
                Some((at, execution)) => self.run_to(at, execution, guide)?,
            };
            let before = self.look(guide);
            // A peer changes the bytes after a system call that has woken it, and whenever its brief park
            // ends.
            let by_peers = entered || !guide.peers.is_empty();
            let unseen =
                before.list != self.snapshot.list || (!by_peers && before.bytes != self.snapshot.bytes);
            if !arrived || unseen {
                return Ok(false);
            }
            entered = if self.blocked { self.wake(guide)? } else { self.advance(guide)? };
            let now = self.look(guide);
            let nothing = !entered && guide.peers.is_empty() && now == before;
            if nothing || (now.list != before.list) != change.list {
                return Ok(false);
            }
            self.snapshot = now;
            self.step = change.step;
            self.changes += 1;
        }
        if entered {
            self.settle_all(guide);
        }
        Ok(guide.cells.stage(guide.role) != stage::DONE
            || path.towards(Target::End).len() == path.towards(target).len())
    }

    /// Runs at full speed until the instruction at `at` is about to be executed for the `execution`th time.
    fn run_to(&mut self, at: usize, execution: usize, guide: &Guide<'_>) -> io::Result<bool> {
        let mut left = execution;
        loop {
            if self.counter == at {
                left -= 1;
                if left == 0 {
                    return Ok(true);
                }
                // An iteration of `rep movs` stays where it is: then this was one more execution.
                if self.advance(guide)? {
                    return Ok(false);
                }
            } else if sys::run_to(&mut self.child, at, &guide.vdso, guide.watchdog)? {
                self.counter = at;
            } else {
                return Ok(false);
            }
        }
    }
}
