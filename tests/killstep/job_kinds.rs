//! Jobs of bytes and of plain values, and Python's ways to take one: what was put is there until it is done,
//! and the counters agree with it.

use std::collections::BTreeMap;
use std::time::Duration;

use multiproc::{GetError, Job, JobLimits, JoinableQueue, Plain};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{BRIEFLY, SOON, beginnings, ignore, nothing_left};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in bytes_cases() {
        sweep.run(&case);
    }
    for case in plain_cases() {
        sweep.run(&case);
    }
    for case in taken_cases() {
        sweep.run(&case);
    }
}

type Bytes = JoinableQueue<[u8]>;
type Words = JoinableQueue<Plain<u32>>;

fn bytes_cases() -> Vec<Case<'static, Bytes>> {
    vec![
        putting("jobs/put_bytes", |queue: &Bytes| ignore(queue.put_bytes(&[0; 4]))),
        putting("jobs/try_put_bytes", |queue: &Bytes| ignore(queue.try_put_bytes(&[0; 4]))),
        putting("jobs/put_bytes_timeout", |queue: &Bytes| ignore(queue.put_bytes_timeout(&[0; 4], SOON))),
        holding("jobs/get_bytes", |queue: &Bytes| ignore(queue.get_bytes())),
        holding("jobs/try_get_bytes", |queue: &Bytes| ignore(queue.try_get_bytes())),
        holding("jobs/get_bytes_timeout", |queue: &Bytes| ignore(queue.get_bytes_timeout(SOON))),
        doing("jobs/get_bytes+done", |queue: &Bytes| {
            queue.get_bytes().map(|job| number(&job.into_inner())).ok()
        }),
    ]
}

fn plain_cases() -> Vec<Case<'static, Words>> {
    vec![
        putting("jobs/put_plain", |queue: &Words| ignore(queue.put_plain(&0))),
        putting("jobs/try_put_plain", |queue: &Words| ignore(queue.try_put_plain(&0))),
        putting("jobs/put_plain_timeout", |queue: &Words| ignore(queue.put_plain_timeout(&0, SOON))),
        holding("jobs/get_plain", |queue: &Words| ignore(queue.get_plain())),
        holding("jobs/try_get_plain", |queue: &Words| ignore(queue.try_get_plain())),
        holding("jobs/get_plain_timeout", |queue: &Words| ignore(queue.get_plain_timeout(SOON))),
        doing("jobs/get_plain+done", |queue: &Words| queue.get_plain().map(Job::into_inner).ok()),
    ]
}

fn taken_cases() -> Vec<Case<'static, JoinableQueue<u32>>> {
    type Jobs = JoinableQueue<u32>;
    let done = |queue: &Jobs, taken: Result<u32, GetError>| {
        let number = taken.ok()?;
        queue.task_done().unwrap();
        Some(number)
    };
    vec![
        doing("jobs/try_take+task_done", move |queue: &Jobs| done(queue, queue.try_take())),
        doing("jobs/take_timeout+task_done", move |queue: &Jobs| done(queue, queue.take_timeout(SOON))),
        case(
            "jobs/get, dead-letters, counted",
            || back_and_deadly(2),
            |queue: &Jobs, _| ignore(queue.get()),
            |queue, kill| all_there(queue, kill, 2, 0),
        ),
    ]
}

/// A queue of numbers, however they travel.
trait Numbers {
    fn empty(limits: JobLimits) -> Self;
    fn add(&self, number: u32, patience: Duration) -> Result<(), Fault>;
    /// Its number, and how often it was handed out.
    fn finish(&self, patience: Duration) -> Result<(u32, u32), GetError>;
    fn give_back(&self);
    fn state(&self) -> State;
    fn join(&self, patience: Duration) -> Result<bool, GetError>;
}

/// What a queue says of itself.
#[derive(Debug)]
struct State {
    waiting: u64,
    unfinished: usize,
    letters: u64,
    counters: multiproc::JobCounters,
}

