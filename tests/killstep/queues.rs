//! Queues: a message is there wholly or not at all, what was committed is delivered once, and every waiter
//! goes on.

mod oracles;

use std::time::{Duration, Instant};

use multiproc::{Capacity, GetError, PutError, Queue, Value};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};
pub(crate) use oracles::*;

use crate::support::{BRIEFLY, FUTEX, SOON, WAITV, await_asleep, in_time, nothing_left, ours, sign};

pub(crate) type Bytes = Queue<[u8]>;
/// Cells: what peers got (1 + first byte), from 0; their process ids, from 10.
pub(crate) const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
    for case in typed_cases() {
        sweep.run(&case);
    }
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases() -> Vec<Case<'static, Bytes>> {
    vec![
        case("queue/put_bytes", empty, put_hello, |queue, kill| accounted(queue, kill, 0, 0))
            .frozen(PRODUCER)
            .sampled(3),
        case(
            "queue/put_bytes, wrapping",
            || advanced(4000),
            |queue, _| drop(queue.put_bytes(&[b'h'; 200])),
            |queue, kill| accounted(queue, kill, 0, 0),
        )
        .frozen(PRODUCER),
        case("queue/put_bytes, a consumer asleep", empty, put_hello, |queue, kill| {
            accounted(queue, kill, 1, 0)
        })
        .peer(|queue, cells| consumer(queue, cells, 0))
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(1)))
        .sampled(3),
        case("queue/put_bytes, a consumer briefly asleep", empty, put_hello, |queue, kill| {
            accounted(queue, kill, 1, 0)
        })
        .peer(|queue, cells| consumer(queue, cells, 0))
        .warm(|_, cells| await_asleep(cells, PEER, FUTEX))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(1))),
        case("queue/put_bytes, two consumers asleep", empty, put_hello, |queue, kill| {
            accounted(queue, kill, 2, 0)
        })
        .peer(|queue, cells| consumer(queue, cells, 0))
        .peer(|queue, cells| consumer(queue, cells, 1))
        .warm(|_, cells| {
            await_asleep(cells, PEER, WAITV);
            await_asleep(cells, PEER + 1, WAITV);
        })
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(2))),
        case(
            "queue/put_bytes, a consumer asleep, another waits for the lock",
            empty,
            put_hello,
            |queue, kill| {
                kill.must_wake(0)?;
                kill.must_wake(1)?;
                accounted(queue, kill, 1, 1)
            },
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .late_peer(|queue, _| queue.put_bytes(b"peer").unwrap())
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(2))),
        case(
            "queue/try_put_bytes",
            empty,
            |queue, _| drop(queue.try_put_bytes(b"hello")),
            |queue, kill| accounted(queue, kill, 0, 0),
        )
        .frozen(PRODUCER),
        case(
            "queue/put_bytes_timeout, full",
            full,
            |queue, _| drop(queue.put_bytes_timeout(b"late", Duration::from_millis(30))),
            drained,
        )
        .release(|_, _| ())
        .late_peer(|queue, _| queue.put_bytes(b"peer").unwrap())
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Put(1))),
        case("queue/put_bytes, full, asleep, woken", full, put_hello, drained)
            .peer(|queue, _| queue.put_bytes(b"peer").unwrap())
            .release(|queue, _| drop(queue.get_bytes()))
            // It does not sleep: every pair of sleeps would take hours.
            .recoverer(|queue, _| drop(queue.try_put_bytes(b"hello")))
            .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Put(1))),
        case("queue/get_bytes", two, |queue, cells| cells.set(0, first(queue.get_bytes())), taken_once)
            .recoverer(|queue, cells| cells.set(1, first(queue.get_bytes())))
            .frozen(CONSUMER)
            .sampled(3),
        case(
            "queue/get_into",
            two,
            |queue, cells| {
                let mut message = Vec::with_capacity(64);
                let got = queue.get_into(&mut message).map(|()| message);
                cells.set(0, first(got));
            },
            taken_once,
        )
        .recoverer(|queue, cells| cells.set(1, first(queue.get_bytes())))
        .frozen(CONSUMER),
        case(
            "queue/try_get_bytes",
            two,
            |queue, cells| cells.set(0, first(queue.try_get_bytes())),
            taken_once,
        )
        .recoverer(|queue, cells| cells.set(1, first(queue.try_get_bytes())))
        .frozen(CONSUMER),
        case(
            "queue/get_bytes, another waits",
            two,
            |queue, cells| cells.set(0, first(queue.get_bytes())),
            |queue, kill| {
                kill.must_wake(0)?;
                rest_is_usable(queue, kill)
            },
        )
        .late_peer(|queue, _| drop(queue.get_bytes()))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Consumers, Others::Get(1)))
        .sampled(3),
        case(
            "queue/get_bytes, a producer asleep",
            full,
            |queue, _| drop(queue.get_bytes()),
            |queue, kill| {
                if queue.len() < 4 || (kill.finished() && kill.mode() != Mode::Freeze) {
                    // The room that the victim made is the producer's, unless another producer came while the
                    // victim stood still.
                    kill.must_wake(0)?;
                }
                drained(queue, kill)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.put_bytes(b"peer").unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Consumers, Others::Put(1))),
        case(
            "queue/get_bytes, asleep, woken",
            empty,
            |queue, _| drop(queue.get_bytes()),
            |queue, kill| {
                // Two more messages: one in place of the victim's, if the first died with it, one for the
                // peer.
                queue.put_bytes(b"one")?;
                queue.put_bytes(b"two")?;
                kill.must_wake(0)?;
                rest_is_usable(queue, kill)
            },
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .release(|queue, _| queue.put_bytes(b"zero").unwrap())
        .recoverer(|queue, _| drop(queue.try_get_bytes()))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Consumers, Others::Get(1))),
        case(
            "queue/get_bytes, woken and killed in flight",
            empty,
            |queue, cells| cells.set(1, first(queue.get_bytes())),
            |queue, kill| {
                // One message was put. If it is still there, or the peer's, the peer must have it without
                // more help.
                if !queue.is_empty() {
                    kill.must_wake(0)?;
                } else if !kill.peer_ended(0) {
                    queue.put_bytes(b"more")?;
                    kill.must_wake(0)?;
                }
                rest_is_usable(queue, kill)
            },
        )
        .release(|queue, cells| {
            if cells.get(2) == 0 {
                cells.set(2, 1);
                queue.put_bytes(b"zero").unwrap();
            }
        })
        .late_peer(|queue, cells| consumer(queue, cells, 0))
        .recoverer(|queue, _| drop(queue.try_get_bytes()))
        .frozen(|queue, kill| {
            stands_still(queue, kill, Side::Consumers, Others::Get(1))?;
            // What the victim was to get may be gone.
            Ok(queue.put_bytes_timeout(b"f", SOON)?)
        }),
        case(
            "queue/get_bytes_timeout, times out",
            empty,
            |queue, _| drop(queue.get_bytes_timeout(Duration::from_millis(30))),
            |queue, kill| {
                queue.put_bytes(b"peer")?;
                kill.must_wake(0)?;
                rest_is_usable(queue, kill)
            },
        )
        .release(|_, _| ())
        .late_peer(|queue, cells| consumer(queue, cells, 0))
        .frozen(|queue, kill| stands_still(queue, kill, Side::Consumers, Others::Get(1))),
        case("queue/close, two consumers asleep", empty, |queue, _| queue.close(), closed)
            .peer(|queue, cells| consumer(queue, cells, 0))
            .peer(|queue, cells| consumer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            })
            .frozen(PRODUCER),
        case("queue/close, two producers asleep", full, |queue, _| queue.close(), closed)
            .peer(|queue, cells| producer(queue, cells, 0))
            .peer(|queue, cells| producer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            })
            .frozen(PRODUCER),
    ]
}

