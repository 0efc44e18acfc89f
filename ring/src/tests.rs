//! A ring without an object in shared memory, whose memory is only remembered: each waiting message is where
//! it was put, and has memory. Such a ring has no side table: so would a pipe.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "a test")]

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_robust::Deadline;
use multiproc_shm::Error;

use crate::header::Header;
use crate::*;

/// Remembers which words have memory: at most `most` beyond the initial capacity.
struct Fake {
    words: RefCell<BTreeSet<u32>>,
    most: usize,
    initial: u32,
}

impl Fake {
    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        let new: BTreeSet<u32> = words.chain(self.words.borrow().iter().copied()).collect();
        if new.len() > self.most {
            // Any error will do.
            return Err(
                multiproc_shm::SharedMemory::open("no such block, nor such a name").expect_err("a bad name")
            );
        }
        *self.words.borrow_mut() = new;
        Ok(())
    }

    fn give_back(&self, words: Range<u32>) {
        assert!(words.start >= self.initial, "{words:?}");
        self.words.borrow_mut().retain(|word| !words.contains(word));
    }
}

struct Rig {
    ring: Box<Ring>,
    log: Vec<AtomicU64>,
    sizes: Sizes,
    memory: Fake,
    model: VecDeque<Vec<u8>>,
    number: u32,
    /// What has gone through the ring.
    total: Counters,
}

impl Memory for Rig {
    fn ring(&self) -> &Ring {
        &self.ring
    }

    fn log(&self) -> Log<'_> {
        Log::over(&self.log, self.sizes)
    }

    fn populate(&self, words: Range<u32>) -> Result<(), Error> {
        self.memory.populate(words)
    }

    fn give_back(&self, words: Range<u32>) {
        self.memory.give_back(words);
    }
}

impl Rig {
    fn new(messages: u32, initial: u32, limit: u32, span: u32, most: usize) -> Self {
        Self {
            ring: Box::default(),
            // Whatever is there before memory was set aside.
            log: (0..span)
                .map(|word| AtomicU64::new(if word < initial { 0 } else { u64::MAX / 3 }))
                .collect(),
            sizes: Sizes { messages, initial, limit, span, piece: 16 },
            memory: Fake { words: RefCell::default(), most, initial },
            model: VecDeque::new(),
            number: 0,
            total: Counters::default(),
        }
    }

    fn view(&self) -> View<'_, Self> {
        View::new(self)
    }

    fn put(&mut self, length: usize) -> Result<(), Refusal> {
        self.number += 1;
        let message: Vec<u8> = self.number.to_le_bytes().into_iter().cycle().take(length).collect();
        self.view().put(&message, Deadline::NOW)?;
        self.total.puts += 1;
        self.total.bytes += length as u64;
        self.model.push_back(message);
        self.check();
        Ok(())
    }

    fn get(&mut self) {
        let mut message = Vec::new();
        match self.view().get(&mut message, Deadline::NOW) {
            Ok(()) => {
                assert_eq!(Some(message), self.model.pop_front());
                self.total.gets += 1;
            }
            Err(refusal) => {
                assert_eq!(refusal, Refusal::TimedOut);
                assert!(self.model.is_empty());
            }
        }
        self.check();
    }

    fn get_many(&mut self, most: usize) {
        let mut messages = Messages::new();
        if self.view().get_many(&mut messages, most, Deadline::NOW).is_ok() {
            assert!(messages.len() <= most && !messages.is_empty());
            for message in messages.iter() {
                assert_eq!(Some(message), self.model.pop_front().as_deref());
                self.total.gets += 1;
            }
        }
        self.check();
    }

    /// Every word between head and tail, and the empty header at the tail, has memory.
    fn check(&self) {
        let view = self.view();
        assert_eq!(view.len(), self.model.len());
        assert_eq!(view.is_empty(), self.model.is_empty());
        assert_eq!(view.counters(), self.total);
        if self.sizes.is_fixed() {
            return;
        }
        let (mut at, tail) = (view.head(), view.tail());
        let words = self.memory.words.borrow();
        let there = |word: u32| word < self.sizes.initial || words.contains(&word);
        while at.position != tail.position {
            assert!(there(self.sizes.index(at.position)), "{at:?}");
            match Header::from(view.log().at(at.position).load(Relaxed)) {
                Header::Empty => panic!("the log ends at {at:?} before {tail:?}"),
                Header::Jump(index) => at.position = self.sizes.onward(at.position, index),
                Header::Message { length, .. } | Header::Reserved { length, .. } => {
                    let need = record_words(length as usize).unwrap();
                    let first = self.sizes.index(at.position);
                    assert!((first..first + need).all(there), "{at:?}");
                    at = at.after(need);
                }
            }
        }
        assert!(there(self.sizes.index(tail.position)));
    }

    /// As a producer that was killed after its commit.
    fn forget_tail(&self, before: [u64; 2]) {
        let view = self.view();
        view.producer_words().tail.store(before[0], Relaxed);
        view.producer_words().bytes.store(before[1], Relaxed);
        view.ends_guarded_elsewhere().0.recover();
    }

    /// As if so many messages had gone through the ring already.
    fn advance(&mut self, messages: u32) {
        let view = self.view();
        let notes = view.consumer_notes();
        for (cursor, mark) in
            [(&view.producer_words().tail, &notes.puts), (&view.consumer_words().head, &notes.gets)]
        {
            cursor.store(Cursor { count: messages, ..Cursor::load(cursor) }.word(), Relaxed);
            mark.store(u64::from(messages), Relaxed);
        }
        (self.total.puts, self.total.gets) = (u64::from(messages), u64::from(messages));
    }
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

