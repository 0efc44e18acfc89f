//! What a queue promises to one process: capacity, order, time-outs, closing, typed messages, and that each
//! refused put returns its value.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
#![allow(unsafe_code, reason = "one test takes locks below the queue")]

mod kit;

use std::time::{Duration, Instant};

use multiproc_queue::{Capacity, ErrorKind, GetError, PutError, Queue};
use multiproc_robust::{Acquired, Deadline, MAX_HELD, RobustLock};
use multiproc_shm::{Namespace, Options, Value};

use kit::{Outcome, Sleeper, unique, watchdog};

#[test]
fn smoke() -> Outcome {
    let queue = Queue::new(3)?;
    queue.put("one".to_owned())?;
    queue.put("two".to_owned())?;
    assert_eq!((queue.get()?, queue.get()?), ("one".to_owned(), "two".to_owned()));
    assert_eq!(queue.try_get(), Err(GetError::Empty));

    let bytes: Queue<[u8]> = Queue::new(3)?;
    bytes.put_bytes(b"three")?;
    bytes.put_bytes(b"")?;
    assert_eq!(bytes.get_bytes()?, b"three");
    let mut message = b"rubbish".to_vec();
    bytes.get_into(&mut message)?;
    assert_eq!(message, b"");
    assert_eq!(bytes.try_get_bytes(), Err(GetError::Empty));
    assert_eq!(bytes.get_bytes_timeout(Duration::ZERO), Err(GetError::Empty));
    Ok(())
}

