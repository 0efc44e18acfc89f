//! The other ways to put and to get: each is there wholly or not at all, in order, and once.

use std::time::Duration;

use multiproc::{GetError, Messages, Plain, Queue, SimpleQueue};
use multiproc_killstep::{Case, Cells, Fault, Kill, Mode, Sweep};

use crate::queues::{PEER, full, rest_is_usable, two};
use crate::support::{SOON, WAITV, await_asleep, ignore, nothing_left, ours, sign};

pub(crate) fn run(sweep: &mut Sweep) {
    for case in simple_cases() {
        sweep.run(&case);
    }
    sweep.run(&getting("queue/drain", |queue: &Queue<u32>| {
        queue.drain().into_iter().flatten().flatten().collect()
    }));
    sweep.run(&drained_bytes());
    for case in plain_cases() {
        sweep.run(&case);
    }
    for case in counted_cases() {
        sweep.run(&case);
    }
}

fn simple_cases() -> Vec<Case<'static, SimpleQueue<u32>>> {
    vec![
        putting("queue/simple put", |simple: &SimpleQueue<u32>| ignore(simple.put(1))),
        getting("queue/simple get", |simple: &SimpleQueue<u32>| simple.get().into_iter().collect()),
    ]
}

fn plain_cases() -> Vec<Case<'static, Queue<Plain<u32>>>> {
    type Words = Queue<Plain<u32>>;
    vec![
        putting("queue/put_plain", |queue: &Words| ignore(queue.put_plain(&1))),
        putting("queue/try_put_plain", |queue: &Words| ignore(queue.try_put_plain(&1))),
        putting("queue/put_plain_timeout", |queue: &Words| ignore(queue.put_plain_timeout(&1, SOON))),
        getting("queue/get_plain", |queue: &Words| queue.get_plain().into_iter().collect()),
        getting("queue/try_get_plain", |queue: &Words| queue.try_get_plain().into_iter().collect()),
        getting("queue/get_plain_timeout", |queue: &Words| {
            queue.get_plain_timeout(SOON).into_iter().collect()
        }),
        getting("queue/get_plain_into", |queue: &Words| into(|word| queue.get_plain_into(word))),
        getting("queue/try_get_plain_into", |queue: &Words| into(|word| queue.try_get_plain_into(word))),
        getting("queue/get_plain_into_timeout", |queue: &Words| {
            into(|word| queue.get_plain_into_timeout(word, SOON))
        }),
    ]
}

/// After any death messages are counted exactly; a death may cost the count of one message's bytes.
fn counted_cases() -> Vec<Case<'static, Queue<[u8]>>> {
    vec![
        case("queue/put_bytes, counted", two, |queue, _| ignore(queue.put_bytes(b"c")), counted),
        case(
            "queue/put_bytes, longer than the log, counted",
            || two_and(|queue| queue.put_bytes(&[b'x'; 3900]).unwrap()),
            |queue, _| ignore(queue.put_bytes(b"c")),
            counted,
        ),
        case("queue/get_bytes, counted", two, |queue, _| ignore(queue.get_bytes()), counted),
    ]
}

fn two_and(more: fn(&Queue<[u8]>)) -> Queue<[u8]> {
    let queue = two();
    more(&queue);
    queue
}

fn counted(queue: &Queue<[u8]>, kill: &Kill<'_>) -> Result<(), Fault> {
    let begin = queue.counters();
    if begin.puts - begin.gets != queue.len() as u64 {
        return Err(Fault::Torn(format!("{} messages, {begin:?}", queue.len())));
    }
    // As if no process had died: what is taken is counted, and what was put is all that there is.
    let (mut taken, mut bytes) = (0, 0);
    while let Ok(message) = queue.get_bytes_timeout(Duration::ZERO) {
        taken += 1;
        bytes += message.len() as u64;
    }
    queue.put_bytes_timeout(b"dd", kill.patience())?;
    let end = queue.counters();
    if (end.gets, end.puts) != (begin.gets + taken, begin.puts + 1) || begin.gets + taken != begin.puts {
        return Err(Fault::Lost(format!("{taken} taken: from {begin:?} to {end:?}")));
    }
    // What the victim may have put has one byte; what it may have taken, too.
    let deaths = 1 + u64::from(is_double(kill));
    let all = bytes + begin.gets + 2;
    if end.bytes > all || end.bytes + deaths < all {
        return Err(Fault::Lost(format!("{all} bytes, {end:?}")));
    }
    rest_is_usable(queue, kill)
}

