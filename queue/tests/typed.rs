//! Typed messages: what serde may do wrong, and handles in flight.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

mod kit;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::Duration;

use multiproc_queue::{Capacity, ErrorKind, GetError, PutError, Queue};
use multiproc_shm::{AtomicValue, Gc, Namespace, Options, Value};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use kit::{Outcome, unique, watchdog};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Polygon { corners: Vec<(i32, i32)>, name: Option<String> },
}

#[test]
fn typed_messages_arrive() -> Outcome {
    let shapes = Queue::new(10)?;
    let all = [
        Shape::Point,
        Shape::Circle(-0.0),
        Shape::Polygon {
            corners: vec![(i32::MIN, 1), (2, i32::MAX)],
            name: Some("ünïcödé \u{0}".to_owned()),
        },
        Shape::Polygon { corners: vec![], name: None },
    ];
    for shape in &all {
        shapes.put(shape.clone())?;
    }
    assert_eq!([shapes.get()?, shapes.get()?, shapes.get()?, shapes.get()?], all);

    let strings = Queue::new(2)?;
    let words: Vec<String> = (0..500).map(|n| "x".repeat(n % 70)).collect();
    strings.put(words.clone())?;
    assert_eq!(strings.get()?, words);

    let units = Queue::new(2)?;
    units.put(())?;
    assert_eq!((units.len(), units.get()?), (1, ()));

    let maps = Queue::new(2)?;
    let map = BTreeMap::from([(u128::MAX, Some('c')), (0, None)]);
    maps.put(map.clone())?;
    assert_eq!(maps.get()?, map);
    Ok(())
}

#[test]
fn oversized_messages_are_admitted_one_at_a_time() -> Outcome {
    let queue: Queue<Vec<u8>> = Queue::new(Capacity::messages(10).bytes(4096))?;
    let long = vec![6; 100_000];
    queue.put(vec![1])?;
    queue.put(long.clone())?;
    for more in [vec![], long.clone()] {
        assert_eq!(queue.try_put(more.clone()), Err(PutError::Full(more)));
    }
    assert_eq!((queue.get()?, queue.get()?), (vec![1], long.clone()));
    queue.put(long.clone())?;
    assert_eq!(queue.get()?, long);
    Ok(())
}

#[test]
fn batches_keep_the_order() -> Outcome {
    let queue: Queue<String> = Queue::new(5)?;
    let words = |range: std::ops::Range<u32>| range.map(|number| number.to_string()).collect::<Vec<_>>();
    assert_eq!(queue.try_get_many(3), Err(GetError::Empty));
    assert_eq!(queue.try_put_many(words(0..7)), Err(PutError::Full(words(5..7))));
    assert_eq!(
        queue.put_many_timeout(words(7..9), Duration::from_millis(1)),
        Err(PutError::Full(words(7..9)))
    );
    let got = queue.get_many(3)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(got, words(0..3));
    queue.put_many(words(5..8))?;
    let got = queue.get_many_timeout(100, Duration::ZERO)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(got, words(3..8));
    assert_eq!(queue.get_many(0)?, []);
    queue.put_many(words(0..0))?;
    assert_eq!(queue.get_many_timeout(2, Duration::from_millis(1)), Err(GetError::Empty));
    queue.close();
    assert_eq!(queue.get_many(2), Err(GetError::Closed));
    assert_eq!(queue.put_many(words(0..2)), Err(PutError::Closed(words(0..2))));
    Ok(())
}

#[test]
fn batch_with_one_value_that_cannot_be_encoded_or_decoded() -> Outcome {
    let queue: Queue<Odd> = Queue::new(5)?;
    let some = vec![Odd::Fine(1), Odd::FailsToSerialise, Odd::Fine(2)];
    let error = queue.put_many(some.clone()).unwrap_err();
    assert!(matches!(&error, PutError::Encode { value, .. } if *value == some), "{error}");
    assert!(queue.is_empty());
    queue.put_many([Odd::Fine(1), Odd::FailsToDeserialise, Odd::Fine(2)])?;
    let got = queue.get_many(10)?;
    assert_eq!((&got[0], &got[2]), (&Ok(Odd::Fine(1)), &Ok(Odd::Fine(2))));
    assert!(matches!(got[1], Err(GetError::Decode { .. })));
    Ok(())
}