#[test]
fn named_queue_is_shared() -> Outcome {
    let name = unique("names");
    assert_eq!(Queue::<u32>::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    let made = Queue::<u32>::create(&name, 2)?;
    assert_eq!(made.name(), Some(name.as_str()));
    assert_eq!(Queue::<u32>::new(2)?.name(), None);
    assert_eq!(Queue::<u32>::create(&name, 2).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(Queue::<u32>::create("no/slash", 2).unwrap_err().kind(), ErrorKind::BadName);

    let found = Queue::<u32>::open(&name)?;
    let again = Queue::<u32>::open_or_create(&name, 2)?;
    made.put(1)?;
    found.put(2)?;
    assert_eq!((again.len(), again.capacity()), (2, Some(2)));
    assert_eq!((again.get()?, made.get()?), (1, 2));

    let other_capacity = Queue::<u32>::open_or_create(&name, 3).unwrap_err();
    let other_type = Queue::<u64>::open(&name).unwrap_err();
    let bytes = Queue::<[u8]>::open(&name).unwrap_err();
    for error in [other_capacity, other_type, bytes] {
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    }
    assert_eq!(Value::<u32>::open(&name).unwrap_err().kind(), ErrorKind::WrongKind);
    Ok(())
}

#[test]
fn impossible_capacity_is_an_error() {
    let absurd = [
        Capacity::messages(0),
        Capacity::messages((1 << 30) + 1),
        Capacity::messages(usize::MAX),
        Capacity::messages(0).bytes(1 << 16),
        Capacity::messages(1).bytes(0),
        Capacity::messages(1).bytes((1 << 34) + 1),
        Capacity::messages(1).bytes(usize::MAX),
    ];
    for capacity in absurd {
        let error = Queue::<u8>::new(capacity).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{capacity:?}: {error}");
        assert_eq!(Queue::<u8>::create(&unique("absurd"), capacity).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn smallest_and_largest_capacity() -> Outcome {
    let small: Queue<[u8]> = Queue::new(Capacity::messages(1).bytes(1))?;
    assert_eq!(small.capacity(), Some(1));
    for round in 0..5000_usize {
        let message = vec![7; round % 4096];
        small.try_put_bytes(&message)?;
        assert!(small.is_full() && !small.is_empty() && small.len() == 1);
        assert_eq!(small.try_put_bytes(b""), Err(PutError::Full(())));
        assert_eq!(small.get_bytes()?, message);
        assert!(!small.is_full() && small.is_empty());
    }
    let large: Queue<u8> = Queue::new(1 << 30)?;
    assert_eq!(large.capacity(), Some(1 << 30));
    large.try_put(1)?;
    assert_eq!(large.get()?, 1);
    Ok(())
}

#[test]
fn capacity_in_messages_is_exact() -> Outcome {
    for capacity in (1..=130).chain([255, 256, 257, 1000, 1023, 1024, 1025, 4096, 65_536, 100_000]) {
        let queue: Queue<u32> = Queue::new(capacity)?;
        // Several laps, so that the log wraps at another position each time.
        let mut next = 0_u32;
        let mut oldest = 0_u32;
        for _ in 0..3 {
            while queue.len() < capacity {
                assert!(!queue.is_full());
                queue.try_put(next)?;
                next += 1;
            }
            assert!(queue.is_full());
            assert_eq!(queue.try_put(9), Err(PutError::Full(9)), "capacity {capacity}");
            for left in (0..=capacity / 3).rev() {
                assert_eq!(queue.try_get()?, oldest);
                oldest += 1;
                assert_eq!(queue.len(), capacity - (capacity / 3 + 1 - left));
            }
        }
    }
    Ok(())
}

#[test]
fn capacity_in_messages_has_room_for_every_length() -> Outcome {
    for capacity in [256, 300, 1000] {
        let queue: Queue<[u8]> = Queue::new(capacity)?;
        for _ in 0..capacity {
            queue.try_put_bytes(&[1; 2400])?;
        }
        assert!(queue.is_full());
        assert_eq!(queue.try_put_bytes(b"").unwrap_err(), PutError::Full(()));
    }
    Ok(())
}

#[test]
fn capacity_in_bytes_may_be_reached_first() -> Outcome {
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(1000).bytes(4096))?;
    for round in 0..200 {
        // Header and 56 bytes are 64. Where the log wraps, one message fewer fits.
        let mut put = 0;
        while queue.try_put_bytes(&[round; 56]).is_ok() {
            put += 1;
        }
        assert!((62..=64).contains(&put), "{put}");
        assert!(!queue.is_full() && queue.len() == put);
        for _ in 0..put {
            assert_eq!(queue.get_bytes()?.first(), Some(&round));
        }
        assert!(queue.is_empty());
        // Shifts the next round by a word.
        queue.put_bytes(b"")?;
        queue.get_bytes()?;
    }
    Ok(())
}

#[test]
fn unbounded_queue_grows_and_shrinks() -> Outcome {
    let name = unique("unbounded");
    let queue: Queue<[u8]> = Queue::create(&name, Capacity::unbounded())?;
    let file = Namespace::current()?.path().join(&name);
    let memory =
        || std::fs::metadata(&file).map(|facts| std::os::unix::fs::MetadataExt::blocks(&facts) * 512);
    let small = memory()?;
    assert!(small < 2 << 20, "{small}");
    assert_eq!((queue.capacity(), queue.is_full()), (None, false));
    for round in 0..3_u8 {
        for _ in 0..20_000 {
            queue.try_put_bytes(&[round; 1000])?;
        }
        assert!(memory()? > 20_000_000);
        for _ in 0..20_000 {
            assert_eq!(queue.try_get_bytes()?, [round; 1000]);
        }
        assert!(memory()? < small + (6 << 20), "{}", memory()?);
    }
    Ok(())
}

#[test]
fn len_empty_full() -> Outcome {
    let queue = Queue::new(5)?;
    for lap in 0..50_u32 {
        assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (0, true, false));
        for n in 1..=5 {
            queue.put(lap)?;
            assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (n, false, n == 5));
        }
        for n in (0..5).rev() {
            queue.get()?;
            assert_eq!((queue.len(), queue.is_empty(), queue.is_full()), (n, n == 0, false));
        }
    }
    assert!(format!("{queue:?}").contains("len: 0, capacity: Some(5), closed: false"), "{queue:?}");
    Ok(())
}

#[test]
fn try_when_full() -> Outcome {
    let queue = Queue::new(2)?;
    queue.put(vec![1_u8])?;
    queue.try_put(vec![2])?;
    let error = queue.try_put(vec![3]).unwrap_err();
    assert!(error.is_full() && !error.is_closed());
    assert_eq!(error.to_string(), "the queue is full");
    assert_eq!(error.into_inner(), vec![3]);
    assert_eq!(queue.put_timeout(vec![4], Duration::ZERO), Err(PutError::Full(vec![4])));
    assert_eq!((queue.get()?, queue.get()?), (vec![1], vec![2]));
    Ok(())
}

#[test]
fn timeout() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(1)?;
    let timeouts =
        [0, 1, 1000, 1_000_000, 4_900_000, 5_100_000, 30_000_000, 120_000_000].map(Duration::from_nanos);
    for timeout in timeouts {
        let start = Instant::now();
        assert_eq!(queue.get_timeout(timeout), Err(GetError::Empty));
        assert!(start.elapsed() >= timeout);
    }
    queue.put(0_u8)?;
    for timeout in timeouts {
        let start = Instant::now();
        assert_eq!(queue.put_timeout(1, timeout), Err(PutError::Full(1)));
        assert!(start.elapsed() >= timeout);
    }
    // No thread waits if it need not.
    for timeout in timeouts.into_iter().chain([Duration::MAX]) {
        assert_eq!(queue.get_timeout(timeout), Ok(0));
        assert_eq!(queue.put_timeout(0, timeout), Ok(()));
    }
    Ok(())
}

#[test]
fn timeout_of_the_maximum_waits_for_ever() -> Outcome {
    let _watchdog = watchdog();
    for huge in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_nanos(u64::MAX)] {
        let queue = Queue::new(1)?;
        let mine = queue.clone();
        let getter = Sleeper::start(move || mine.get_timeout(huge));
        assert!(!getter.is_done());
        queue.put(1_u8)?;
        assert_eq!(getter.join(), Ok(1));

        queue.put(2)?;
        let mine = queue.clone();
        let putter = Sleeper::start(move || mine.put_timeout(3, huge));
        assert!(!putter.is_done());
        assert_eq!(queue.get()?, 2);
        assert_eq!(putter.join(), Ok(()));
        assert_eq!(queue.get()?, 3);
    }
    Ok(())
}

