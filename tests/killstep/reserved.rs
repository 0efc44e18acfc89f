//! Reservations, and messages that are read in place: whole messages or none, in their order, and no process
//! waits for the dead.

use std::time::{Duration, Instant};

use multiproc::{GetError, PutError};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Region, Sweep};

use crate::queues::{Bytes, PEER, consumer, empty, first, full, rest_is_usable, two};
use crate::support::{BRIEFLY, SOON, WAITV, await_asleep, ignore, in_time, nothing_left, ours, sign};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in cases() {
        sweep.run(&case);
    }
}

/// The beginning, and what lies behind the log.
fn watched() -> Vec<Region> {
    const LOCKS: usize = 1024 + 256 + (8 << 30);
    let regions = ours();
    let behind = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let directory = std::env::var("MULTIPROC_DIR").unwrap_or_default();
    let hex = |digits: &str| usize::from_str_radix(digits, 16).ok();
    let long = behind.lines().filter(|line| line.contains(&directory)).filter_map(|line| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let (start, end) = (hex(start)?, hex(end)?);
        (end - start > LOCKS).then(|| Region::new(std::ptr::with_exposed_provenance(start + LOCKS), 9 * 64))
    });
    regions.into_iter().chain(long).collect()
}

fn case(
    name: &str,
    arrange: impl Fn() -> Bytes + 'static,
    victim: impl Fn(&Bytes, &Cells) + 'static,
    survive: impl Fn(&Bytes, &Kill<'_>) -> Result<(), Fault> + 'static,
) -> Case<'static, Bytes> {
    Case::new(name, arrange, victim, survive)
        .watch(|_| watched())
        .wake_within(SOON)
        .finally(nothing_left)
        .frozen(stands_still)
}

/// With one reservation made before: the locks have memory, and sleeping processes watch them.
fn used() -> Bytes {
    let queue = empty();
    drop(queue.reserve(1).unwrap());
    assert_eq!(queue.try_get_bytes(), Err(GetError::Empty));
    queue
}

fn asleep(case: Case<'static, Bytes>) -> Case<'static, Bytes> {
    case.peer(|queue, cells| consumer(queue, cells, 0)).warm(|_, cells| await_asleep(cells, PEER, WAITV))
}

fn reserve_hello(queue: &Bytes) {
    if let Ok(mut place) = queue.reserve(5) {
        place.write_at(0, b"hello");
        ignore(place.commit());
    }
}

fn cases() -> Vec<Case<'static, Bytes>> {
    vec![
        case("queue/reserve, the first", empty, |queue, _| reserve_hello(queue), one_or_none),
        case("queue/reserve", used, |queue, _| reserve_hello(queue), one_or_none),
        asleep(case(
            "queue/reserve, the first, a consumer asleep",
            empty,
            |queue, _| reserve_hello(queue),
            for_a_sleeper,
        )),
        asleep(case(
            "queue/reserve, a consumer asleep",
            used,
            |queue, _| reserve_hello(queue),
            for_a_sleeper,
        )),
        case(
            "queue/try_reserve",
            used,
            |queue, _| ignore(queue.try_reserve(200).map(|place| place.commit())),
            usable,
        ),
        case(
            "queue/reserve_timeout, full",
            full,
            |queue, _| ignore(queue.reserve_timeout(1, Duration::from_millis(20)).map(drop)),
            usable,
        )
        .release(|_, _| ()),
        case(
            "queue/reserve, longer than the log",
            empty,
            |queue, _| {
                if let Ok(mut place) = queue.reserve(6000) {
                    place.write_at(0, &[b'h'; 20]);
                    ignore(place.commit());
                }
            },
            usable,
        ),
        case(
            "queue/reserve, given up",
            used,
            |queue, _| ignore(queue.reserve(5).map(drop)),
            |queue, kill| {
                if kill.finished() && queue.try_get_bytes() != Err(GetError::Empty) {
                    return Err(Fault::Torn("what was given up is there".into()));
                }
                usable(queue, kill)
            },
        ),
        // The message behind the reservation cannot be taken before that ends.
        asleep(case(
            "queue/reserve, given up before a message, a consumer asleep",
            used,
            |queue, _| {
                if let Ok(place) = queue.reserve(5) {
                    ignore(queue.put_bytes(b"behind"));
                    drop(place);
                }
            },
            for_a_sleeper,
        )),
        case(
            "queue/reserve, two, the second committed first",
            used,
            |queue, _| {
                if let (Ok(one), Ok(mut other)) = (queue.reserve(5), queue.reserve(5)) {
                    other.write_at(0, b"hello");
                    ignore(other.commit());
                    drop(one);
                }
            },
            one_or_none,
        ),
        case(
            "queue/get_with",
            two,
            |queue, cells| cells.set(0, first(queue.get_with(|message| message.to_vec()))),
            taken,
        ),
        case(
            "queue/try_get_with",
            two,
            |queue, cells| cells.set(0, first(queue.try_get_with(|it| it.to_vec()))),
            taken,
        ),
        case(
            "queue/get_with_timeout, a producer asleep",
            full,
            |queue, cells| cells.set(0, first(queue.get_with_timeout(SOON, |message| message.to_vec()))),
            |queue, kill| {
                ignore(queue.get_bytes_timeout(Duration::ZERO));
                kill.must_wake(0)?;
                usable(queue, kill)
            },
        )
        .peer(|queue, cells| {
            sign(cells, PEER);
            ignore(queue.put_bytes(b"peer"));
        })
        .warm(|_, cells| await_asleep(cells, PEER, WAITV)),
        case(
            "queue/get_with, over an aborted record",
            || {
                let queue = empty();
                let place = queue.reserve(100).unwrap();
                queue.put_bytes(b"a").unwrap();
                queue.put_bytes(b"b").unwrap();
                drop(place);
                queue
            },
            |queue, cells| cells.set(0, first(queue.get_with(|message| message.to_vec()))),
            taken,
        ),
    ]
}

