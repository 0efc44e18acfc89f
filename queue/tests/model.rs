//! Random operations on a queue and on a `VecDeque`: every answer is the same. The queues have every kind of
//! limit; their logs wrap, jump, grow and shrink, or lie in a file; they carry bytes and types, one and many
//! at once.
#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use multiproc_queue::{Capacity, GetError, Messages, PutError, Queue};
use multiproc_shm::Options;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use kit::{pattern, unique};

/// How much a queue holds, and where it lies.
#[derive(Clone, Copy, Debug)]
enum Limits {
    Messages(usize),
    Unbounded,
    Bytes {
        messages: usize,
        bytes: usize,
    },
    /// In a file of this many words.
    File {
        messages: usize,
        words: usize,
    },
}

impl Limits {
    fn capacity(self) -> Capacity {
        match self {
            Self::Messages(messages) => Capacity::messages(messages),
            Self::Unbounded => Capacity::unbounded(),
            Self::Bytes { messages, bytes } => Capacity::messages(messages).bytes(bytes),
            Self::File { messages, words } => Capacity::messages(messages).bytes(words * 8),
        }
    }

    fn messages(self) -> Option<usize> {
        match self {
            Self::Unbounded => None,
            Self::Messages(messages) | Self::Bytes { messages, .. } | Self::File { messages, .. } => {
                Some(messages)
            }
        }
    }
}

/// What a put must answer, as far as it is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Put {
    Done,
    Full,
    /// Near the end of the log a limit of bytes may allow either.
    DoneOrFull,
    Closed,
    TooLarge,
}

/// What a queue promises, without shared memory.
struct Model {
    limits: Limits,
    closed: bool,
    inside: VecDeque<Vec<u8>>,
}

/// Words of a message and its header.
fn words(length: usize) -> usize {
    1 + length.div_ceil(8)
}

impl Model {
    /// Returns what a put of this many bytes must answer now.
    fn put(&self, length: usize) -> Put {
        let (used, need) =
            (self.inside.iter().map(|message| words(message.len())).sum::<usize>(), words(length));
        match self.limits {
            Limits::File { words, .. } if length > (words - 2) * 8 => Put::TooLarge,
            _ if self.closed => Put::Closed,
            _ if self.limits.messages() == Some(self.inside.len()) => Put::Full,
            Limits::File { words, .. } if used + need >= words => Put::Full,
            Limits::Bytes { bytes, .. } => match bytes.max(4096) / 8 {
                // Whatever its length: otherwise it could never be put.
                _ if used == 0 => Put::Done,
                limit if used + need <= limit || (need > limit && used <= limit) => Put::DoneOrFull,
                _ => Put::Full,
            },
            _ => Put::Done,
        }
    }

    /// Returns whether this answer is allowed, and notes it.
    fn did(&mut self, message: &[u8], put: Put) -> bool {
        let expected = self.put(message.len());
        if put == Put::Done {
            self.inside.push_back(message.to_vec());
        }
        expected == put || (expected == Put::DoneOrFull && matches!(put, Put::Done | Put::Full))
    }

    fn get(&mut self) -> Result<Vec<u8>, GetError> {
        self.inside.pop_front().ok_or(if self.closed { GetError::Closed } else { GetError::Empty })
    }
}

fn became<T>(result: &Result<(), PutError<T>>) -> Put {
    match result {
        Ok(()) => Put::Done,
        Err(PutError::Full(_)) => Put::Full,
        Err(PutError::Closed(_)) => Put::Closed,
        Err(PutError::TooLarge { .. }) => Put::TooLarge,
        // The model never answers so.
        Err(_) => Put::DoneOrFull,
    }
}

/// A queue, and its file if it has one.
struct Subject {
    name: String,
    file: Option<PathBuf>,
    queue: Queue<[u8]>,
}

impl Subject {
    fn new(limits: Limits) -> Self {
        let name = unique("model");
        if let Limits::File { .. } = limits {
            let file = std::env::temp_dir().join(&name);
            return Self {
                queue: Options::new().create_file(&file, limits.capacity()).unwrap(),
                name,
                file: Some(file),
            };
        }
        Self { queue: Queue::create(&name, limits.capacity()).unwrap(), name, file: None }
    }

