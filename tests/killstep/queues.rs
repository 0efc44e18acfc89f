//! Queues: a message is there wholly or not at all, what was committed is delivered once, and everybody who waits goes on.

use std::time::Duration;

use multiproc::{Capacity, GetError, PutError, Queue, Value};
use multiproc_killstep::{Case, Cells, Fault, Kill, Sweep};

use crate::support::{FUTEX, SOON, WAITV, await_asleep, nothing_left, ours, sign};

pub(crate) type Bytes = Queue<[u8]>;
/// Cells: what peers got (1 + first byte), from 0; who they are, from 10.
pub(crate) const PEER: usize = 10;

pub(crate) fn run(sweep: &mut Sweep, double: bool) {
    for case in cases() {
        sweep.run(&case);
    }
    if double {
        for case in heirs() {
            sweep.run(&case);
        }
    }
    for case in typed_cases() {
        sweep.run(&case);
    }
}

#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn cases() -> Vec<Case<'static, Bytes>> {
    vec![
        case("queue/put_bytes", empty, put_hello, |queue, kill| accounted(queue, kill, 0, 0)),
        case(
            "queue/put_bytes, wrapping",
            || advanced(4000),
            |queue, _| drop(queue.put_bytes(&[b'h'; 200])),
            |queue, kill| accounted(queue, kill, 0, 0),
        ),
        case("queue/put_bytes, a consumer asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 1, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .warm(|_, cells| await_asleep(cells, PEER, WAITV)),
        case("queue/put_bytes, a consumer briefly asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 1, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .warm(|_, cells| await_asleep(cells, PEER, FUTEX)),
        case("queue/put_bytes, two consumers asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 2, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .peer(|queue, cells| consumer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            }),
        case("queue/put_bytes, a consumer asleep and a contender", empty, put_hello, |queue, kill| {
            kill.must_wake(0)?;
            kill.must_wake(1)?;
            accounted(queue, kill, 1, 1)
        })
        .peer(|queue, cells| consumer(queue, cells, 0))
        .warm(|_, cells| await_asleep(cells, PEER, WAITV))
        .late_peer(|queue, _| queue.put_bytes(b"peer").unwrap()),
        case(
            "queue/try_put_bytes",
            empty,
            |queue, _| drop(queue.try_put_bytes(b"hello")),
            |queue, kill| accounted(queue, kill, 0, 0),
        ),
        case(
            "queue/put_bytes_timeout, full",
            full,
            |queue, _| drop(queue.put_bytes_timeout(b"vain", Duration::from_millis(30))),
            drained,
        )
        .release(|_, _| ())
        .late_peer(|queue, _| queue.put_bytes(b"peer").unwrap()),
        case("queue/put_bytes, full, asleep, woken", full, |queue, _| drop(queue.put_bytes(b"hello")), drained)
            .peer(|queue, _| queue.put_bytes(b"peer").unwrap())
            .release(|queue, _| drop(queue.get_bytes())),
        case("queue/get_bytes", two, |queue, cells| cells.set(0, first(queue.get_bytes())), taken_once),
        case(
            "queue/get_into",
            two,
            |queue, cells| {
                let mut message = Vec::with_capacity(64);
                let got = queue.get_into(&mut message).map(|()| message);
                cells.set(0, first(got));
            },
            taken_once,
        ),
        case("queue/try_get_bytes", two, |queue, cells| cells.set(0, first(queue.try_get_bytes())), taken_once),
        case(
            "queue/get_bytes, another waits",
            two,
            |queue, cells| cells.set(0, first(queue.get_bytes())),
            |queue, kill| {
                kill.must_wake(0)?;
                rest_is_usable(queue)
            },
        )
        .late_peer(|queue, _| drop(queue.get_bytes())),
        case(
            "queue/get_bytes, a producer asleep",
            full,
            |queue, _| drop(queue.get_bytes()),
            |queue, kill| {
                if queue.len() < 4 || kill.finished() {
                    // The slot that the victim made free is the producer's.
                    kill.must_wake(0)?;
                }
                drained(queue, kill)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            queue.put_bytes(b"peer").unwrap();
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV)),
        case(
            "queue/get_bytes, asleep, woken",
            empty,
            |queue, _| drop(queue.get_bytes()),
            |queue, kill| {
                // Two more messages: one for the victim's place, if it took the first with it, one for the peer.
                queue.put_bytes(b"one")?;
                queue.put_bytes(b"two")?;
                kill.must_wake(0)?;
                rest_is_usable(queue)
            },
        )
        .peer(|queue, cells| consumer(queue, cells, 0))
        .release(|queue, _| queue.put_bytes(b"zero").unwrap()),
        case(
            "queue/get_bytes, woken and killed in flight",
            empty,
            |queue, cells| cells.set(1, first(queue.get_bytes())),
            |queue, kill| {
                // One message was put. If it is still there, or the peer's, the peer must have it without more help.
                if !queue.is_empty() {
                    kill.must_wake(0)?;
                } else if !kill.peer_ended(0) {
                    queue.put_bytes(b"more")?;
                    kill.must_wake(0)?;
                }
                rest_is_usable(queue)
            },
        )
        .release(|queue, cells| {
            if cells.get(2) == 0 {
                cells.set(2, 1);
                queue.put_bytes(b"zero").unwrap();
            }
        })
        .late_peer(|queue, cells| consumer(queue, cells, 0)),
        case(
            "queue/get_bytes_timeout, in vain",
            empty,
            |queue, _| drop(queue.get_bytes_timeout(Duration::from_millis(30))),
            |queue, kill| {
                queue.put_bytes(b"peer")?;
                kill.must_wake(0)?;
                rest_is_usable(queue)
            },
        )
        .release(|_, _| ())
        .late_peer(|queue, cells| consumer(queue, cells, 0)),
        case("queue/close, two consumers asleep", empty, |queue, _| queue.close(), closed)
            .peer(|queue, cells| consumer(queue, cells, 0))
            .peer(|queue, cells| consumer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            }),
        case("queue/close, two producers asleep", full, |queue, _| queue.close(), closed)
            .peer(|queue, cells| producer(queue, cells, 0))
            .peer(|queue, cells| producer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            }),
    ]
}

