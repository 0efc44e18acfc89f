//! The storm over a [`JoinableQueue`]: what its workers do, and what must be true of each job in the end.

use std::collections::HashMap;
use std::time::Duration;

use multiproc::queue::{DeadLetter, Job as Lease, JoinableQueue};
use multiproc::{GetError, PutError};

use crate::common::Dice;
use crate::ledger::Verdict;
use crate::notes::{Note, Notebook, What, now};
use crate::workers::{Job, Pace, TORN, dawdle, read};

type Jobs = JoinableQueue<Vec<u8>>;

/// Puts the job, in one of several ways.
pub(crate) fn put(queue: &Jobs, mut message: Vec<u8>, dice: &mut Dice) {
    let timeouts = [200_u64, 20_000].map(|most| Duration::from_micros(dice.below(most)));
    while let Err(error) = match dice.below(10) {
        0 => queue.try_put(message),
        1 => queue.put_timeout(message, timeouts[0]),
        2 => queue.put_timeout(message, timeouts[1]),
        _ => queue.put(message),
    } {
        assert!(matches!(error, PutError::Full(_) | PutError::Busy(_)), "{error}");
        message = error.into_inner();
    }
}

/// Leases jobs, and finishes or returns them, now or later, until all is done.
pub(crate) fn work(job: &Job, queue: &Jobs, notebook: &Notebook) {
    let mut dice = Dice::new(job.seed);
    let mut held: Vec<Lease<'_, Vec<u8>>> = Vec::new();
    loop {
        let timeouts = [200_u64, 20_000].map(|most| Duration::from_micros(dice.below(most)));
        let begun = now();
        notebook.set_inside(true);
        // A process that has jobs does not wait for others, which may wait for these.
        let got = match dice.below(if held.is_empty() { 10 } else { 3 }) {
            0 => queue.try_get(),
            1 => queue.get_timeout(timeouts[0]),
            2 => queue.get_timeout(timeouts[1]),
            _ => queue.get(),
        };
        notebook.set_inside(false);
        match got {
            Ok(lease) => {
                add(notebook, &lease, What::Got(lease.attempts()), begun);
                job.board.moves.fetch_add(1);
                if job.pace == Pace::MostlyFull {
                    dawdle(&mut dice);
                }
                match dice.below(32) {
                    0 => give_back(notebook, lease),
                    1..5 => held.push(lease),
                    _ => finish(notebook, lease),
                }
            }
            Err(GetError::Empty | GetError::Busy) => {}
            Err(GetError::Closed) => {
                held.into_iter().for_each(|lease| finish(notebook, lease));
                return;
            }
            Err(error) => panic!("{error}"),
        }
        while held.len() as u64 > dice.below(5) {
            finish(notebook, held.remove(0));
        }
    }
}

fn finish(notebook: &Notebook, lease: Lease<'_, Vec<u8>>) {
    let message = lease.clone();
    let begun = now();
    add(notebook, &message, What::Finishing, begun);
    notebook.set_inside(true);
    lease.done();
    notebook.set_inside(false);
    add(notebook, &message, What::Finished, begun);
}

fn give_back(notebook: &Notebook, lease: Lease<'_, Vec<u8>>) {
    add(notebook, &lease, What::GivingBack, now());
    notebook.set_inside(true);
    lease.retry();
    notebook.set_inside(false);
}

fn add(notebook: &Notebook, message: &[u8], what: What, begun: u64) {
    let (producer, number) = read(message).unwrap_or((TORN, 0));
    notebook.add(Note { what, producer, number, begun, ended: now() });
}

/// What became of one job.
#[derive(Clone, Debug, Default)]
struct Fate {
    /// It was put for sure; otherwise its producer may have been killed before.
    noted: bool,
    deliveries: Vec<Delivery>,
    letters: usize,
}

/// From the return of a `get` until its holder had finished or returned the job.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    attempt: u32,
    begun: u64,
    ended: u64,
    /// The first moment at which another process could have it, and why.
    released: u64,
    how: How,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Finished,
    /// Killed in `done`, or right before or behind it.
    Finishing,
    GaveBack,
    Killed,
    /// Its holder lives, and has it.
    Held,
}

/// The jobs of a phase.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    fates: HashMap<u32, Vec<Fate>>,
    verdict: Verdict,
    redelivered: u64,
}

impl Accounts {
    /// What a producer noted. If it was killed between the put and its note, it has put one more.
    pub(crate) fn put(&mut self, notebook: &Notebook, producer: u32, killed: bool) {
        let count = notebook.counted();
        self.verdict.operations += count as u64;
        let mut fates = vec![Fate { noted: true, ..Fate::default() }; count];
        fates.resize(count + usize::from(killed), Fate::default());
        self.fates.insert(producer, fates);
    }