/// A value with which serde does what it says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Odd {
    Fine(u8),
    FailsToSerialise,
    PanicsSerialising,
    FailsToDeserialise,
    PanicsDeserialising,
    LeavesARest,
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fine(n) => (0_u8, *n).serialize(serializer),
            Self::FailsToSerialise => Err(S::Error::custom("on purpose")),
            Self::PanicsSerialising => panic!("on purpose"),
            Self::FailsToDeserialise => (1_u8, 0_u8).serialize(serializer),
            Self::PanicsDeserialising => (2_u8, 0_u8).serialize(serializer),
            Self::LeavesARest => (0_u8, 7_u8, 8_u8).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match <(u8, u8)>::deserialize(deserializer)? {
            (0, n) => Ok(Self::Fine(n)),
            (1, _) => Err(D::Error::custom("on purpose")),
            _ => panic!("on purpose"),
        }
    }
}

#[test]
fn decode_failure_returns_the_bytes() -> Outcome {
    let name = unique("decode");
    let queue = Queue::create(&name, 10)?;
    for odd in [Odd::Fine(1), Odd::FailsToDeserialise, Odd::LeavesARest, Odd::Fine(2)] {
        queue.put(odd)?;
    }
    assert_eq!(queue.get()?, Odd::Fine(1));
    for expected in [&[1, 0][..], &[0, 7, 8]] {
        let error = queue.get().unwrap_err();
        assert!(error.to_string().contains(&name), "{error}");
        let GetError::Decode { queue: shown, bytes, problem } = error else { panic!("{error}") };
        assert_eq!((bytes.as_slice(), shown.contains(&name), problem.is_empty()), (expected, true, false));
    }
    assert_eq!(queue.get()?, Odd::Fine(2));
    Ok(())
}

#[test]
fn decode_failure_is_an_item_of_the_iterator() -> Outcome {
    let queue = Queue::new(10)?;
    for odd in [Odd::Fine(1), Odd::FailsToDeserialise, Odd::Fine(2)] {
        queue.put(odd)?;
    }
    queue.close();
    let seen: Vec<bool> = queue.iter().map(|item| item.is_ok()).collect();
    assert_eq!(seen, [true, false, true]);
    Ok(())
}

#[test]
fn panic_in_decode_loses_only_its_message() -> Outcome {
    let queue = Queue::new(10)?;
    for odd in [Odd::PanicsDeserialising, Odd::Fine(2)] {
        queue.put(odd)?;
    }
    assert!(catch_unwind(AssertUnwindSafe(|| queue.get())).is_err());
    assert_eq!((queue.len(), queue.get()), (1, Ok(Odd::Fine(2))));
    Ok(())
}

#[test]
fn encode_failure_returns_the_value() -> Outcome {
    let queue = Queue::new(10)?;
    queue.put(Odd::Fine(1))?;
    let error = queue.put(Odd::FailsToSerialise).unwrap_err();
    assert!(matches!(&error, PutError::Encode { problem, .. } if !problem.is_empty()), "{error}");
    assert_eq!(error.into_inner(), Odd::FailsToSerialise);
    assert!(matches!(queue.try_put(Odd::FailsToSerialise), Err(PutError::Encode { .. })));
    assert!(catch_unwind(AssertUnwindSafe(|| queue.put(Odd::PanicsSerialising))).is_err());
    queue.put(Odd::Fine(2))?;
    assert_eq!((queue.len(), queue.get()?, queue.get()?), (2, Odd::Fine(1), Odd::Fine(2)));
    Ok(())
}

/// A value that tells others while it is serialised and deserialised.
#[derive(Debug, PartialEq)]
struct Chatty(u32);

thread_local! {
    static AUDIENCE: Queue<Chatty> = Queue::new(100).unwrap();
}

