//! Queues: a message is there wholly or not at all, what was committed is delivered once, and everybody who waits goes on.

use std::time::{Duration, Instant};

use multiproc::{Capacity, GetError, PutError, Queue, Value};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::support::{BRIEFLY, FUTEX, SOON, WAITV, await_asleep, in_time, nothing_left, ours, peers_go_on, sign};

pub(crate) type Bytes = Queue<[u8]>;
/// Cells: what peers got (1 + first byte), from 0; who they are, from 10.
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
        case("queue/put_bytes", empty, put_hello, |queue, kill| accounted(queue, kill, 0, 0)).frozen(PRODUCER).sampled(3),
        case(
            "queue/put_bytes, wrapping",
            || advanced(4000),
            |queue, _| drop(queue.put_bytes(&[b'h'; 200])),
            |queue, kill| accounted(queue, kill, 0, 0),
        )
        .frozen(PRODUCER),
        case("queue/put_bytes, a consumer asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 1, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .warm(|_, cells| await_asleep(cells, PEER, WAITV))
            .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(1)))
            .sampled(2),
        case("queue/put_bytes, a consumer briefly asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 1, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .warm(|_, cells| await_asleep(cells, PEER, FUTEX))
            .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(1))),
        case("queue/put_bytes, two consumers asleep", empty, put_hello, |queue, kill| accounted(queue, kill, 2, 0))
            .peer(|queue, cells| consumer(queue, cells, 0))
            .peer(|queue, cells| consumer(queue, cells, 1))
            .warm(|_, cells| {
                await_asleep(cells, PEER, WAITV);
                await_asleep(cells, PEER + 1, WAITV);
            })
            .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(2))),
        case("queue/put_bytes, a consumer asleep and a contender", empty, put_hello, |queue, kill| {
            kill.must_wake(0)?;
            kill.must_wake(1)?;
            accounted(queue, kill, 1, 1)
        })
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
            |queue, _| drop(queue.put_bytes_timeout(b"vain", Duration::from_millis(30))),
            drained,
        )
        .release(|_, _| ())
        .late_peer(|queue, _| queue.put_bytes(b"peer").unwrap())
        .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Put(1))),
        case("queue/put_bytes, full, asleep, woken", full, |queue, _| drop(queue.put_bytes(b"hello")), drained)
            .peer(|queue, _| queue.put_bytes(b"peer").unwrap())
            .release(|queue, _| drop(queue.get_bytes()))
            // One that does not sleep: every pair of sleeps would take hours.
            .recoverer(|queue, _| drop(queue.try_put_bytes(b"hello")))
            .frozen(|queue, kill| stands_still(queue, kill, Side::Producers, Others::Put(1))),
        case("queue/get_bytes", two, |queue, cells| cells.set(0, first(queue.get_bytes())), taken_once)
            .recoverer(|queue, cells| cells.set(1, first(queue.get_bytes())))
            .frozen(CONSUMER)
            .sampled(2),
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
        case("queue/try_get_bytes", two, |queue, cells| cells.set(0, first(queue.try_get_bytes())), taken_once)
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
        .sampled(2),
        case(
            "queue/get_bytes, a producer asleep",
            full,
            |queue, _| drop(queue.get_bytes()),
            |queue, kill| {
                if queue.len() < 4 || (kill.finished() && kill.mode() != Mode::Freeze) {
                    // The slot that the victim made free is the producer's, unless another came while the victim stood still.
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
                // Two more messages: one for the victim's place, if it took the first with it, one for the peer.
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
                // One message was put. If it is still there, or the peer's, the peer must have it without more help.
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
            "queue/get_bytes_timeout, in vain",
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

/// A typed queue whose messages hold a handle: tickets.
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
                handles.queue.put((1, handles.value.clone())).map_err(|error| Fault::Torn(error.to_string()))?;
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
                // It may stand still with the lock of the namespace, which whoever gets a handle needs, too; that one waits ten seconds.
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
        case("queue/put, a handle inside", handles, |handles| drop(handles.queue.put((2, handles.value.clone())))),
        case("queue/try_put", handles, |handles| drop(handles.queue.try_put((2, handles.value.clone()))))
            .without(Mode::Double, AS_PUT_AND_GET),
        case("queue/put_timeout", handles, |handles| drop(handles.queue.put_timeout((2, handles.value.clone()), SOON)))
            .without(Mode::Double, AS_PUT_AND_GET),
        case("queue/get, a handle inside", sent_handle, |handles| drop(handles.queue.get())),
        case("queue/try_get", sent_handle, |handles| drop(handles.queue.try_get())).without(Mode::Double, AS_PUT_AND_GET),
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

/// The victim put one message (bytes `h`), and so did its heir; `waiting` peers each want one, `others` more (`p`) were put: every committed message reaches
/// somebody without help, and none is there twice.
pub(crate) fn accounted(queue: &Bytes, kill: &Kill<'_>, waiting: usize, others: usize) -> Result<(), Fault> {
    let peers_got = || (0..waiting).filter(|peer| kill.cell(*peer) != 0).count();
    if waiting > 0 && !queue.is_empty() && peers_got() == 0 {
        // There is a message and there are sleepers: the death must have rung.
        let woken = (0..waiting).find(|peer| kill.peer_ended(*peer));
        if woken.is_none() {
            wait_until(kill, || (0..waiting).any(|peer| kill.peer_ended(peer)) || queue.is_empty())?;
        }
    }
    // Now feed whoever still waits.
    let mut fed = 0;
    while peers_got() < waiting && fed < waiting {
        queue.put_bytes_timeout(b"again", kill.patience())?;
        fed += 1;
    }
    wait_until(kill, || peers_got() == waiting)?;
    let mut got = drained_of(queue, kill)?;
    for message in &got {
        if ![&b"hello"[..], b"again", b"peer", b"f", &[b'h'; 200], &[b'h'; 6000]].contains(&&message[..]) {
            return Err(Fault::Torn(format!("{message:?}")));
        }
    }
    for peer in 0..waiting {
        match u8::try_from(kill.cell(peer) - 1) {
            Ok(byte) if b"hapf".contains(&byte) => got.push(vec![byte]),
            _ => return Err(Fault::Torn(format!("a peer got {}", kill.cell(peer)))),
        }
    }
    let count = |byte| noted(kill, byte) + got.iter().filter(|message| message.first() == Some(&byte)).count();
    let hellos = count(b'h');
    let (least, most) = (usize::from(kill.finished()) + usize::from(kill.recoverer_finished()), deaths(kill).max(1));
    if hellos < least || hellos > most || count(b'p') != others {
        return Err(Fault::Lost(format!("{hellos} messages of {least} to {most}, and {} of {others}", count(b'p'))));
    }
    rest_is_usable(queue, kill)
}

/// `a` and `b` were there; the victim and its heir took one each, or none, and what they noted they took.
fn taken_once(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let left = drained_of(queue, kill)?;
    if !left.iter().filter(|message| *message != b"f").is_sorted() {
        return Err(Fault::Torn(format!("{left:?}")));
    }
    let takers = [kill.cell(0), kill.cell(1)];
    let mut missing = 0;
    for byte in *b"ab" {
        let times = left.iter().filter(|message| **message == [byte]).count()
            + takers.iter().filter(|cell| **cell == 1 + u64::from(byte)).count()
            + noted(kill, byte);
        match times {
            0 => missing += 1,
            1 => {}
            _ => return Err(Fault::Lost(format!("{}, {times} times there", char::from(byte)))),
        }
    }
    // One that died may have one with it, of which it could not tell.
    let silent = takers[..deaths(kill)].iter().filter(|cell| **cell == 0).count();
    if missing > silent { Err(Fault::Lost(format!("{missing} messages"))) } else { rest_is_usable(queue, kill) }
}

/// How many were killed.
fn deaths(kill: &Kill<'_>) -> usize {
    match kill.mode() {
        Mode::Freeze => 0,
        Mode::Double => 2,
        _ => 1,
    }
}

/// All that is there.
fn drained_of(queue: &Bytes, kill: &Kill<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let mut got = Vec::new();
    while !queue.is_empty() {
        match queue.get_bytes_timeout(kill.patience()) {
            Ok(message) => got.push(message),
            // A peer had it.
            Err(GetError::Empty) if queue.is_empty() => break,
            Err(error) => return Err(Fault::Hang(format!("{error}, but there are {}", queue.len()))),
        }
    }
    Ok(got)
}

/// Full at first; now everything comes out, in order, and the producers that wait get their room.
fn drained(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut got = drained_of(queue, kill)?;
    kill.must_wake(0)?;
    got.append(&mut drained_of(queue, kill)?);
    let count = |byte| noted(kill, byte) + got.iter().filter(|message| message.first() == Some(&byte)).count();
    if count(b'p') != 1 {
        return Err(Fault::Hang(format!("the waiting producer's message is not there: {got:?}")));
    }
    if count(b'h') > deaths(kill).max(1) || (kill.mode() == Mode::Freeze && kill.finished() && count(b'h') + count(b'v') > 1) {
        return Err(Fault::Lost(format!("put once, there more often: {got:?}")));
    }
    let numbers: Vec<_> = got.iter().filter(|message| message.len() == 1 && *message != b"f").collect();
    if !numbers.is_sorted() {
        return Err(Fault::Torn(format!("{got:?}")));
    }
    rest_is_usable(queue, kill)
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

pub(crate) fn rest_is_usable(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    drained_of(queue, kill)?;
    for round in 0..6_u8 {
        queue.put_bytes_timeout(&[round], kill.patience())?;
        if queue.len() != 1 {
            return Err(Fault::Torn(format!("{} messages, not 1", queue.len())));
        }
        let got = queue.get_bytes_timeout(kill.patience())?;
        if got != [round] {
            return Err(Fault::Torn(format!("{got:?}, not {round}")));
        }
    }
    Ok(())
}

fn wait_until(kill: &Kill<'_>, ready: impl Fn() -> bool) -> Result<(), Fault> {
    let deadline = Instant::now() + kill.patience();
    while !ready() {
        if Instant::now() > deadline {
            return Err(Fault::Hang("a waiting peer did not go on".into()));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Whose lock a victim takes that stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Producers,
    Consumers,
}

/// The peers that must go on if the victim stands outside of both locks: how many, and what they want.
enum Others {
    Get(usize),
    Put(usize),
}

const PRODUCER: fn(&Bytes, &Kill<'_>) -> Result<(), Fault> =
    |queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(0));
const CONSUMER: fn(&Bytes, &Kill<'_>) -> Result<(), Fault> =
    |queue, kill| stands_still(queue, kill, Side::Consumers, Others::Get(0));

/// While the victim stands still: time-outs hold, nothing is taken from it, the other side goes on, and so does everybody if it stands outside.
fn stands_still(queue: &Bytes, kill: &Kill<'_>, side: Side, others: Others) -> Result<(), Fault> {
    let cannot_put = put_beside(queue)?;
    let cannot_get = get_beside(queue, kill)?;
    if (cannot_put && side == Side::Consumers) || (cannot_get && side == Side::Producers) {
        return Err(Fault::Hang("the other side waits for one who stands still".into()));
    }
    if cannot_put || cannot_get {
        return Ok(());
    }
    let count = match others {
        Others::Get(count) => {
            (0..count).try_for_each(|_| queue.put_bytes_timeout(b"f", SOON).or_else(closed_is_fine))?;
            count
        }
        Others::Put(count) => {
            for _ in 0..count {
                if !queue.is_empty() {
                    note(kill, &queue.get_bytes_timeout(SOON)?);
                }
            }
            count
        }
    };
    peers_go_on(kill, count)
}

/// One put at once and one with a time-out; whether one who stands still is in the way.
fn put_beside(queue: &Bytes) -> Result<bool, Fault> {
    let begin = Instant::now();
    let busy = match queue.try_put_bytes(b"f") {
        Ok(()) | Err(PutError::Closed(())) => false,
        Err(PutError::Full(())) if queue.len() >= 3 => false,
        Err(PutError::Busy(())) => true,
        Err(error) => return Err(Fault::Torn(format!("try_put: {error}, with {} in it", queue.len()))),
    };
    in_time("try_put", begin, Duration::ZERO)?;
    let begin = Instant::now();
    match queue.put_bytes_timeout(b"f", BRIEFLY) {
        Ok(()) if busy => return Err(Fault::Torn("a side was taken from one who stands still".into())),
        Err(PutError::Busy(())) if busy && begin.elapsed() < BRIEFLY => {
            return Err(Fault::Torn("the time-out came early".into()));
        }
        Ok(()) | Err(PutError::Closed(())) => {}
        Err(PutError::Busy(())) if busy => {}
        Err(PutError::Full(())) if !busy && queue.len() >= 3 => {}
        Err(error) => return Err(Fault::Torn(format!("put_timeout: {error}, with {} in it", queue.len()))),
    }
    in_time("put_timeout", begin, BRIEFLY)?;
    if busy && !matches!(queue.try_put_bytes(b"f"), Err(PutError::Busy(()))) {
        return Err(Fault::Torn("a side was taken from one who stands still".into()));
    }
    Ok(busy)
}

/// One get at once and one with a time-out; whether one who stands still is in the way.
fn get_beside(queue: &Bytes, kill: &Kill<'_>) -> Result<bool, Fault> {
    let begin = Instant::now();
    let busy = match queue.try_get_bytes() {
        Ok(message) => {
            note(kill, &message);
            false
        }
        Err(GetError::Empty | GetError::Closed) if queue.is_empty() => false,
        Err(GetError::Busy) => true,
        Err(error) => return Err(Fault::Torn(format!("try_get: {error}, with {} in it", queue.len()))),
    };
    in_time("try_get", begin, Duration::ZERO)?;
    let begin = Instant::now();
    match queue.get_bytes_timeout(BRIEFLY) {
        Ok(_) if busy => return Err(Fault::Torn("a side was taken from one who stands still".into())),
        Err(GetError::Busy) if busy && begin.elapsed() < BRIEFLY => return Err(Fault::Torn("the time-out came early".into())),
        Ok(message) => note(kill, &message),
        Err(GetError::Busy) if busy => {}
        Err(GetError::Empty | GetError::Closed) if queue.is_empty() => {}
        Err(error) => return Err(Fault::Torn(format!("get_timeout: {error}, with {} in it", queue.len()))),
    }
    in_time("get_timeout", begin, BRIEFLY)?;
    if busy && !queue.is_empty() && !matches!(queue.try_get_bytes(), Err(GetError::Busy)) {
        return Err(Fault::Torn("a side was taken from one who stands still".into()));
    }
    Ok(busy)
}

fn closed_is_fine(error: PutError<()>) -> Result<(), Fault> {
    if matches!(error, PutError::Closed(())) { Ok(()) } else { Err(error.into()) }
}

/// What survivors got while the victim stood still, by the first byte; cells from here on.
const NOTED: usize = 40;
const BYTES: &[u8] = b"habp0123fzv";

fn note(kill: &Kill<'_>, message: &[u8]) {
    if let Some(at) = message.first().and_then(|byte| BYTES.iter().position(|known| known == byte)) {
        kill.cells().add(NOTED + at, 1);
    }
}

fn noted(kill: &Kill<'_>, byte: u8) -> usize {
    BYTES.iter().position(|known| *known == byte).map_or(0, |at| usize::try_from(kill.cell(NOTED + at)).unwrap_or(0))
}
