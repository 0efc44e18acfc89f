//! A ring whose words are rubbish, from the start (`segment_ops`) or again and again (`segment_scribble`).
//! Every call ends, with a message or with an error, and reaches nothing outside of the log. The log lies in
//! a vector of exactly its size: `ci/asan.sh` runs this under AddressSanitizer, for as long as
//! `MULTIPROC_FUZZ_SECONDS` says.
#![allow(
    clippy::cast_possible_truncation,
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test"
)]

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::ops::Range;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use multiproc_robust::Deadline;
use multiproc_shm::Error;

use crate::*;

/// What a call with a time-out of a moment may take, on a crowded machine.
const LONGEST: Duration = Duration::from_secs(5);

struct Rubbish {
    ring: Box<Ring>,
    log: Vec<AtomicU64>,
    sizes: Sizes,
    side_table: Box<SideTable>,
    /// Whether it has a side table: not in a joinable queue.
    reservable: bool,
}

impl Memory for Rubbish {
    fn ring(&self) -> &Ring {
        &self.ring
    }

    fn log(&self) -> Log<'_> {
        Log::over(&self.log, self.sizes)
    }

    /// As `Shared` does it, which looks whether it is inside.
    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        if words.start <= words.end && words.end <= self.sizes.span {
            return Ok(());
        }
        Err(multiproc_shm::SharedMemory::open("no such block, nor such a name")
            .expect_err("any error will do"))
    }

    fn give_back(&self, _: Range<u32>) {}

    fn side_table(&self) -> Option<&SideTable> {
        self.reservable.then_some(&self.side_table)
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }
}

impl Rubbish {
    fn new(sizes: Sizes, reservable: bool) -> Self {
        let log = (0..sizes.span).map(|_| AtomicU64::new(0)).collect();
        Self { ring: Box::default(), log, sizes, side_table: Box::default(), reservable }
    }

    fn view(&self) -> View<'_, Self> {
        View::new(self)
    }

    /// A number that may mean something: of a word, of bytes, or nothing.
    fn number(&self, dice: &mut Dice) -> u32 {
        let Sizes { initial, span, limit, .. } = self.sizes;
        let near = [0, initial, span, span / 2, limit, u32::MAX, u32::MAX / 2, span * 8, initial * 8]
            [dice.below(9) as usize];
        match dice.below(4) {
            0 => dice.next() as u32,
            1 => dice.below(span),
            2 => dice.below(16),
            _ => near.wrapping_add(dice.below(9)).wrapping_sub(4),
        }
    }

    /// What may stand in the log.
    fn header(&self, dice: &mut Dice) -> u64 {
        let (low, high) = match dice.below(7) {
            0 => (0, 0),
            1 => (0, self.number(dice)),
            2 => (u32::MAX, self.number(dice)),
            3 => (1 + dice.below(100), 0),
            4 => (self.number(dice), self.number(dice)),
            // Reserved, in one of the first generations of a claim.
            5 => {
                let length = if dice.one_in(4) { self.number(dice) } else { dice.below(100) };
                (length.wrapping_add(1), 1 << 31 | dice.below(64))
            }
            _ => return dice.next(),
        };
        u64::from(low) | u64::from(high) << 32
    }

    /// A cursor, mostly a short way behind another.
    fn cursor(&self, dice: &mut Dice, behind: Cursor) -> Cursor {
        let position =
            if dice.one_in(4) { self.number(dice) } else { behind.position.wrapping_add(self.number(dice)) };
        let count = if dice.one_in(4) { self.number(dice) } else { behind.count.wrapping_add(dice.below(9)) };
        Cursor { position, count }
    }

    /// Writes rubbish to a word that a peer can write, but for the locks.
    fn scribble(&self, dice: &mut Dice) {
        let view = self.view();
        let head = view.head();
        match dice.below(12) {
            0 => view.producer_words().tail.store(self.cursor(dice, head).word(), Relaxed),
            1 => view.consumer_words().head.store(self.cursor(dice, head).word(), Relaxed),
            2 => view.producer_notes().seen_head.store(self.cursor(dice, head).word(), Relaxed),
            3 => self.ring.consumers.lock().guarded[1 + dice.below(2) as usize].store(dice.next(), Relaxed),
            4 if dice.one_in(8) => view.producer_words().closed.store(u64::from(dice.below(2)), Relaxed),
            4 | 5 => {
                let note = &self.ring.producers.notes[dice.below(7) as usize];
                note.store(
                    u64::from(self.number(dice)) | u64::from(dice.below(2) * self.number(dice)) << 32,
                    Relaxed,
                );
            }
            6 if dice.one_in(3) => {
                view.scribble_on_reservation(dice.below(9) as usize, u64::from(self.number(dice) % 32))
            }
            6 => view.log().at(head.position).store(self.header(dice), Relaxed),
            7 => {
                let tail = view.tail();
                view.log().at(tail.position.wrapping_add(dice.below(3))).store(self.header(dice), Relaxed);
            }
            _ => self.log[dice.below(self.sizes.span) as usize].store(self.header(dice), Relaxed),
        }
    }

    /// Makes one call, whatever it returns.
    fn call(&self, dice: &mut Dice) {
        let view = self.view();
        let deadline = if dice.one_in(40) {
            Deadline::after(Duration::from_micros(u64::from(dice.below(200))))
        } else {
            Deadline::NOW
        };
        let length =
            if dice.one_in(3) { self.number(dice) % (self.sizes.span * 9) } else { dice.below(100) } as usize;
        let begun = Instant::now();
        let kind = dice.below(15);
        match kind {
            0..3 => drop(view.put(&vec![7; length], deadline)),
            3..6 => {
                let mut message = Vec::with_capacity(if dice.one_in(2) { length } else { 0 });
                if view.get(&mut message, deadline).is_ok() {
                    assert!(message.len() <= self.sizes.longest());
                }
            }
            6 => {
                let mut messages = Messages::new();
                (0..dice.below(5)).for_each(|_| messages.push(&vec![3; length / 4]));
                let mut done = 0;
                let result = view.put_many(&messages, &mut done, deadline);
                assert!(done <= messages.len() && (result.is_err() || done == messages.len()));
            }
            7 => {
                let mut messages = Messages::with_capacity(length);
                let most = dice.below(9) as usize;
                let _ = view.get_many(&mut messages, most, deadline);
                assert!(
                    messages.len() <= most
                        && messages.iter().all(|message| message.len() <= self.sizes.longest())
                );
            }
            8 => assert!(view.len() <= self.sizes.messages as usize),
            9 => assert!(view.next_length().is_none_or(|length| length <= self.sizes.longest())),
            10 => {
                let guard = view.enter_producers(Deadline::NEVER).unwrap();
                guard.end().recover();
                guard.leave();
            }
            11 | 12 if self.reservable => {
                let reservations: Vec<_> =
                    (0..dice.below(12)).map_while(|_| view.reserve(length, deadline).ok()).collect();
                for reservation in reservations {
                    if let Some(payload) = view.payload_of(reservation) {
                        let bytes = &vec![5; length][..dice.below(length as u32 + 1) as usize];
                        payload.write_at(dice.below((length - bytes.len()) as u32 + 1) as usize, bytes);
                    }
                    if dice.one_in(3) {
                        view.give_up(reservation)
                    } else {
                        view.commit(reservation)
                    };
                }
            }
            13 => {
                let read = |message: Payload<'_>| {
                    assert!(message.len() <= self.sizes.longest());
                    let mut bytes = vec![0; message.len()];
                    message.read_at(0, &mut bytes);
                    assert!(message.pieces().iter().map(|piece| piece.1).sum::<usize>() == bytes.len());
                };
                let _ = view.get_with(deadline, read);
            }
            _ if dice.one_in(50) => view.close(),
            _ => drop((view.is_empty(), view.is_closed())),
        }
        let took = begun.elapsed();
        assert!(took < LONGEST, "call {kind} took {took:?}");
    }
}