impl Serialize for Chatty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.0.is_multiple_of(10) {
            AUDIENCE.with(|audience| audience.put(Self(self.0 - 1))).map_err(S::Error::custom)?;
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Chatty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number % 10 == 3 {
            let next = AUDIENCE.with(Queue::get).map_err(D::Error::custom)?;
            assert_eq!(next.0, 4);
        }
        Ok(Self(number))
    }
}

#[test]
fn put_and_get_inside_serde() -> Outcome {
    AUDIENCE.with(|queue| {
        queue.put(Chatty(5))?;
        assert_eq!(queue.len(), 6);
        for expected in [0, 1, 2, 3, 5] {
            assert_eq!(queue.get()?, Chatty(expected));
        }
        assert!(queue.is_empty());
        Ok(())
    })
}

#[derive(Serialize, Deserialize)]
struct Delivery {
    value: Value<u64>,
    atomic: AtomicValue<u64>,
    answers: Queue<u64>,
    odd: Odd,
}

/// A namespace of the test's own, so that its sweep disturbs no other test.
struct Private(Namespace);

impl Private {
    fn new() -> Result<Self, multiproc_queue::Error> {
        let parent = Namespace::current()?.path().to_owned();
        Namespace::at(parent.with_file_name(unique("namespace"))).map(Self)
    }

    fn delivery(&self, odd: Odd) -> Result<Delivery, multiproc_queue::Error> {
        let options = Options::new().namespace(&self.0);
        Ok(Delivery {
            value: options.anonymous(7)?,
            atomic: options.anonymous(8)?,
            answers: options.anonymous(Capacity::messages(3))?,
            odd,
        })
    }

    fn files(&self) -> usize {
        fs::read_dir(self.0.path()).unwrap().count()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        fs::remove_dir_all(self.0.path()).unwrap();
    }
}

#[test]
fn handles_in_flight_keep_their_objects() -> Outcome {
    let private = Private::new()?;
    let queue = Queue::new(3)?;
    queue.put(private.delivery(Odd::Fine(1))?)?;
    queue.put(private.delivery(Odd::Fine(2))?)?;
    // Only the messages hold the objects.
    assert_eq!(private.files(), 6);
    for _ in 0..2 {
        let Delivery { value, atomic, answers, odd: Odd::Fine(_) } = queue.get()? else {
            panic!("another message")
        };
        assert_eq!((value.get()?, atomic.load(), answers.len()), (7, 8, 0));
        answers.put(9)?;
        assert_eq!(answers.get()?, 9);
    }
    assert_eq!(private.files(), 0);
    Ok(())
}

#[test]
fn failed_put_keeps_no_object() -> Outcome {
    let private = Private::new()?;
    let queue = Queue::new(1)?;
    assert!(matches!(queue.put(private.delivery(Odd::FailsToSerialise)?), Err(PutError::Encode { .. })));
    assert_eq!(private.files(), 0);
    let panicking = private.delivery(Odd::PanicsSerialising)?;
    assert!(catch_unwind(AssertUnwindSafe(|| drop(queue.put(panicking)))).is_err());
    assert_eq!(private.files(), 0);
    queue.put(private.delivery(Odd::Fine(1))?)?;
    assert_eq!(private.files(), 3);
    let refused = queue.try_put(private.delivery(Odd::Fine(2))?).unwrap_err();
    assert!(refused.is_full());
    assert_eq!(private.files(), 6);
    drop(refused);
    assert_eq!(private.files(), 3);
    assert!(queue.put_timeout(private.delivery(Odd::Fine(2))?, Duration::from_millis(1)).is_err());
    queue.close();
    assert!(queue.put(private.delivery(Odd::Fine(3))?).unwrap_err().is_closed());
    assert_eq!(private.files(), 3);
    drop(queue.get()?);
    assert_eq!(private.files(), 0);
    Ok(())
}

