//! Random operations, the same on a queue and on a `VecDeque`: every answer is the same.
#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use std::collections::VecDeque;
use std::time::Duration;

use multiproc_queue::{GetError, PutError, Queue};
use proptest::prelude::*;

use kit::{pattern, unique};

/// What a queue promises, without shared memory.
struct Model {
    messages: usize,
    closed: bool,
    inside: VecDeque<Vec<u8>>,
}

impl Model {
    fn new(messages: usize) -> Self {
        Self { messages, closed: false, inside: VecDeque::new() }
    }

    fn put(&mut self, message: &[u8]) -> Result<(), &'static str> {
        if self.closed {
            return Err("closed");
        }
        if self.inside.len() == self.messages {
            return Err("full");
        }
        self.inside.push_back(message.to_vec());
        Ok(())
    }

    fn get(&mut self) -> Result<Vec<u8>, GetError> {
        self.inside.pop_front().ok_or(if self.closed { GetError::Closed } else { GetError::Empty })
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize),
    PutBriefly(usize),
    Get,
    GetBriefly,
    GetInto,
    Clone,
    Reopen,
    Close,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = || prop_oneof![6 => 0..40_usize, 3 => 0..700_usize, 1 => 3000..90_000_usize];
    let step = prop_oneof![
        40 => length().prop_map(Step::Put),
        5 => length().prop_map(Step::PutBriefly),
        30 => Just(Step::Get),
        3 => Just(Step::GetBriefly),
        8 => Just(Step::GetInto),
        2 => Just(Step::Clone),
        2 => Just(Step::Reopen),
        1 => Just(Step::Close),
    ];
    prop::collection::vec(step, 0..300)
}

fn word(result: Result<(), PutError<()>>) -> Result<(), &'static str> {
    result.map_err(|error| match error {
        PutError::Full(()) => "full",
        PutError::Closed(()) => "closed",
        _ => "something else",
    })
}

proptest! {
    // The minimal failing case is printed; it belongs into a test with a name, not into a file beside this one.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn model(messages in prop_oneof![1..8_usize, 1..500_usize], steps in steps()) {
        let name = unique("model");
        let mut queue: Queue<[u8]> = Queue::create(&name, messages).unwrap();
        let mut model = Model::new(messages);
        let briefly = Duration::from_nanos(1);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(length) => {
                    let message = pattern(number as u64, length);
                    prop_assert_eq!(word(queue.try_put_bytes(&message)), model.put(&message));
                }
                Step::PutBriefly(length) => {
                    let message = pattern(number as u64, length);
                    prop_assert_eq!(word(queue.put_bytes_timeout(&message, briefly)), model.put(&message));
                }
                Step::Get => prop_assert_eq!(queue.try_get_bytes(), model.get()),
                Step::GetBriefly => prop_assert_eq!(queue.get_bytes_timeout(briefly), model.get()),
                Step::GetInto if model.inside.is_empty() => {}
                Step::GetInto => {
                    let mut message = vec![1; number];
                    queue.get_into(&mut message).unwrap();
                    prop_assert_eq!(Ok(message), model.get());
                }
                Step::Clone => queue = queue.clone(),
                Step::Reopen => queue = Queue::open(&name).unwrap(),
                Step::Close => {
                    queue.close();
                    model.closed = true;
                }
            }
            prop_assert_eq!(queue.len(), model.inside.len());
            prop_assert_eq!(queue.is_empty(), model.inside.is_empty());
            prop_assert_eq!(queue.is_full(), model.inside.len() == messages);
            prop_assert_eq!(queue.is_closed(), model.closed);
            prop_assert_eq!(queue.capacity(), Some(messages));
        }
    }
}