    fn reopen(&mut self) {
        self.queue = match &self.file {
            Some(file) => Options::new().open_file(file).unwrap(),
            None => Queue::open(&self.name).unwrap(),
        };
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        self.file.iter().for_each(|file| fs::remove_file(file).unwrap());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    PutBriefly(usize),
    PutMany(Vec<usize>),
    Get,
    GetBriefly,
    GetInto,
    /// Up to this many messages, into memory for this many bytes.
    GetMany(usize, usize),
    /// This many rounds of one message of this length in and one out: laps of the log.
    Churn(usize, usize),
    Drain,
    Clone,
    Reopen,
    Close,
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![
        3 => prop_oneof![1..8_usize, 1..500_usize].prop_map(Limits::Messages),
        2 => Just(Limits::Unbounded),
        3 => (1..500_usize, prop_oneof![4000..10_000_usize, 4000..300_000_usize])
            .prop_map(|(messages, bytes)| Limits::Bytes { messages, bytes }),
        2 => (1..500_usize, 9..15_u32).prop_map(|(messages, log)| Limits::File { messages, words: 1 << log }),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || {
        prop_oneof![
            200 => 0..40_usize,
            90 => 0..700_usize,
            20 => 3000..90_000_usize,
            1 => 1_000_000..3_000_000_usize,
        ]
    };
    let step = prop_oneof![
        40 => length().prop_map(Step::Put),
        5 => length().prop_map(Step::PutBriefly),
        5 => prop::collection::vec(length(), 0..8).prop_map(Step::PutMany),
        30 => Just(Step::Get),
        3 => Just(Step::GetBriefly),
        8 => Just(Step::GetInto),
        5 => (0..9_usize, prop_oneof![0..100_usize, 0..5000_usize])
            .prop_map(|(most, room)| Step::GetMany(most, room)),
        3 => (0..40_usize, 0..5000_usize).prop_map(|(times, length)| Step::Churn(times, length)),
        1 => Just(Step::Drain),
        2 => Just(Step::Clone),
        2 => Just(Step::Reopen),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..300)
}

fn config(cases: u32) -> ProptestConfig {
    // The minimal failing case is printed. It belongs into a named test, not into a file beside this one.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

const BRIEFLY: Duration = Duration::from_nanos(1);

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn bytes(limits in limits(), steps in steps()) {
        let mut subject = Subject::new(limits);
        let mut model = Model { limits, closed: false, inside: VecDeque::new() };
        let mut number = 0;
        let mut next = |length: usize| {
            number += 1;
            pattern(number, length)
        };
        for step in steps {
            let queue = &subject.queue;
            match step {
                Step::Put(length) => {
                    let message = next(length);
                    let put = became(&queue.try_put_bytes(&message));
                    prop_assert!(model.did(&message, put), "{:?}", put);
                }
                Step::PutBriefly(length) => {
                    let message = next(length);
                    let put = became(&queue.put_bytes_timeout(&message, BRIEFLY));
                    prop_assert!(model.did(&message, put), "{:?}", put);
                }
                Step::PutMany(lengths) => {
                    let mut messages = Messages::new();
                    lengths.into_iter().for_each(|length| messages.push(&next(length)));
                    let result = queue.try_put_many_bytes(&messages);
                    let put = became(&result);
                    let done = result.err().map_or(messages.len(), PutError::into_inner);
                    for (number, message) in messages.iter().take(done + 1).enumerate() {
                        let put = if number < done { Put::Done } else { put };
                        prop_assert!(model.did(message, put), "{:?}", put);
                    }
                }
                Step::Get => prop_assert_eq!(queue.try_get_bytes(), model.get()),
                Step::GetBriefly => prop_assert_eq!(queue.get_bytes_timeout(BRIEFLY), model.get()),
                Step::GetInto if model.inside.is_empty() => {}
                Step::GetInto => {
                    let mut message = vec![1; 3];
                    queue.get_into(&mut message).unwrap();
                    prop_assert_eq!(Ok(message), model.get());
                }
                Step::GetMany(most, room) => {
                    let mut messages = Messages::with_capacity(room);
                    let result = queue.try_get_many_into(&mut messages, most);
                    if most > 0 && (model.inside.is_empty() || messages.is_empty()) {
                        prop_assert_eq!(result, model.get().map(|_| ()));
                        continue;
                    }
                    prop_assert!(messages.len() <= most);
                    for message in messages.iter() {
                        prop_assert_eq!(Ok(message.to_vec()), model.get());
                    }
                    let bytes: usize = messages.iter().map(<[u8]>::len).sum();
                    let more = model.inside.front().filter(|_| messages.len() < most);
                    prop_assert!(more.is_none_or(|more| bytes + more.len() > room), "it has taken too few");
                }
                Step::Churn(times, length) => {
                    for _ in 0..times {
                        let message = next(length);
                        let put = became(&queue.try_put_bytes(&message));
                        prop_assert!(model.did(&message, put), "{:?}", put);
                        prop_assert_eq!(queue.try_get_bytes(), model.get());
                    }
                }
                Step::Drain => {
                    while !model.inside.is_empty() {
                        prop_assert_eq!(queue.try_get_bytes(), model.get());
                    }
                }
                Step::Clone => subject.queue = queue.clone(),
                Step::Reopen => subject.reopen(),
                Step::Close => {
                    queue.close();
                    model.closed = true;
                }
            }
            let queue = &subject.queue;
            prop_assert_eq!(queue.len(), model.inside.len());
            prop_assert_eq!(queue.is_empty(), model.inside.is_empty());
            prop_assert_eq!(queue.is_full(), limits.messages() == Some(model.inside.len()));
            prop_assert_eq!(queue.is_closed(), model.closed);
            prop_assert_eq!(queue.capacity(), limits.messages());
        }
    }
}

/// A message with a bit of everything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Value {
    Unit,
    Number(i128),
    Text(String),
    Many(Vec<Option<(u8, f64)>>),
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Unit),
        any::<i128>().prop_map(Value::Number),
        ".{0,60}".prop_map(Value::Text),
        prop::collection::vec(prop::option::of((any::<u8>(), -1e300..1e300)), 0..200).prop_map(Value::Many),
    ]
}