/// One `hello`, or none (of two, up to two); no reservation is left.
fn one_or_none(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let got: Vec<_> = std::iter::from_fn(|| queue.get_bytes_timeout(Duration::ZERO).ok()).collect();
    match &got[..] {
        [] if kill.finished() => return Err(Fault::Lost("committed, and not there".into())),
        [] => {}
        [message] if message == b"hello" => {}
        // Two have died, and each may have committed.
        [one, other]
            if kill.mode() == Mode::Double && [one, other].iter().all(|message| *message == b"hello") => {}
        _ => return Err(Fault::Torn(format!("{got:?}"))),
    }
    usable(queue, kill)
}

/// A consumer sleeps for a message: what is there reaches it without help, and it passes an aborted record;
/// then it is fed.
fn for_a_sleeper(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let begin = Instant::now();
    while !queue.is_empty() && !kill.peer_ended(0) {
        if begin.elapsed() > kill.patience() {
            return Err(Fault::Hang("the death did not wake the sleeping consumer".into()));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    if !kill.peer_ended(0) {
        // A reservation that is never filled must not hold up what is put behind it.
        queue.put_bytes_timeout(b"fed", kill.patience())?;
    }
    kill.must_wake(0)?;
    usable(queue, kill)
}

/// `a` and `b` were there.
fn taken(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let left: Vec<_> = std::iter::from_fn(|| queue.get_bytes_timeout(Duration::ZERO).ok()).collect();
    let noted = u8::try_from(kill.cell(0)).ok().and_then(|cell| cell.checked_sub(1));
    let all: Vec<u8> = noted.into_iter().chain(left.concat()).collect();
    let fine = match &all[..] {
        b"ab" => true,
        // The victim may have died with the first, or its recoverer.
        b"b" => !kill.finished() || kill.recoverer_finished(),
        _ => kill.recoverer_finished() || left.is_empty(),
    };
    if fine { usable(queue, kill) } else { Err(Fault::Lost(format!("{noted:?}, {left:?}"))) }
}

fn usable(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    while queue.get_bytes_timeout(Duration::ZERO).is_ok() {}
    // The reservation of a process whose death the kernel has missed: a consumer that sleeps behind it finds
    // out.
    while matches!(queue.len(), 1..) && queue.get_bytes_timeout(kill.patience()).is_ok() {}
    let reservations: Vec<_> = (0..4).map_while(|_| queue.reserve_timeout(3, kill.patience()).ok()).collect();
    if reservations.len() < 4 {
        return Err(Fault::Hang(format!("{} reservations, not 4", reservations.len())));
    }
    for mut reservation in reservations {
        reservation.write_at(0, b"abc");
        reservation.commit()?;
    }
    for _ in 0..4 {
        let got = queue.get_with_timeout(kill.patience(), |message| message.to_vec())?;
        if got != b"abc" {
            return Err(Fault::Torn(format!("{got:?}")));
        }
    }
    rest_is_usable(queue, kill)
}

/// The victim stands still, perhaps with a lock or a reservation: time-outs hold. Nothing is put or taken,
/// for the oracles count.
fn stands_still(queue: &Bytes, _: &Kill<'_>) -> Result<(), Fault> {
    if queue.is_empty() {
        let begin = Instant::now();
        match queue.get_bytes_timeout(BRIEFLY) {
            Err(GetError::Empty | GetError::Busy) => in_time("a get", begin, BRIEFLY)?,
            Ok(message) => return Err(Fault::Torn(format!("{message:?} where nothing was"))),
            Err(error) => return Err(error.into()),
        }
    }
    let begin = Instant::now();
    match queue.reserve_timeout(1, BRIEFLY).map(drop) {
        Ok(()) | Err(PutError::Full(()) | PutError::Busy(())) => in_time("a reservation", begin, BRIEFLY),
        Err(error) => Err(error.into()),
    }
}
