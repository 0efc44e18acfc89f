//! Queues whose log grows and shrinks, and several messages at once: those that were committed are there, in
//! order, whole.

use multiproc::{Messages, Queue};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};
use std::time::Duration;

use crate::queues::{Bytes, PEER, accounted, advanced, case, consumer, empty, first, full, rest_is_usable};
use crate::support::{SOON, WAITV, await_asleep, beginnings, ignore, nothing_left, ours, sign};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in log_cases().into_iter().chain(batch_cases()) {
        sweep.run(&case);
    }
    for case in typed_cases() {
        sweep.run(&case);
    }
}

/// The log wraps, grows, and shrinks.
fn log_cases() -> Vec<Case<'static, Bytes>> {
    // Header, sides and the first word of the log: a copy that takes thousands of steps is one state.
    let coarse = |case: Case<'static, Bytes>| case.watch(|_| beginnings(1024 + 256 + 8));
    let asleep = |case: Case<'static, Bytes>| {
        case.peer(|queue, cells| consumer(queue, cells, 0)).warm(|_, cells| await_asleep(cells, PEER, WAITV))
    };
    vec![
        coarse(case("queue/put_bytes, longer than the log", empty, put_long, |queue, kill| {
            accounted(queue, kill, 0, 0)
        })),
        coarse(asleep(case(
            "queue/put_bytes, longer than the log, a consumer asleep",
            empty,
            put_long,
            |queue, kill| accounted(queue, kill, 1, 0),
        ))),
        asleep(case(
            "queue/put_bytes, wrapping, a consumer asleep",
            || advanced(4000),
            |queue, _| ignore(queue.put_bytes(&[b'h'; 200])),
            |queue, kill| accounted(queue, kill, 1, 0),
        )),
        case(
            "queue/get_bytes, behind a jump",
            || {
                let queue = advanced(4000);
                queue.put_bytes(&[b'j'; 200]).unwrap();
                queue
            },
            |queue, cells| cells.set(0, first(queue.get_bytes())),
            |queue, kill| match queue.get_bytes_timeout(Duration::ZERO) {
                Ok(_) if kill.cell(0) != 0 => Err(Fault::Lost("it is there twice".into())),
                Ok(message) if message != [b'j'; 200] => Err(Fault::Torn(format!("{message:?}"))),
                _ => rest_is_usable(queue, kill),
            },
        ),
        case(
            "queue/get_bytes, gives memory back",
            || {
                let queue = Queue::new(4).unwrap();
                queue.put_bytes(&[0; 200_000]).unwrap();
                queue.put_bytes(b"a").unwrap();
                queue.get_bytes().unwrap();
                queue
            },
            |queue, _| ignore(queue.get_bytes()),
            |queue, kill| {
                kill.must_wake(0)?;
                while queue.get_bytes_timeout(Duration::ZERO).is_ok() {}
                for round in 0..3_u8 {
                    queue.put_bytes_timeout(&[round; 9000], kill.patience())?;
                    if queue.get_bytes_timeout(kill.patience())? != [round; 9000] {
                        return Err(Fault::Torn("a message after it".into()));
                    }
                }
                rest_is_usable(queue, kill)
            },
        )
        .late_peer(|queue, _| {
            queue.put_bytes(&[7; 5000]).unwrap();
            queue.get_bytes().unwrap();
        }),
    ]
}

fn put_long(queue: &Bytes, _: &Cells) {
    ignore(queue.put_bytes(&[b'h'; 6000]));
}

fn abc() -> Messages {
    let mut messages = Messages::new();
    b"abc".iter().for_each(|byte| messages.push(&[*byte]));
    messages
}

fn filled() -> Bytes {
    let queue = empty();
    queue.put_many_bytes(&abc()).unwrap();
    queue
}

