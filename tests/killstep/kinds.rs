//! The other ways to put and to get: each is there wholly or not at all, in order, and once.

use std::time::Duration;

use multiproc::{Messages, Queue, SimpleQueue};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::queues::{PEER, full, rest_is_usable};
use crate::support::{SOON, WAITV, await_asleep, ignore, nothing_left, ours, sign};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in simple_cases() {
        sweep.run(&case);
    }
    sweep.run(&getting("queue/drain", filled, |queue| queue.drain().into_iter().flatten().flatten().collect(), Queue::clone));
    sweep.run(&drained_bytes());
}

fn simple_cases() -> Vec<Case<'static, SimpleQueue<u32>>> {
    let queue = |simple: &SimpleQueue<u32>| Queue::from(simple.clone());
    vec![
        putting("queue/simple put", || SimpleQueue::new().unwrap(), |simple, number| ignore(simple.put(number)), queue),
        getting(
            "queue/simple get",
            |numbers| {
                let simple = SimpleQueue::new().unwrap();
                numbers.iter().for_each(|number| simple.put(*number).unwrap());
                simple
            },
            |simple| simple.get().into_iter().collect(),
            queue,
        ),
    ]
}

fn filled(numbers: &[u32]) -> Queue<u32> {
    let queue = Queue::new(4).unwrap();
    queue.put_many(numbers.iter().copied()).unwrap();
    queue
}

/// A drain takes all, or nothing, and a producer that waits for room goes on.
fn drained_bytes() -> Case<'static, Queue<[u8]>> {
    let victim = |queue: &Queue<[u8]>, cells: &Cells| {
        let mut messages = Messages::with_capacity(64);
        if queue.drain_into(&mut messages).is_ok() {
            cells.set(0, 1 + messages.len() as u64);
        }
    };
    case("queue/drain_into, a producer asleep", full, victim, |queue, kill| {
        let mut left = Messages::new();
        queue.drain_into(&mut left)?;
        // Of the four, all or none; and the peer's, if there was room for it already.
        let numbers: Vec<_> = left.iter().filter(|message| *message != b"peer").collect();
        if numbers != [b"0", b"1", b"2", b"3"] && !numbers.is_empty() {
            return Err(Fault::Torn(format!("{left:?}")));
        }
        if kill.cell(0) > 1 && !numbers.is_empty() {
            return Err(Fault::Lost("they are there twice".into()));
        }
        kill.must_wake(0)?;
        rest_is_usable(queue, kill)
    })
    .peer(|queue, cells| {
        sign(cells, PEER);
        queue.put_bytes(b"peer").unwrap();
    })
    .warm(|_, cells| await_asleep(cells, PEER, WAITV))
}

/// The victim puts 1; so does its heir.
fn putting<Q: 'static>(
    name: &str,
    empty: impl Fn() -> Q + 'static,
    put: impl Fn(&Q, u32) + 'static,
    queue: impl Fn(&Q) -> Queue<u32> + 'static,
) -> Case<'static, Q> {
    case(
        name,
        empty,
        move |of, _| put(of, 1),
        move |of, kill| {
            let queue = queue(of);
            let mut there = 0;
            while let Ok(number) = queue.get_timeout(Duration::ZERO) {
                there += 1;
                if number != 1 {
                    return Err(Fault::Torn(format!("{number}")));
                }
            }
            let (least, most) = (u32::from(kill.finished()) + u32::from(kill.heir_finished()), 1 + u32::from(is_double(kill)));
            if there < least || there > most {
                Err(Fault::Lost(format!("{there} of {least} to {most}")))
            } else {
                goes_on(&queue, kill)
            }
        },
    )
}

/// 1, 2 and 3 are there, and the victim takes some of them; so does its heir.
fn getting<Q: 'static>(
    name: &str,
    filled: impl Fn(&[u32]) -> Q + 'static,
    get: impl Fn(&Q) -> Vec<u32> + 'static,
    queue: impl Fn(&Q) -> Queue<u32> + 'static,
) -> Case<'static, Q> {
    let victim = move |of: &Q, cells: &Cells| {
        // One cell for each number, and how many have told.
        get(of).into_iter().for_each(|number| cells.add(number as usize, 1));
        cells.add(0, 1);
    };
    case(
        name,
        move || filled(&[1, 2, 3]),
        victim,
        move |of, kill| {
            let queue = queue(of);
            let mut left = Vec::new();
            while let Ok(number) = queue.get_timeout(Duration::ZERO) {
                left.push(number);
            }
            if ![&[1, 2, 3][..], &[2, 3], &[3], &[]].contains(&&left[..]) {
                return Err(Fault::Torn(format!("{left:?}")));
            }
            let twice = (1..=3).find(|number| kill.cell(*number as usize) + u64::from(left.contains(number)) > 1);
            let missing = (1..=3).filter(|number| kill.cell(*number as usize) == 0 && !left.contains(number)).count();
            match twice {
                Some(number) => Err(Fault::Lost(format!("{number} is there twice"))),
                // Who was killed could not tell what it had taken.
                None if missing > 0 && kill.cell(0) == 1 + u64::from(is_double(kill)) => {
                    Err(Fault::Lost(format!("{missing} messages")))
                }
                None => goes_on(&queue, kill),
            }
        },
    )
}

fn is_double(kill: &Kill<'_>) -> bool {
    kill.mode() == Mode::Double
}

fn goes_on(queue: &Queue<u32>, kill: &Kill<'_>) -> Result<(), Fault> {
    for number in 7..10 {
        queue.put_timeout(number, kill.patience()).map_err(|error| Fault::Hang(error.to_string()))?;
        let got = queue.get_timeout(kill.patience())?;
        if got != number {
            return Err(Fault::Torn(format!("{got}, not {number}")));
        }
    }
    Ok(())
}

fn case<Q: 'static>(
    name: &str,
    arrange: impl Fn() -> Q + 'static,
    victim: impl Fn(&Q, &Cells) + 'static,
    survive: impl Fn(&Q, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Q> {
    Case::new(name, arrange, victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}