/// A typed queue whose messages hold a handle: in-flight references.
pub(crate) struct Handles {
    queue: Queue<(u32, Value<u64>)>,
    value: Value<u64>,
}

/// Half an hour for what differs before and after what is shared.
const AS_PUT_AND_GET: &str = "as `queue/put, a handle inside` and `queue/get, a handle inside`";

fn typed_cases() -> Vec<Case<'static, Handles>> {
    let case = |name: &str, arrange: fn() -> Handles, victim: fn(&Handles)| {
        let gets = name.contains("get");
        Case::new(
            name,
            arrange,
            move |handles: &Handles, _: &Cells| victim(handles),
            |handles: &Handles, kill: &Kill<'_>| {
                for _ in 0..handles.queue.len() {
                    let (_, value) = handles.queue.get_timeout(kill.patience())?;
                    if value.get()? != 7 {
                        return Err(Fault::Torn("another object".into()));
                    }
                }
                handles
                    .queue
                    .put((1, handles.value.clone()))
                    .map_err(|error| Fault::Torn(error.to_string()))?;
                handles.queue.get_timeout(kill.patience())?;
                Ok(())
            },
        )
        .frozen(move |handles, _| {
            let begin = Instant::now();
            match handles.queue.put_timeout((1, handles.value.clone()), BRIEFLY) {
                Ok(()) | Err(PutError::Full(_)) => in_time("a put", begin, BRIEFLY)?,
                Err(error) => return Err(Fault::Torn(error.to_string())),
            }
            if gets {
                // The victim may stand still with the lock of the namespace, which a process that receives a
                // handle needs, too; that process waits ten seconds.
                return Ok(());
            }
            let begin = Instant::now();
            match handles.queue.get_timeout(BRIEFLY) {
                Ok(_) | Err(GetError::Empty) => in_time("a get", begin, BRIEFLY),
                Err(error) => Err(error.into()),
            }
        })
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
    };
    vec![
        case("queue/put, a handle inside", handles, |handles| {
            drop(handles.queue.put((2, handles.value.clone())))
        }),
        case("queue/try_put", handles, |handles| drop(handles.queue.try_put((2, handles.value.clone()))))
            .without(Mode::Double, AS_PUT_AND_GET),
        case("queue/put_timeout", handles, |handles| {
            drop(handles.queue.put_timeout((2, handles.value.clone()), SOON))
        })
        .without(Mode::Double, AS_PUT_AND_GET),
        case("queue/get, a handle inside", sent_handle, |handles| drop(handles.queue.get())),
        case("queue/try_get", sent_handle, |handles| drop(handles.queue.try_get()))
            .without(Mode::Double, AS_PUT_AND_GET),
        case("queue/get_timeout", sent_handle, |handles| drop(handles.queue.get_timeout(SOON)))
            .without(Mode::Double, AS_PUT_AND_GET),
    ]
}

