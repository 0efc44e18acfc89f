//! Random operations on a joinable queue and on a model of it: what waits, what is leased, what returned and
//! from which holder, what is a dead letter.
#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use multiproc_queue::{GetError, Job, JobCounters, JobLimits, JoinableQueue, PutError};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use kit::pattern;

/// How a holder was rid of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Nobody,
    GaveBack,
    Died,
}

/// A job that was leased before, or was a dead letter.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    value: Vec<u8>,
    deliveries: u32,
    last: Last,
}

/// What a joinable queue promises.
struct Model {
    messages: usize,
    /// 0: no limit.
    most: u32,
    closed: bool,
    waiting: VecDeque<Vec<u8>>,
    /// Jobs that returned. One that was leased too often becomes a dead letter at some later get.
    back: Vec<Known>,
    dead: VecDeque<Known>,
    /// Taken by `take`, the oldest first.
    taken: VecDeque<Known>,
    /// The most jobs that were leased or returned at once.
    peak: usize,
    counts: Counts,
}

/// What the counters must say.
#[derive(Debug, Default, PartialEq)]
struct Counts {
    puts: u64,
    gets: u64,
    redelivered: u64,
    dead_lettered: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    Get,
    GetBriefly,
    /// The job with this number among those that this thread holds, modulo their count.
    Done(usize),
    Retry(usize),
    /// A thread gets a job and ends.
    Die,
    Take,
    TaskDone,
    Join,
    TakeLetter,
    Replay,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![20 => 8..40_usize, 5 => 40..9000_usize, 1 => 100_000..300_000_usize];
    let step = prop_oneof![
        30 => length().prop_map(Step::Put),
        20 => Just(Step::Get),
        4 => Just(Step::GetBriefly),
        14 => any::<usize>().prop_map(Step::Done),
        10 => any::<usize>().prop_map(Step::Retry),
        2 => Just(Step::Die),
        4 => Just(Step::Take),
        4 => Just(Step::TaskDone),
        3 => Just(Step::Join),
        3 => Just(Step::TakeLetter),
        2 => Just(Step::Replay),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..200)
}

/// The most jobs at a time; each may be leased, or have returned.
const MOST: usize = 100;
/// With more leases than this in use, a get may take a new job although another has returned: it does not
/// look at every lease.
const LOOKS: usize = 4;
const BRIEFLY: Duration = Duration::from_nanos(1);

type Jobs = JoinableQueue<Vec<u8>>;

impl Model {
    fn spent(&self, job: &Known) -> bool {
        self.most != 0 && job.deliveries >= self.most
    }

    /// Some jobs that were leased too often are dead letters by now: those that the queue lists.
    fn bury(&mut self, queue: &Jobs) -> Result<(), TestCaseError> {
        let letters = queue.dead_letters().list().unwrap();
        prop_assert_eq!(queue.dead_letters().len(), letters.len());
        for (place, letter) in letters.iter().enumerate() {
            let value = letter.value().unwrap();
            if place >= self.dead.len() {
                let found = self.back.iter().position(|job| job.value == value);
                let job = self.back.swap_remove(found.expect("a dead letter came back before"));
                prop_assert!(self.spent(&job), "{} deliveries, and dead", job.deliveries);
                self.dead.push_back(job);
                self.counts.dead_lettered += 1;
            }
            let job = &self.dead[place];
            prop_assert_eq!((&value, letter.attempts()), (&job.value, job.deliveries));
            prop_assert_eq!(letter.last_holder().died(), job.last == Last::Died);
        }
        prop_assert_eq!(letters.len(), self.dead.len());
        Ok(())
    }

    /// This job was leased, in this state.
    fn got(&mut self, queue: &Jobs, value: &[u8]) -> Result<Known, TestCaseError> {
        self.bury(queue)?;
        if let Some(found) = self.back.iter().position(|job| job.value == value) {
            let job = self.back.swap_remove(found);
            prop_assert!(!self.spent(&job), "handed out more often than may be");
            // The first lease of a replayed dead letter does not count.
            self.counts.redelivered += u64::from(job.deliveries > 0);
            return Ok(Known { deliveries: job.deliveries + 1, ..job });
        }
        prop_assert_eq!(Some(value), self.waiting.front().map(Vec::as_slice));
        let alive = self.back.iter().any(|job| !self.spent(job));
        prop_assert!(!alive || self.peak > LOOKS, "a new one before one that came back");
        self.waiting.pop_front();
        self.counts.gets += 1;
        Ok(Known { value: value.to_vec(), deliveries: 1, last: Last::Nobody })
    }

    /// No job was leased.
    fn got_nothing(&mut self, queue: &Jobs, error: &GetError) -> Result<(), TestCaseError> {
        self.bury(queue)?;
        prop_assert_eq!((&self.back, self.waiting.len()), (&vec![], 0));
        prop_assert_eq!(error, &if self.closed { GetError::Closed } else { GetError::Empty });
        Ok(())
    }
}