fn storm(seed: u64, mut rig: Rig, longest: u64) {
    let mut seed = seed;
    for turn in 0..1200 {
        // Phases of growing and of draining.
        let putting = (turn / 150) % 2 == 0;
        let words = rig.view().producer_words();
        let before = [&words.tail, &words.bytes].map(|word| word.load(Relaxed));
        match random(&mut seed) % 8 {
            0..=4 if putting => drop(rig.put((random(&mut seed) % longest) as usize)),
            0..=1 => drop(rig.put((random(&mut seed) % longest) as usize)),
            5 => rig.get_many((random(&mut seed) % 5 + 1) as usize),
            _ => rig.get(),
        }
        if random(&mut seed).is_multiple_of(16) {
            rig.forget_tail(before);
            rig.check();
        }
    }
    while !rig.model.is_empty() {
        rig.get();
    }
}

#[test]
fn waiting_messages_are_where_they_were_put() {
    for seed in 0..4 {
        storm(seed, Rig::new(UNBOUNDED, 64, UNLIMITED, 4096, usize::MAX), 200);
        storm(seed, Rig::new(20, 64, UNLIMITED, 4096, usize::MAX), 900);
        storm(seed, Rig::new(1000, 64, 100, 4096, usize::MAX), 1200);
        storm(seed, Rig::new(1000, 64, 64, 1024, 200), 600);
        storm(seed, Rig::new(1000, 128, UNLIMITED, 128, 0), 800);
    }
}

#[test]
fn empty_log_has_only_its_initial_memory() {
    let mut rig = Rig::new(UNBOUNDED, 64, UNLIMITED, 1 << 16, usize::MAX);
    for _ in 0..1000 {
        rig.put(100).unwrap();
    }
    assert!(rig.memory.words.borrow().len() > 10_000);
    while !rig.model.is_empty() {
        rig.get();
    }
    // The log keeps its memory for a while, as long as laps may be as long again.
    for _ in 0..3000 {
        rig.put(50).unwrap();
        rig.get();
    }
    assert_eq!(rig.memory.words.borrow().len(), 0);
}

#[test]
fn log_of_long_messages_grows_if_there_is_memory() {
    for (most, words) in [(usize::MAX, 64 - 32), (20, 16)] {
        let mut rig = Rig::new(UNBOUNDED, 32, UNLIMITED, 1 << 16, most);
        for _ in 0..200 {
            rig.put(10 * 8).unwrap();
            rig.get();
        }
        assert_eq!(rig.memory.words.borrow().len(), words);
    }
}

#[test]
fn put_without_memory_loses_no_message() {
    let mut rig = Rig::new(UNBOUNDED, 64, UNLIMITED, 4096, 100);
    let mut put = 0;
    let refusal = loop {
        match rig.put(40) {
            Ok(()) => put += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refusal, Refusal::NoSpace);
    assert!(put > 15);
    while !rig.model.is_empty() {
        rig.get();
    }
    rig.put(40).unwrap();
}

#[test]
fn at_most_one_message_is_over_the_limit() {
    let mut rig = Rig::new(1000, 64, 64, 4096, usize::MAX);
    rig.put(8).unwrap();
    rig.put(4000).unwrap();
    assert_eq!(rig.put(4000), Err(Refusal::TimedOut));
    assert_eq!(rig.put(8), Err(Refusal::TimedOut));
    rig.get();
    rig.get();
    rig.put(4000).unwrap();
}

#[test]
fn counts_go_on_where_cursors_wrap() {
    for (initial, span) in [(64, 4096), (128, 128)] {
        let mut rig = Rig::new(UNBOUNDED, initial, UNLIMITED, span, usize::MAX);
        rig.advance(u32::MAX - 1000);
        for turn in 0..3000 {
            rig.put(turn % 60).unwrap();
            if turn % 7 == 0 {
                rig.put(3).unwrap();
                rig.get_many(2);
            } else {
                rig.get();
            }
        }
        assert!(rig.total.puts > 1 << 32);
        // Marks are noted at the latest when the log begins again: without them the counts would not go on.
        rig.check();
    }
}