macro_rules! numbers {
    ($type:ty, $number:ident => $put:ident($message:expr), $get:ident, $job:ident => $back:expr) => {
        impl Numbers for JoinableQueue<$type> {
            fn empty(limits: JobLimits) -> Self {
                Self::new(limits).unwrap()
            }

            fn add(&self, $number: u32, patience: Duration) -> Result<(), Fault> {
                Ok(self.$put($message, patience)?)
            }

            fn finish(&self, patience: Duration) -> Result<(u32, u32), GetError> {
                let $job = self.$get(patience)?;
                let attempts = $job.attempts();
                let number = $back;
                $job.done();
                Ok((number, attempts))
            }

            fn give_back(&self) {
                self.$get(SOON).unwrap().retry();
            }

            fn state(&self) -> State {
                State {
                    waiting: self.len() as u64,
                    unfinished: self.unfinished(),
                    letters: self.dead_letters().len() as u64,
                    counters: self.counters(),
                }
            }

            fn join(&self, patience: Duration) -> Result<bool, GetError> {
                self.join_timeout(patience)
            }
        }
    };
}
numbers!(u32, value => put_timeout(value), get_timeout, job => *job);
numbers!([u8], value => put_bytes_timeout(&value.to_ne_bytes()), get_bytes_timeout, job => number(&job));
numbers!(Plain<u32>, value => put_plain_timeout(&value), get_plain_timeout, job => *job);

fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(u32::MAX, u32::from_ne_bytes)
}

/// The victim puts 0, and so does its recoverer.
fn putting<Q: Numbers + 'static>(name: &str, put: impl Fn(&Q) + 'static) -> Case<'static, Q> {
    let victim = move |queue: &Q, _: &Cells| put(queue);
    case(
        name,
        || used(JobLimits::from(8).unlimited_deliveries()),
        victim,
        |queue, kill| {
            let there = collect(queue, kill)?.len();
            let (least, most) =
                (usize::from(kill.finished()) + usize::from(kill.recoverer_finished()), deaths(kill).max(1));
            if there < least || there > most {
                return Err(Fault::Lost(format!("{there} jobs of {least} to {most}")));
            }
            goes_on(queue, kill)
        },
    )
}

/// 0 was returned, 1 waits, and the victim dies with one of them; so does its recoverer.
fn holding<Q: Numbers + 'static>(name: &str, hold: impl Fn(&Q) + 'static) -> Case<'static, Q> {
    case(name, two, move |queue, _| hold(queue), |queue, kill| all_there(queue, kill, 2, 0))
}

/// 0 was returned, 1 waits, and the victim gets one of them done; so does its recoverer.
fn doing<Q: Numbers + 'static>(name: &str, work: impl Fn(&Q) -> Option<u32> + 'static) -> Case<'static, Q> {
    let victim = move |queue: &Q, cells: &Cells| {
        if let Some(number) = work(queue) {
            cells.add(number as usize, 1);
        }
    };
    case(name, two, victim, |queue, kill| all_there(queue, kill, 2, deaths(kill).max(1)))
}

fn two<Q: Numbers>() -> Q {
    let queue: Q = used(JobLimits::from(8).unlimited_deliveries());
    (0..2).for_each(|number| queue.add(number, SOON).unwrap());
    queue.give_back();
    queue
}

/// So many jobs, of which the first is a dead letter when it is asked for next.
fn back_and_deadly<Q: Numbers>(count: u32) -> Q {
    let queue: Q = used(JobLimits::from(8).max_deliveries(1));
    (0..count).for_each(|number| queue.add(number, SOON).unwrap());
    queue.give_back();
    queue
}

/// A lease has been used.
fn used<Q: Numbers>(limits: JobLimits) -> Q {
    let queue = Q::empty(limits);
    queue.add(9, SOON).unwrap();
    queue.finish(SOON).unwrap();
    queue
}