proptest! {
    // The minimal failing case is printed. It belongs into a named test, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs(messages in prop_oneof![1..8_usize, 1..80_usize], most in 0..4_u16, steps in steps()) {
        let limits = JobLimits::from(messages);
        let limits = if most == 0 { limits.unlimited_deliveries() } else { limits.max_deliveries(most) };
        let queue: Jobs = JoinableQueue::new(limits).unwrap();
        let mut model = Model {
            messages,
            most: u32::from(most),
            closed: false,
            waiting: VecDeque::new(),
            back: Vec::new(),
            dead: VecDeque::new(),
            taken: VecDeque::new(),
            peak: 0,
            counts: Counts::default(),
        };
        let mut held: Vec<(Job<'_, Vec<u8>>, Known)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            let out = held.len() + model.taken.len();
            match step {
                Step::Put(_) if out + model.back.len() + model.dead.len() + model.waiting.len() >= MOST => {}
                Step::Put(length) => {
                    let value = pattern(number as u64, length);
                    match queue.try_put(value.clone()) {
                        Ok(()) => {
                            prop_assert!(!model.closed && model.waiting.len() < model.messages);
                            model.waiting.push_back(value);
                            model.counts.puts += 1;
                        }
                        Err(PutError::Full(back)) => {
                            prop_assert!(!model.closed && model.waiting.len() == model.messages);
                            prop_assert_eq!(back, value);
                        }
                        Err(PutError::Closed(back)) => prop_assert!(model.closed && back == value),
                        Err(error) => prop_assert!(false, "{}", error),
                    }
                }
                Step::Get | Step::GetBriefly => {
                    let waits = matches!(step, Step::GetBriefly);
                    match if waits { queue.get_timeout(BRIEFLY) } else { queue.try_get() } {
                        Ok(job) => {
                            let known = model.got(&queue, &job)?;
                            prop_assert_eq!(job.attempts(), known.deliveries);
                            prop_assert_eq!(job.last_holder().is_none(), known.last == Last::Nobody);
                            let died = job.last_holder().is_some_and(|last| last.died());
                            prop_assert_eq!(died, known.last == Last::Died);
                            held.push((job, known));
                        }
                        Err(error) => model.got_nothing(&queue, &error)?,
                    }
                }
                Step::Done(_) | Step::Retry(_) if held.is_empty() => {}
                Step::Done(which) => held.swap_remove(which % held.len()).0.done(),
                Step::Retry(which) => {
                    let (job, known) = held.swap_remove(which % held.len());
                    job.retry();
                    model.back.push(Known { last: Last::GaveBack, ..known });
                }
                Step::Die => {
                    let queue = &queue;
                    let died = thread::scope(|scope| {
                        let die = scope.spawn(|| queue.try_get().map(|job| {
                            let value = job.clone();
                            std::mem::forget(job);
                            value
                        }));
                        die.join().unwrap()
                    });
                    match died {
                        Ok(value) => {
                            let known = model.got(queue, &value)?;
                            model.back.push(Known { last: Last::Died, ..known });
                        }
                        // A job that this thread holds may return, as far as that other thread knows.
                        Err(GetError::Empty) if out > 0 => model.bury(queue)?,
                        Err(error) => model.got_nothing(queue, &error)?,
                    }
                }
                Step::Take if model.waiting.is_empty() && model.back.iter().all(|job| model.spent(job)) => {}
                Step::Take => {
                    let value = match number % 3 {
                        0 => queue.take(),
                        1 => queue.try_take(),
                        _ => queue.take_timeout(Duration::from_secs(9)),
                    };
                    let value = value.unwrap();
                    let known = model.got(&queue, &value)?;
                    model.taken.push_back(known);
                }
                Step::TaskDone => {
                    prop_assert_eq!(queue.task_done().is_ok(), model.taken.pop_front().is_some());
                }
                Step::Join => {
                    let all = out + model.back.len() + model.waiting.len() == 0;
                    prop_assert_eq!(queue.join_timeout(BRIEFLY), Ok(all));
                }
                Step::TakeLetter => {
                    let letter = queue.dead_letters().take().unwrap().map(|letter| letter.value().unwrap());
                    prop_assert_eq!(letter, model.dead.pop_front().map(|job| job.value));
                }
                Step::Replay => {
                    prop_assert_eq!(queue.dead_letters().replay(), Ok(model.dead.len()));
                    let alive = |job: Known| Known { deliveries: 0, last: Last::Nobody, ..job };
                    model.back.extend(model.dead.drain(..).map(alive));
                }
                Step::Close => {
                    queue.close();
                    model.closed = true;
                }
            }
            let out = held.len() + model.taken.len();
            model.peak = model.peak.max(out + model.back.len());
            prop_assert_eq!((queue.len(), queue.leased()), (model.waiting.len(), out));
            prop_assert_eq!(queue.unfinished(), model.waiting.len() + out + model.back.len());
            prop_assert_eq!(queue.is_full(), model.waiting.len() == model.messages);
            prop_assert_eq!((queue.is_empty(), queue.is_closed()), (model.waiting.is_empty(), model.closed));
            prop_assert_eq!(queue.dead_letters().len(), model.dead.len());
            let JobCounters { puts, gets, redelivered, dead_lettered, .. } = queue.counters();
            prop_assert_eq!(&Counts { puts, gets, redelivered, dead_lettered }, &model.counts);
        }
    }
}