/// The kinds of logs: small ones that grow, with and without limits, and fixed ones.
fn kinds() -> [Sizes; 5] {
    let grows = Sizes { messages: UNBOUNDED, initial: 64, limit: UNLIMITED, span: 1024, piece: 16 };
    [
        grows,
        Sizes { messages: 20, span: 4096, ..grows },
        Sizes { messages: 100, limit: 100, ..grows },
        Sizes { messages: 8, limit: 64, initial: 64, span: 256, piece: 64 },
        Sizes { messages: 50, initial: 128, span: 128, ..grows },
    ]
}

/// How long each of the two tests goes on.
fn length() -> Duration {
    let seconds = std::env::var("MULTIPROC_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or(Duration::from_millis(500), Duration::from_secs)
}

/// Ends the program if a call does not end.
#[must_use = "it watches until it is dropped"]
fn watchdog() -> mpsc::Sender<()> {
    let (alive, watch) = mpsc::channel();
    thread::spawn(move || {
        if watch.recv_timeout(length() + 10 * LONGEST) == Err(RecvTimeoutError::Timeout) {
            eprintln!("a call on a hostile ring hangs");
            process::abort();
        }
    });
    alive
}

fn seed() -> u64 {
    // What the standard library seeds its maps with: another number each time.
    let any = || BuildHasher::hash_one(&RandomState::new(), 0);
    let seed =
        std::env::var("MULTIPROC_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(any);
    eprintln!("seed {seed}");
    seed
}

#[test]
fn segment_ops() {
    let _watchdog = watchdog();
    let (end, seed) = (Instant::now() + length(), seed());
    let mut round = 0;
    while Instant::now() < end {
        for sizes in kinds() {
            let mut dice = Dice(seed.wrapping_add(round));
            round += 1;
            let queue = Rubbish::new(sizes, !round.is_multiple_of(3));
            // From a queue that was used, or from nothing.
            (0..dice.below(40)).for_each(|_| queue.call(&mut dice));
            (0..dice.below(60)).for_each(|_| queue.scribble(&mut dice));
            for _ in 0..dice.below(30) {
                queue.call(&mut dice);
                if dice.one_in(4) {
                    queue.scribble(&mut dice);
                }
            }
        }
    }
    eprintln!("{round} rounds");
}

#[test]
fn segment_scribble() {
    let _watchdog = watchdog();
    let seed = seed();
    for (number, sizes) in (0_u64..).zip(kinds()) {
        let queue = &Rubbish::new(sizes, number != 1);
        let (end, over) = (Instant::now() + length() / 5, &AtomicBool::new(false));
        thread::scope(|scope| {
            for user in 0..3 {
                scope.spawn(move || {
                    let mut dice = Dice(seed.wrapping_add(number * 10 + user));
                    while Instant::now() < end {
                        queue.call(&mut dice);
                    }
                    over.store(true, Relaxed);
                });
            }
            let mut dice = Dice(seed.wrapping_add(number * 10 + 9));
            while !over.load(Relaxed) {
                queue.scribble(&mut dice);
                (0..dice.below(2000)).for_each(|_| std::hint::spin_loop());
            }
        });
    }
}