#[test]
fn close() -> Outcome {
    let queue = Queue::new(3)?;
    let clone = queue.clone();
    queue.put(1_u8)?;
    queue.put(2)?;
    assert!(!clone.is_closed());
    queue.close();
    queue.close();
    assert!(clone.is_closed());
    let error = clone.put(3).unwrap_err();
    assert!(error.is_closed() && !error.is_full());
    assert_eq!(error, PutError::Closed(3));
    assert_eq!(clone.try_put(4), Err(PutError::Closed(4)));
    assert_eq!(clone.put_timeout(5, Duration::MAX), Err(PutError::Closed(5)));
    assert_eq!((clone.len(), clone.get(), clone.get_timeout(Duration::ZERO)), (2, Ok(1), Ok(2)));
    assert_eq!(clone.try_get(), Err(GetError::Closed));
    assert_eq!(clone.get(), Err(GetError::Closed));
    assert_eq!(clone.get_timeout(Duration::MAX), Err(GetError::Closed));
    clone.close();
    assert_eq!((queue.len(), queue.is_empty()), (0, true));
    assert!(format!("{queue:?}").contains("closed: true"));
    Ok(())
}

#[test]
fn close_when_full() -> Outcome {
    let queue: Queue<u8> = Queue::new(1)?;
    queue.put(1)?;
    queue.close();
    assert_eq!(queue.try_put(2), Err(PutError::Closed(2)));
    assert_eq!((queue.try_get(), queue.try_get()), (Ok(1), Err(GetError::Closed)));
    Ok(())
}

#[test]
fn close_ends_an_iteration() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(100)?;
    let mine = queue.clone();
    let sum = Sleeper::start(move || mine.iter().map(Result::unwrap).sum::<u32>());
    for n in 0..1000 {
        queue.put(n)?;
    }
    queue.close();
    assert_eq!(sum.join(), 499_500);
    assert_eq!((&queue).into_iter().count(), 0);
    Ok(())
}

#[test]
fn thread_with_the_maximum_of_locks_gets_an_error() -> Outcome {
    let queue = Queue::new(3)?;
    queue.put(1_u8)?;
    let locks: Vec<_> = (0..MAX_HELD).map(|_| Box::new(RobustLock::new())).collect();
    for lock in &locks {
        // SAFETY: released below, before the boxes are dropped.
        let how = unsafe { lock.acquire(Deadline::NOW) }?;
        assert_eq!(how, Acquired::Clean);
    }
    let error = queue.put(2).unwrap_err();
    assert!(
        matches!(&error, PutError::Broken { value: 2, problem, .. } if problem.contains("1000 locks")),
        "{error}"
    );
    assert!(matches!(queue.try_get(), Err(GetError::Broken { .. })));
    assert_eq!((queue.len(), queue.is_closed()), (1, false));
    assert!(locks.iter().all(|lock| lock.release()));
    queue.put(2)?;
    assert_eq!((queue.get()?, queue.get()?), (1, 2));
    Ok(())
}

#[test]
fn last_drop_removes_the_queue() -> Outcome {
    let name = unique("drops");
    let queue = Queue::create(&name, 3)?;
    queue.put(1_u8)?;
    let clone = queue.clone();
    drop(queue);
    let found = Queue::<u8>::open(&name)?;
    drop(clone);
    assert_eq!(found.try_get(), Ok(1));
    found.put(2)?;
    drop(found);
    // The queue went with its last user, and the message with it.
    assert_eq!(Queue::<u8>::open(&name).unwrap_err().kind(), ErrorKind::NotFound);

    let old = Queue::create(&name, 3)?;
    old.put(3_u8)?;
    Queue::<u8>::unlink(&name)?;
    assert_eq!(Queue::<u8>::unlink(&name).unwrap_err().kind(), ErrorKind::NotFound);
    let new = Queue::<u8>::create(&name, 3)?;
    assert_eq!((new.try_get(), old.try_get()), (Err(GetError::Empty), Ok(3)));
    drop(old);
    assert!(Queue::<u8>::open(&name).is_ok());
    Ok(())
}

#[test]
fn persistent_queue_survives_its_last_drop() -> Outcome {
    let name = unique("persistent");
    let queue: Queue<String> = Options::new().persistent(true).create(&name, Capacity::messages(3))?;
    queue.put("still here".to_owned())?;
    drop(queue);
    let found = Queue::<String>::open(&name)?;
    assert_eq!(found.get()?, "still here");
    Queue::<String>::unlink(&name)?;
    drop(found);
    assert_eq!(Queue::<String>::open(&name).unwrap_err().kind(), ErrorKind::NotFound);
    Ok(())
}