#[test]
fn objects_of_a_lost_message_are_swept() -> Outcome {
    let private = Private::new()?;
    let queue = Queue::new(3)?;
    queue.put(private.delivery(Odd::Fine(1))?)?;
    drop(queue);
    assert_eq!(private.files(), 3);
    // As far as a sweep knows, they may still be in flight.
    assert_eq!(Gc::new().run(&private.0)?.removed.len(), 0);
    assert_eq!(Gc::new().in_flight_age(Duration::ZERO).run(&private.0)?.removed.len(), 3);
    assert_eq!(private.files(), 0);
    Ok(())
}

#[test]
fn handle_of_a_removed_object_is_an_error() -> Outcome {
    let private = Private::new()?;
    let queue = Queue::new(3)?;
    queue.put(private.delivery(Odd::Fine(1))?)?;
    queue.put(private.delivery(Odd::Fine(2))?)?;
    for file in fs::read_dir(private.0.path())?.take(1) {
        fs::remove_file(file?.path())?;
    }
    let both = [queue.get(), queue.get()];
    let failed: Vec<_> = both.iter().filter_map(|message| message.as_ref().err()).collect();
    assert!(matches!(failed.as_slice(), [GetError::Decode { .. }]), "{} failed", failed.len());
    Ok(())
}

/// A queue that carries handles of itself.
#[derive(Debug, Serialize, Deserialize)]
struct Introduction(Option<Queue<Self>>, u32);

#[test]
fn queue_carries_handles_of_itself() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(100)?;
    for n in 0..30 {
        queue.put(Introduction(Some(queue.clone()), n))?;
    }
    let Introduction(Some(arrived), 0) = queue.get()? else { panic!("no handle") };
    drop(queue);
    arrived.put(Introduction(None, 30))?;
    for n in 1..30 {
        let Introduction(Some(mine), number) = arrived.get()? else { panic!("no handle") };
        assert_eq!((number, mine.capacity()), (n, Some(100)));
    }
    assert!(matches!(arrived.get()?, Introduction(None, 30)));
    assert_eq!(arrived.try_get().map(|_| ()), Err(GetError::Empty));
    Ok(())
}

#[test]
fn more_handles_in_flight_than_references() -> Outcome {
    let private = Private::new()?;
    let queue = Queue::new(100)?;
    let value: Value<u64> = Options::new().namespace(&private.0).anonymous(7)?;
    for _ in 0..100 {
        queue.put(value.clone())?;
    }
    drop(value);
    for n in 7..107 {
        let arrived = queue.get()?;
        assert_eq!(arrived.get()?, n);
        arrived.set(n + 1)?;
    }
    Ok(())
}

#[test]
fn put_and_get_in_thread_local_destructors() -> Outcome {
    struct LastWords(Queue<Vec<u8>>);
    impl Drop for LastWords {
        fn drop(&mut self) {
            self.0.put(vec![1]).unwrap();
            assert_eq!(self.0.get().unwrap(), [1]);
            self.0.put(vec![2]).unwrap();
        }
    }
    thread_local! {
        static LAST_WORDS: RefCell<Option<LastWords>> = const { RefCell::new(None) };
    }
    let queue = Queue::new(10)?;
    // What the queue keeps for a thread may be dropped before or after it.
    for used in [None, Some("before"), Some("after")] {
        let mine = queue.clone();
        let thread = thread::spawn(move || {
            let use_it = |when| {
                if used == Some(when) {
                    mine.put(vec![0]).unwrap();
                    mine.get().unwrap();
                }
            };
            use_it("before");
            LAST_WORDS.with_borrow_mut(|words| *words = Some(LastWords(mine.clone())));
            use_it("after");
        });
        thread.join().unwrap();
        assert_eq!((queue.try_get()?, queue.len()), (vec![2], 0));
    }
    Ok(())
}

#[test]
fn opening_as_another_type_is_an_error() -> Outcome {
    let name = unique("type");
    let _queue = Queue::<Shape>::create(&name, 1)?;
    assert_eq!(Queue::<Odd>::open(&name).unwrap_err().kind(), ErrorKind::Mismatch);
    Ok(())
}