#[derive(Clone, Debug)]
enum TypedStep {
    Put(Value),
    PutBriefly(Value),
    PutMany(Vec<Value>),
    PutManyBriefly(Vec<Value>),
    Get,
    GetBriefly,
    GetMany(usize),
    GetManyBriefly(usize),
    /// This many by the iterator, which waits.
    Iterate(usize),
    Close,
}

fn typed_steps() -> impl Strategy<Value = Vec<TypedStep>> {
    let values = || prop::collection::vec(value(), 0..6);
    let step = prop_oneof![
        20 => value().prop_map(TypedStep::Put),
        5 => value().prop_map(TypedStep::PutBriefly),
        5 => values().prop_map(TypedStep::PutMany),
        5 => values().prop_map(TypedStep::PutManyBriefly),
        12 => Just(TypedStep::Get),
        4 => Just(TypedStep::GetBriefly),
        5 => (0..6_usize).prop_map(TypedStep::GetMany),
        4 => (0..6_usize).prop_map(TypedStep::GetManyBriefly),
        4 => (0..5_usize).prop_map(TypedStep::Iterate),
        1 => Just(TypedStep::Close),
    ];
    prop::collection::vec(step, 0..120)
}

/// The same for values, which are returned when they are refused.
struct TypedModel {
    messages: Option<usize>,
    closed: bool,
    inside: VecDeque<Value>,
}

impl TypedModel {
    /// Takes as many as it can; returns what is left, and the answer.
    fn put(&mut self, mut values: Vec<Value>) -> (Put, Vec<Value>) {
        let room = self.messages.map_or(usize::MAX, |messages| messages - self.inside.len());
        let rest = if self.closed { 0 } else { room.min(values.len()) };
        let rest = values.split_off(rest);
        self.inside.extend(values);
        let put = if rest.is_empty() {
            Put::Done
        } else if self.closed {
            Put::Closed
        } else {
            Put::Full
        };
        (put, rest)
    }

    fn get(&mut self, most: usize) -> Result<Vec<Value>, GetError> {
        if self.inside.is_empty() && most > 0 {
            return Err(if self.closed { GetError::Closed } else { GetError::Empty });
        }
        Ok(self.inside.drain(..most.min(self.inside.len())).collect())
    }
}

/// Capacities in messages: none, small, larger.
fn capacities() -> impl Strategy<Value = Option<usize>> {
    prop_oneof![Just(None), (1..8_usize).prop_map(Some), (1..100_usize).prop_map(Some)]
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn types(messages in capacities(), steps in typed_steps()) {
        let capacity = messages.map_or(Capacity::unbounded(), Capacity::messages);
        let queue: Queue<Value> = Queue::new(capacity).unwrap();
        let mut model = TypedModel { messages, closed: false, inside: VecDeque::new() };
        let one = |result: Result<(), PutError<Value>>| {
            (became(&result), Vec::from_iter(result.err().map(PutError::into_inner)))
        };
        let many = |result: Result<(), PutError<Vec<Value>>>| {
            (became(&result), result.err().map(PutError::into_inner).unwrap_or_default())
        };
        let got = |values: Vec<Result<Value, GetError>>| {
            values.into_iter().map(Result::unwrap).collect::<Vec<_>>()
        };
        for step in steps {
            match step {
                TypedStep::Put(value) => {
                    prop_assert_eq!(one(queue.try_put(value.clone())), model.put(vec![value]));
                }
                TypedStep::PutBriefly(value) => {
                    prop_assert_eq!(one(queue.put_timeout(value.clone(), BRIEFLY)), model.put(vec![value]));
                }
                TypedStep::PutMany(values) => {
                    prop_assert_eq!(many(queue.try_put_many(values.clone())), model.put(values));
                }
                TypedStep::PutManyBriefly(values) => {
                    prop_assert_eq!(many(queue.put_many_timeout(values.clone(), BRIEFLY)), model.put(values));
                }
                TypedStep::Get => prop_assert_eq!(queue.try_get().map(|value| vec![value]), model.get(1)),
                TypedStep::GetBriefly => {
                    prop_assert_eq!(queue.get_timeout(BRIEFLY).map(|value| vec![value]), model.get(1));
                }
                TypedStep::GetMany(most) => {
                    prop_assert_eq!(queue.try_get_many(most).map(got), model.get(most));
                }
                TypedStep::GetManyBriefly(most) => {
                    prop_assert_eq!(queue.get_many_timeout(most, BRIEFLY).map(got), model.get(most));
                }
                TypedStep::Iterate(most) => {
                    let most = if model.closed { most } else { most.min(model.inside.len()) };
                    let values = got(queue.iter().take(most).collect());
                    prop_assert_eq!(values, model.get(most).unwrap_or_default());
                }
                TypedStep::Close => {
                    queue.close();
                    model.closed = true;
                }
            }
            prop_assert_eq!(queue.len(), model.inside.len());
            prop_assert_eq!(queue.is_closed(), model.closed);
        }
    }
}
