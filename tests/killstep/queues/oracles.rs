//! What queues must be like after a death, and what a stopped process must not disturb.

use std::time::{Duration, Instant};

use multiproc::{GetError, PutError};
use multiproc_killstep::{Fault, Kill, Mode};

use super::Bytes;
use crate::support::{BRIEFLY, SOON, in_time, peers_go_on};

/// The victim put one message (bytes `h`), and so did its recoverer; `waiting` peers each want one, and
/// `others` more (`p`) were put. Every committed message reaches a consumer without help, and none is there
/// twice.
pub(crate) fn accounted(queue: &Bytes, kill: &Kill<'_>, waiting: usize, others: usize) -> Result<(), Fault> {
    let peers_got = || (0..waiting).filter(|peer| kill.cell(*peer) != 0).count();
    if waiting > 0 && !queue.is_empty() && peers_got() == 0 {
        // There is a message, and consumers sleep: the death must have woken one.
        let woken = (0..waiting).find(|peer| kill.peer_ended(*peer));
        if woken.is_none() {
            wait_until(kill, || (0..waiting).any(|peer| kill.peer_ended(peer)) || queue.is_empty())?;
        }
    }
    // Now feed the peers that still wait.
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
    let count =
        |byte| noted(kill, byte) + got.iter().filter(|message| message.first() == Some(&byte)).count();
    let hellos = count(b'h');
    let (least, most) =
        (usize::from(kill.finished()) + usize::from(kill.recoverer_finished()), deaths(kill).max(1));
    if hellos < least || hellos > most || count(b'p') != others {
        return Err(Fault::Lost(format!(
            "{hellos} messages of {least} to {most}, and {} of {others}",
            count(b'p')
        )));
    }
    rest_is_usable(queue, kill)
}

/// `a` and `b` were there. The victim and its recoverer took one each, or none, and they took what they
/// noted.
pub(crate) fn taken_once(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
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
    // A dead process may have taken a message without having noted it.
    let silent = takers[..deaths(kill)].iter().filter(|cell| **cell == 0).count();
    if missing > silent {
        Err(Fault::Lost(format!("{missing} messages")))
    } else {
        rest_is_usable(queue, kill)
    }
}

/// How many were killed.
pub(crate) fn deaths(kill: &Kill<'_>) -> usize {
    match kill.mode() {
        Mode::Freeze => 0,
        Mode::Double => 2,
        _ => 1,
    }
}

/// All that is there.
pub(crate) fn drained_of(queue: &Bytes, kill: &Kill<'_>) -> Result<Vec<Vec<u8>>, Fault> {
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

/// Full at first. Everything comes out in order, and the waiting producers get their room.
pub(crate) fn drained(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
    let mut got = drained_of(queue, kill)?;
    kill.must_wake(0)?;
    got.append(&mut drained_of(queue, kill)?);
    let count =
        |byte| noted(kill, byte) + got.iter().filter(|message| message.first() == Some(&byte)).count();
    if count(b'p') != 1 {
        return Err(Fault::Hang(format!("the waiting producer's message is not there: {got:?}")));
    }
    if count(b'h') > deaths(kill).max(1)
        || (kill.mode() == Mode::Freeze && kill.finished() && count(b'h') + count(b'v') > 1)
    {
        return Err(Fault::Lost(format!("put once, there more often: {got:?}")));
    }
    let numbers: Vec<_> = got.iter().filter(|message| message.len() == 1 && *message != b"f").collect();
    if !numbers.is_sorted() {
        return Err(Fault::Torn(format!("{got:?}")));
    }
    rest_is_usable(queue, kill)
}

pub(crate) fn closed(queue: &Bytes, kill: &Kill<'_>) -> Result<(), Fault> {
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
    if queue.get_bytes() == Err(GetError::Closed) {
        Ok(())
    } else {
        Err(Fault::Torn("not closed for readers".into()))
    }
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

pub(crate) fn wait_until(kill: &Kill<'_>, ready: impl Fn() -> bool) -> Result<(), Fault> {
    let deadline = Instant::now() + kill.patience();
    while !ready() {
        if Instant::now() > deadline {
            return Err(Fault::Hang("a waiting peer did not go on".into()));
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Whose lock the victim takes that then stands still.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Producers,
    Consumers,
}

/// The peers that must go on if the victim stands outside of both locks: how many, and what they want.
pub(crate) enum Others {
    Get(usize),
    Put(usize),
}

pub(crate) const PRODUCER: fn(&Bytes, &Kill<'_>) -> Result<(), Fault> =
    |queue, kill| stands_still(queue, kill, Side::Producers, Others::Get(0));
pub(crate) const CONSUMER: fn(&Bytes, &Kill<'_>) -> Result<(), Fault> =
    |queue, kill| stands_still(queue, kill, Side::Consumers, Others::Get(0));

/// While the victim stands still, time-outs hold, nothing is taken from it, the other side goes on, and all
/// peers go on if it stands outside.
pub(crate) fn stands_still(queue: &Bytes, kill: &Kill<'_>, side: Side, others: Others) -> Result<(), Fault> {
    let cannot_put = put_beside(queue)?;
    let cannot_get = get_beside(queue, kill)?;
    if (cannot_put && side == Side::Consumers) || (cannot_get && side == Side::Producers) {
        return Err(Fault::Hang("the other side waits for the stopped victim".into()));
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

/// A put at once and a put with a time-out; returns whether the stopped victim is in the way.
pub(crate) fn put_beside(queue: &Bytes) -> Result<bool, Fault> {
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
        Ok(()) if busy => return Err(Fault::Torn("a side was taken from the stopped victim".into())),
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
        return Err(Fault::Torn("a side was taken from the stopped victim".into()));
    }
    Ok(busy)
}

/// A get at once and a get with a time-out; returns whether the stopped victim is in the way.
pub(crate) fn get_beside(queue: &Bytes, kill: &Kill<'_>) -> Result<bool, Fault> {
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
        Ok(_) if busy => return Err(Fault::Torn("a side was taken from the stopped victim".into())),
        Err(GetError::Busy) if busy && begin.elapsed() < BRIEFLY => {
            return Err(Fault::Torn("the time-out came early".into()));
        }
        Ok(message) => note(kill, &message),
        Err(GetError::Busy) if busy => {}
        Err(GetError::Empty | GetError::Closed) if queue.is_empty() => {}
        Err(error) => return Err(Fault::Torn(format!("get_timeout: {error}, with {} in it", queue.len()))),
    }
    in_time("get_timeout", begin, BRIEFLY)?;
    if busy && !queue.is_empty() && !matches!(queue.try_get_bytes(), Err(GetError::Busy)) {
        return Err(Fault::Torn("a side was taken from the stopped victim".into()));
    }
    Ok(busy)
}

pub(crate) fn closed_is_fine(error: PutError<()>) -> Result<(), Fault> {
    if matches!(error, PutError::Closed(())) { Ok(()) } else { Err(error.into()) }
}

/// What survivors got while the victim stood still, by the first byte; cells from here on.
pub(crate) const NOTED: usize = 40;
pub(crate) const BYTES: &[u8] = b"habp0123fzv";

pub(crate) fn note(kill: &Kill<'_>, message: &[u8]) {
    if let Some(at) = message.first().and_then(|byte| BYTES.iter().position(|known| known == byte)) {
        kill.cells().add(NOTED + at, 1);
    }
}

pub(crate) fn noted(kill: &Kill<'_>, byte: u8) -> usize {
    BYTES
        .iter()
        .position(|known| *known == byte)
        .map_or(0, |at| usize::try_from(kill.cell(NOTED + at)).unwrap_or(0))
}