/// Double kills: in a put, then in the put that recovers; the same with gets.
fn heirs() -> Vec<Case<'static, Bytes>> {
    vec![
        case("queue/put_bytes, then an heir", empty, put_hello, heirs_accounted).heir(put_hello),
        case(
            "queue/get_bytes, then an heir",
            two,
            |queue, _| drop(queue.get_bytes()),
            |queue, _| {
                while queue.get_bytes_timeout(Duration::ZERO).is_ok() {}
                rest_is_usable(queue)
            },
        )
        .heir(|queue, _| drop(queue.get_bytes())),
    ]
}

/// A typed queue whose messages hold a handle: tickets.
pub(crate) struct Handles {
    queue: Queue<(u32, Value<u64>)>,
    value: Value<u64>,
}

fn typed_cases() -> Vec<Case<'static, Handles>> {
    let case = |name: &str, arrange: fn() -> Handles, victim: fn(&Handles)| {
        Case::new(
            name,
            arrange,
            move |handles: &Handles, _: &Cells| victim(handles),
            |handles: &Handles, _: &Kill<'_>| {
                for _ in 0..handles.queue.len() {
                    let (_, value) = handles.queue.get_timeout(SOON)?;
                    if value.get()? != 7 {
                        return Err(Fault::Torn("another object".into()));
                    }
                }
                handles.queue.put((1, handles.value.clone())).map_err(|error| Fault::Torn(error.to_string()))?;
                handles.queue.get_timeout(SOON)?;
                Ok(())
            },
        )
        .watch(|_| ours())
        .wake_within(SOON)
        .finally(nothing_left)
    };
    vec![
        case("queue/put, a handle inside", handles, |handles| drop(handles.queue.put((2, handles.value.clone())))),
        case("queue/try_put", handles, |handles| drop(handles.queue.try_put((2, handles.value.clone())))),
        case("queue/put_timeout", handles, |handles| drop(handles.queue.put_timeout((2, handles.value.clone()), SOON))),
        case("queue/get, a handle inside", sent_handle, |handles| drop(handles.queue.get())),
        case("queue/try_get", sent_handle, |handles| drop(handles.queue.try_get())),
        case("queue/get_timeout", sent_handle, |handles| drop(handles.queue.get_timeout(SOON))),
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

/// Empty, with its places moved on by about this many bytes.
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

/// The victim put one message (bytes `h`), `waiting` peers each want one, `others` more were put: every committed message reaches somebody without help.
pub(crate) fn accounted(queue: &Bytes, kill: &Kill<'_>, waiting: usize, others: usize) -> Result<(), Fault> {
    let peers_got = || (0..waiting).filter(|peer| kill.cell(*peer) != 0).count();
    let mut committed = queue.len() + peers_got();
    if kill.finished() && committed < 1 + others {
        // A peer may hold it, between its commit and its note.
        std::thread::sleep(SOON);
        committed = queue.len() + peers_got();
        if committed < 1 + others {
            return Err(Fault::Lost("the message that was put".into()));
        }
    }
    if waiting > 0 && !queue.is_empty() && peers_got() == 0 {
        // There is a message and there are sleepers: the death must have rung.
        let woken = (0..waiting).find(|peer| kill.peer_ended(*peer));
        if woken.is_none() {
            wait_until(|| (0..waiting).any(|peer| kill.peer_ended(peer)) || queue.is_empty())?;
        }
    }
    // Now feed whoever still waits.
    let mut fed = 0;
    while peers_got() < waiting && fed < waiting {
        queue.put_bytes_timeout(b"again", SOON)?;
        fed += 1;
    }
    wait_until(|| peers_got() == waiting)?;
    for peer in 0..waiting {
        if !b"hap".iter().any(|byte| kill.cell(peer) == 1 + u64::from(*byte)) {
            return Err(Fault::Torn(format!("a peer got {}", kill.cell(peer))));
        }
    }
    while let Ok(message) = queue.get_bytes_timeout(Duration::ZERO) {
        let whole = [&b"hello"[..], b"again", b"peer", &[b'h'; 200], &[b'h'; 6000]].contains(&&message[..]);
        if !whole {
            return Err(Fault::Torn(format!("{message:?}")));
        }
    }
    rest_is_usable(queue)
}

fn heirs_accounted(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut count = 0;
    while let Ok(message) = queue.get_bytes_timeout(Duration::ZERO) {
        count += 1;
        if message != b"hello" {
            return Err(Fault::Torn(format!("{message:?}")));
        }
    }
    if count < u32::from(kill.finished()) + u32::from(kill.heir_finished()) || count > 2 {
        return Err(Fault::Lost(format!("{count} messages")));
    }
    rest_is_usable(queue)
}

/// `a` and `b` were there; the victim took one, or none, and what it noted it took.
fn taken_once(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let left = [queue.get_bytes_timeout(SOON)?, queue.get_bytes_timeout(Duration::ZERO).unwrap_or_default()];
    match (&left[0][..], &left[1][..]) {
        (b"a", b"b") if kill.cell(0) != 0 => Err(Fault::Lost("`a`, twice there".into())),
        (b"a", b"b") | (b"b", b"") => rest_is_usable(queue),
        _ => Err(Fault::Lost(format!("{left:?}"))),
    }
}

/// Full at first; now everything comes out, in order, and the producers that wait get their room.
fn drained(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut got = Vec::new();
    while let Ok(message) = queue.get_bytes_timeout(Duration::from_millis(if got.contains(&b"peer".to_vec()) { 0 } else { 500 }))
    {
        got.push(message);
    }
    kill.must_wake(0)?;
    if !got.contains(&b"peer".to_vec()) {
        return Err(Fault::Hang(format!("the waiting producer's message is not there: {got:?}")));
    }
    let numbers: Vec<_> = got.iter().filter(|message| message.len() == 1).collect();
    if !numbers.is_sorted() {
        return Err(Fault::Torn(format!("{got:?}")));
    }
    rest_is_usable(queue)
}

fn closed(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    if kill.finished() && !queue.is_closed() {
        return Err(Fault::Lost("the close".into()));
    }
    if queue.is_closed() {
        kill.must_wake(0)?;
        kill.must_wake(1)?;
    }
    queue.close();
    kill.must_wake(0)?;
    kill.must_wake(1)?;
    match queue.put_bytes(b"late") {
        Err(PutError::Closed(())) => {}
        other => return Err(Fault::Torn(format!("{other:?} after close"))),
    }
    while queue.get_bytes().is_ok() {}
    if queue.get_bytes() == Err(GetError::Closed) { Ok(()) } else { Err(Fault::Torn("not closed for readers".into())) }
}

pub(crate) fn rest_is_usable(queue: &Bytes) -> Result<(), Fault> {
    while queue.get_bytes_timeout(Duration::ZERO).is_ok() {}
    for round in 0..6_u8 {
        queue.put_bytes_timeout(&[round], SOON)?;
        if queue.len() != 1 {
            return Err(Fault::Torn(format!("{} messages, not 1", queue.len())));
        }
        let got = queue.get_bytes_timeout(SOON)?;
        if got != [round] {
            return Err(Fault::Torn(format!("{got:?}, not {round}")));
        }
    }
    Ok(())
}

fn wait_until(ready: impl Fn() -> bool) -> Result<(), Fault> {
    let deadline = std::time::Instant::now() + SOON;
    while !ready() {
        if std::time::Instant::now() > deadline {
            return Err(Fault::Hang("a waiting peer did not go on".into()));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}