fn handles() -> Handles {
    Handles { queue: Queue::new(Capacity::messages(4).bytes(4096)).unwrap(), value: Value::new(7).unwrap() }
}

fn sent_handle() -> Handles {
    let handles = handles();
    handles.queue.put((0, handles.value.clone())).unwrap();
    handles
}

pub(crate) fn case(
    name: &str,
    arrange: impl Fn() -> Bytes + 'static,
    victim: impl Fn(&Bytes, &Cells) + 'static,
    survive: impl Fn(&Bytes, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Bytes> {
    Case::new(name, arrange, victim, survive).watch(|_| ours()).wake_within(SOON).finally(nothing_left)
}

pub(crate) fn empty() -> Bytes {
    Queue::new(Capacity::messages(4).bytes(4096)).unwrap()
}

/// Empty, with head and tail moved on by about this many bytes.
pub(crate) fn advanced(bytes: usize) -> Bytes {
    let queue = empty();
    for _ in 0..bytes / 208 {
        queue.put_bytes(&[0; 200]).unwrap();
        queue.get_bytes().unwrap();
    }
    queue
}

pub(crate) fn two() -> Bytes {
    let queue = empty();
    queue.put_bytes(b"a").unwrap();
    queue.put_bytes(b"b").unwrap();
    queue
}

pub(crate) fn full() -> Bytes {
    let queue = empty();
    for number in 0..4 {
        queue.put_bytes(&[b'0' + number]).unwrap();
    }
    queue
}

fn put_hello(queue: &Bytes, _: &Cells) {
    let _ = queue.put_bytes(b"hello");
}

pub(crate) fn consumer(queue: &Bytes, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    cells.set(number, first(queue.get_bytes()));
}

fn producer(queue: &Bytes, cells: &Cells, number: usize) {
    sign(cells, PEER + number);
    let _ = queue.put_bytes(b"peer");
}

pub(crate) fn first(got: Result<Vec<u8>, GetError>) -> u64 {
    got.map_or(0, |message| 1 + u64::from(message.first().copied().unwrap_or(0)))
}