/// Each of these jobs is there once, or was done once, or is a dead letter. `unnoted`: as many may be done
/// without a note, because the process that did them was killed. The counters say the same.
fn all_there<Q: Numbers>(queue: &Q, kill: &Kill<'_>, count: u32, unnoted: usize) -> Result<(), Fault> {
    let got = collect(queue, kill)?;
    let state = queue.state();
    let done = |number: u32| usize::try_from(kill.cell(number as usize)).unwrap_or(usize::MAX);
    if let Some(number) = (0..count).find(|number| done(*number) + usize::from(got.contains_key(number)) > 1)
    {
        return Err(Fault::Torn(format!("{number} was done, and is there")));
    }
    let missing = (0..count).filter(|number| done(*number) == 0 && !got.contains_key(number)).count();
    if missing > unnoted + usize::try_from(state.letters).unwrap_or(usize::MAX) {
        return Err(Fault::Lost(format!("{missing} jobs, {got:?}, {state:?}")));
    }
    let counters = state.counters;
    let again = got.values().map(|attempts| u64::from(attempts - 1)).sum::<u64>();
    // A job that another process has done was perhaps leased again, too, as often as there were deaths.
    let (least, most) =
        if missing + (0..count).map(done).sum::<usize>() == 0 { (again, again) } else { (again, again + 3) };
    if counters.puts != counters.gets
        || counters.dead_lettered != state.letters
        || !(least..=most).contains(&counters.redelivered)
    {
        return Err(Fault::Torn(format!("redelivered {least} to {most}, {state:?}")));
    }
    goes_on(queue, kill)
}

/// Gets everything done: how often each was handed out. Meanwhile the counters say what waits.
fn collect<Q: Numbers>(queue: &Q, kill: &Kill<'_>) -> Result<BTreeMap<u32, u32>, Fault> {
    let mut got = BTreeMap::new();
    loop {
        let state = queue.state();
        if state.counters.puts - state.counters.gets != state.waiting {
            return Err(Fault::Torn(format!("{state:?}")));
        }
        if state.unfinished == 0 {
            return Ok(got);
        }
        match queue.finish(kill.patience()) {
            Ok((number, attempts)) if got.insert(number, attempts).is_none() => {}
            Ok((number, _)) => {
                got.insert(1000 + u32::try_from(got.len()).unwrap_or(0) + number, 1).map_or((), drop)
            }
            Err(GetError::Empty) if queue.state().unfinished == 0 => return Ok(got),
            Err(error) => return Err(Fault::Hang(format!("{error}, but {:?}", queue.state()))),
        }
        if got.len() > 20 {
            return Err(Fault::Torn(format!("there is no end of jobs: {got:?}")));
        }
    }
}

fn goes_on<Q: Numbers>(queue: &Q, kill: &Kill<'_>) -> Result<(), Fault> {
    let before = queue.state().counters;
    for number in 0..5 {
        queue.add(number, kill.patience())?;
        let got = queue.finish(kill.patience())?;
        if got != (number, 1) {
            return Err(Fault::Torn(format!("{got:?}, not {number}")));
        }
    }
    let after = queue.state();
    let counted = (after.counters.puts - before.puts, after.counters.gets - before.gets, after.unfinished);
    let finished = counted == (5, 5, 0) && queue.join(kill.patience())?;
    if finished { Ok(()) } else { Err(Fault::Torn(format!("{after:?}"))) }
}

fn deaths(kill: &Kill<'_>) -> usize {
    match kill.mode() {
        Mode::Freeze => 0,
        Mode::Double => 2,
        _ => 1,
    }
}

fn case<Q: Numbers + 'static>(
    name: &str,
    arrange: impl Fn() -> Q + 'static,
    victim: impl Fn(&Q, &Cells) + 'static,
    survive: impl Fn(&Q, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Q> {
    Case::new(name, arrange, victim, survive)
        .watch(|_| beginnings(18 << 10))
        .wake_within(SOON)
        .frozen(|queue, _| {
            // A time-out holds. The victim keeps what it has leased, which its end shows.
            let all_done = queue.join(BRIEFLY)?;
            if all_done && queue.state().unfinished != 0 {
                Err(Fault::Torn("joined too early".into()))
            } else {
                Ok(())
            }
        })
        .finally(nothing_left)
}