fn into(get: impl FnOnce(&mut u32) -> Result<(), GetError>) -> Vec<u32> {
    let mut word = 0;
    get(&mut word).map(|()| word).into_iter().collect()
}

/// A queue of numbers, however they travel.
trait Numbers {
    fn empty() -> Self;
    fn add(&self, number: u32, patience: Duration) -> Result<(), Fault>;
    fn take(&self, patience: Duration) -> Result<u32, GetError>;
}

impl Numbers for Queue<u32> {
    fn empty() -> Self {
        Self::new(4).unwrap()
    }

    fn add(&self, number: u32, patience: Duration) -> Result<(), Fault> {
        self.put_timeout(number, patience).map_err(|error| Fault::Hang(error.to_string()))
    }

    fn take(&self, patience: Duration) -> Result<u32, GetError> {
        self.get_timeout(patience)
    }
}

impl Numbers for SimpleQueue<u32> {
    fn empty() -> Self {
        Self::new().unwrap()
    }

    fn add(&self, number: u32, patience: Duration) -> Result<(), Fault> {
        Queue::from(self.clone()).add(number, patience)
    }

    fn take(&self, patience: Duration) -> Result<u32, GetError> {
        Queue::from(self.clone()).take(patience)
    }
}

impl Numbers for Queue<Plain<u32>> {
    fn empty() -> Self {
        Self::new(4).unwrap()
    }

    fn add(&self, number: u32, patience: Duration) -> Result<(), Fault> {
        Ok(self.put_plain_timeout(&number, patience)?)
    }

    fn take(&self, patience: Duration) -> Result<u32, GetError> {
        self.get_plain_timeout(patience)
    }
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

/// The victim puts 1; so does its recoverer.
fn putting<Q: Numbers + 'static>(name: &str, put: impl Fn(&Q) + 'static) -> Case<'static, Q> {
    case(
        name,
        Q::empty,
        move |queue, _| put(queue),
        |queue, kill| {
            let there = all_of(queue);
            let (least, most) = (
                usize::from(kill.finished()) + usize::from(kill.recoverer_finished()),
                1 + usize::from(is_double(kill)),
            );
            if there.iter().any(|number| *number != 1) {
                return Err(Fault::Torn(format!("{there:?}")));
            }
            if there.len() < least || there.len() > most {
                return Err(Fault::Lost(format!("{there:?}, of {least} to {most}")));
            }
            goes_on(queue, kill)
        },
    )
}

/// 1, 2 and 3 are there, and the victim takes some of them; so does its recoverer.
fn getting<Q: Numbers + 'static>(name: &str, get: impl Fn(&Q) -> Vec<u32> + 'static) -> Case<'static, Q> {
    let filled = || {
        let queue = Q::empty();
        (1..=3).for_each(|number| queue.add(number, SOON).unwrap());
        queue
    };
    let victim = move |queue: &Q, cells: &Cells| {
        // One cell for each number, and how many processes have noted theirs.
        get(queue).into_iter().for_each(|number| cells.add(number as usize, 1));
        cells.add(0, 1);
    };
    case(name, filled, victim, |queue, kill| {
        let left = all_of(queue);
        if ![&[1, 2, 3][..], &[2, 3], &[3], &[]].contains(&&left[..]) {
            return Err(Fault::Torn(format!("{left:?}")));
        }
        let twice = (1..=3).find(|number| kill.cell(*number as usize) + u64::from(left.contains(number)) > 1);
        let missing =
            (1..=3).filter(|number| kill.cell(*number as usize) == 0 && !left.contains(number)).count();
        match twice {
            Some(number) => Err(Fault::Lost(format!("{number} is there twice"))),
            // A killed process could not note what it had taken.
            None if missing > 0 && kill.cell(0) == 1 + u64::from(is_double(kill)) => {
                Err(Fault::Lost(format!("{missing} messages")))
            }
            None => goes_on(queue, kill),
        }
    })
}

fn all_of(queue: &impl Numbers) -> Vec<u32> {
    std::iter::from_fn(|| queue.take(Duration::ZERO).ok()).collect()
}

fn is_double(kill: &Kill<'_>) -> bool {
    kill.mode() == Mode::Double
}

fn goes_on(queue: &impl Numbers, kill: &Kill<'_>) -> Result<(), Fault> {
    for number in 7..10 {
        queue.add(number, kill.patience())?;
        let got = queue.take(kill.patience())?;
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