    /// What a consumer noted that was killed at this moment or later, or not at all.
    pub(crate) fn got(&mut self, notebook: &Notebook, consumer: u32, killed: Option<u64>) {
        let mut held: HashMap<(u32, u32), Delivery> = HashMap::new();
        for note in notebook.notes() {
            self.verdict.operations += 1;
            let id = (note.producer, note.number);
            let how = match note.what {
                What::Got(attempt) => {
                    let how = killed.map_or(How::Held, |_| How::Killed);
                    let released = killed.unwrap_or(u64::MAX);
                    let delivery = Delivery { attempt, begun: note.begun, ended: note.ended, released, how };
                    if held.insert(id, delivery).is_some() {
                        self.complain(format!("job {id:?} was handed to {consumer} while it had it"));
                    }
                    continue;
                }
                What::Finishing => How::Finishing,
                What::Finished => How::Finished,
                What::GivingBack => How::GaveBack,
            };
            let Some(delivery) = held.get_mut(&id) else {
                self.complain(format!("a bad notebook: {note:?}"));
                continue;
            };
            (delivery.how, delivery.released) = (how, note.begun);
            if matches!(how, How::Finished | How::GaveBack) {
                let delivery = held.remove(&id).unwrap();
                self.deliver(id, delivery);
            }
        }
        for (id, delivery) in held {
            self.deliver(id, delivery);
        }
    }

    /// A dead letter that was found in the end.
    pub(crate) fn dead_letter(&mut self, letter: &DeadLetter<Vec<u8>>, most: u16) {
        let id = letter.value().ok().and_then(|message| read(&message)).unwrap_or((TORN, 0));
        if most == 0 || letter.attempts() != u32::from(most) {
            self.complain(format!(
                "{id:?} is a dead letter after {} of {most} deliveries",
                letter.attempts()
            ));
        }
        match self.fate(id) {
            Some(fate) => fate.letters += 1,
            None => self.complain(format!("dead letter {id:?} was never put")),
        }
    }

    fn fate(&mut self, (producer, number): (u32, u32)) -> Option<&mut Fate> {
        self.fates.get_mut(&producer)?.get_mut(number as usize)
    }

    fn deliver(&mut self, id: (u32, u32), delivery: Delivery) {
        self.redelivered += u64::from(delivery.attempt > 1);
        match self.fate(id) {
            Some(fate) => fate.deliveries.push(delivery),
            None => {
                self.complain(format!("job {id:?} was {}", if id.0 == TORN { "torn" } else { "never put" }))
            }
        }
    }

    /// Everything is done. Returns how many jobs were delivered again.
    pub(crate) fn settle(mut self) -> (Verdict, u64) {
        let mut fates = std::mem::take(&mut self.fates);
        for (producer, fates) in &mut fates {
            let mut latest = (0, 0);
            for (number, fate) in fates.iter_mut().enumerate() {
                fate.deliveries.sort_by_key(|delivery| delivery.attempt);
                if let Some(fault) = fate.fault() {
                    self.complain(format!("job {number} of producer {producer} {fault}: {fate:?}"));
                }
                self.verdict.lost += u64::from(fate.is_lost());
                // First deliveries are in the order of the puts.
                if let Some(first) = fate.deliveries.first().filter(|delivery| delivery.attempt == 1) {
                    if first.ended < latest.0 {
                        self.complain(format!(
                            "job {number} of producer {producer} has overtaken {}",
                            latest.1
                        ));
                    }
                    latest = latest.max((first.begun, number));
                }
            }
        }
        (self.verdict, self.redelivered)
    }

    fn complain(&mut self, complaint: String) {
        self.verdict.complaints.push(complaint);
    }
}

impl Fate {
    /// Put, and neither done nor dead.
    fn is_lost(&self) -> bool {
        let is_settled = |delivery: &Delivery| matches!(delivery.how, How::Finished | How::Finishing);
        self.noted && self.letters == 0 && !self.deliveries.last().is_some_and(is_settled)
    }

    fn fault(&self) -> Option<&'static str> {
        let finished = self.deliveries.iter().filter(|delivery| delivery.how == How::Finished).count();
        if self.is_lost() {
            return Some("is lost");
        }
        if finished + self.letters > 1 {
            return Some("was done twice");
        }
        for pair in self.deliveries.windows(2) {
            let [one, next] = pair else { continue };
            if one.attempt == next.attempt {
                return Some("was delivered twice as the same attempt");
            }
            if matches!(one.how, How::Finished | How::Held) {
                return Some("was delivered again, though its holder lived");
            }
            if next.ended < one.released {
                return Some("was delivered while another had it");
            }
        }
        None
    }
}