fn batch_cases() -> Vec<Case<'static, Bytes>> {
    let put = |name: &'static str, victim: fn(&Bytes, &Cells)| case(name, empty, victim, a_prefix);
    let get = |name: &'static str, victim: fn(&Bytes, &mut Messages)| {
        let victim = move |queue: &Bytes, cells: &Cells| {
            let mut messages = Messages::with_capacity(64);
            victim(queue, &mut messages);
            cells.set(0, messages.len() as u64);
        };
        case(name, filled, victim, all_or_none)
    };
    vec![
        put("queue/put_many_bytes", |queue, _| ignore(queue.put_many_bytes(&abc()))),
        put("queue/try_put_many_bytes", |queue, _| ignore(queue.try_put_many_bytes(&abc()))),
        put("queue/put_many_bytes_timeout", |queue, _| ignore(queue.put_many_bytes_timeout(&abc(), SOON))),
        case(
            "queue/put_many_bytes, two consumers asleep",
            empty,
            |queue, _| ignore(queue.put_many_bytes(&abc())),
            |queue, kill| {
                // What was put must reach the sleeping consumers, as far as it goes; then they are fed.
                let enough = queue.len() + (0..2).filter(|peer| kill.cell(*peer) != 0).count() >= 2;
                if !enough {
                    queue.put_bytes(b"x")?;
                    queue.put_bytes(b"y")?;
                }
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .peer(|queue, cells| consumer(queue, cells, 1))
        .warm(|_, cells| {
            await_asleep(cells, PEER, WAITV);
            await_asleep(cells, PEER + 1, WAITV);
        }),
        get("queue/get_many_into", |queue, messages| ignore(queue.get_many_into(messages, 2))),
        get("queue/try_get_many_into", |queue, messages| ignore(queue.try_get_many_into(messages, 2))),
        get("queue/get_many_into_timeout", |queue, messages| {
            ignore(queue.get_many_into_timeout(messages, 2, SOON))
        }),
        case(
            "queue/get_many_into, two producers asleep",
            full,
            |queue, _| ignore(queue.get_many_into(&mut Messages::with_capacity(64), 2)),
            |queue, kill| {
                while queue.get_bytes_timeout(Duration::from_millis(5)).is_ok() {}
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| producer(queue, cells, 0))
        .peer(|queue, cells| producer(queue, cells, 1))
        .warm(|_, cells| {
            await_asleep(cells, PEER, WAITV);
            await_asleep(cells, PEER + 1, WAITV);
        }),
        get("queue/try_get_into", |queue, messages| {
            one(messages, |message| queue.try_get_into(message).is_ok())
        }),
        get("queue/get_into_timeout", |queue, messages| {
            one(messages, |message| queue.get_into_timeout(message, SOON).is_ok())
        }),
    ]
}

fn one(messages: &mut Messages, get: impl FnOnce(&mut Vec<u8>) -> bool) {
    let mut message = Vec::with_capacity(64);
    if get(&mut message) {
        messages.push(&message);
    }
}

fn producer(queue: &Bytes, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    queue.put_bytes(b"peer").unwrap();
}

/// The first so many of `a`, `b`, `c`.
fn a_prefix(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut got = Vec::new();
    while let Ok(message) = queue.get_bytes_timeout(Duration::ZERO) {
        got.extend(message);
    }
    // The recoverer puts the same once more.
    let again = |first: usize| b"abc".starts_with(&got[..first]) && b"abc".starts_with(&got[first..]);
    if !(b"abc".starts_with(&got) || kill.mode() == Mode::Double && (0..=got.len().min(3)).any(again)) {
        return Err(Fault::Torn(format!("{got:?}")));
    }
    if kill.finished() && got.len() < 3 {
        return Err(Fault::Lost(format!("{got:?}")));
    }
    rest_is_usable(queue, kill)
}

/// All that the victim took, or none.
fn all_or_none(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut left = Vec::new();
    while let Ok(message) = queue.get_bytes_timeout(Duration::ZERO) {
        left.extend(message);
    }
    if kill.mode() == Mode::Double {
        // Each took two, or none.
        return if b"abc".ends_with(&left) {
            rest_is_usable(queue, kill)
        } else {
            Err(Fault::Torn(format!("{left:?}")))
        };
    }
    if kill.cell(0) != 0 && left.len() as u64 != 3 - kill.cell(0) {
        return Err(Fault::Lost(format!("{left:?} left")));
    }
    if ![&b"abc"[..], b"bc", b"c"].contains(&&left[..]) {
        return Err(Fault::Torn(format!("{left:?}")));
    }
    rest_is_usable(queue, kill)
}

fn typed_cases() -> Vec<Case<'static, Queue<u32>>> {
    let words = || (0..3_u32).collect::<Vec<_>>();
    let case = |name: &str, before: usize, victim: fn(&Queue<u32>)| {
        Case::new(
            name,
            move || {
                let queue = Queue::new(4).unwrap();
                queue.put_many(words().into_iter().take(before)).unwrap();
                queue
            },
            move |queue: &Queue<u32>, _: &Cells| victim(queue),
            |queue: &Queue<u32>, kill: &Kill<'_>| {
                let mut left = Vec::new();
                while let Ok(number) = queue.get_timeout(Duration::ZERO) {
                    left.push(number);
                }
                let once = left.is_sorted() && left.len() <= 3;
                if !once && kill.mode() != Mode::Double {
                    return Err(Fault::Torn(format!("{left:?}")));
                }
                queue.put_timeout(1, kill.patience()).map_err(|error| Fault::Hang(error.to_string()))?;
                queue.get_timeout(kill.patience())?;
                Ok(())
            },
        )
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
    };
    vec![
        case("queue/put_many", 0, |queue| ignore(queue.put_many(0..3))),
        case("queue/try_put_many", 0, |queue| ignore(queue.try_put_many(0..3))),
        case("queue/put_many_timeout", 0, |queue| ignore(queue.put_many_timeout(0..3, SOON))),
        case("queue/get_many", 3, |queue| ignore(queue.get_many(2))),
        case("queue/try_get_many", 3, |queue| ignore(queue.try_get_many(2))),
        case("queue/get_many_timeout", 3, |queue| ignore(queue.get_many_timeout(2, SOON))),
    ]
}
