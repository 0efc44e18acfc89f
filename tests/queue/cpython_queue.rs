//! CPython's own tests of `Queue` and `SimpleQueue` (`Lib/test/_test_multiprocessing.py`), under their names;
//! one module for each class.

mod test_queue {
    use std::thread;
    use std::time::{Duration, Instant};

    use multiproc::queue::NothingTaken;
    use multiproc::{Capacity, Event, GetError, JoinableQueue, PutError, Queue};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    use crate::common::{Outcome, spawn, value, watchdog};

    const TIMEOUTS: [Duration; 3] =
        [Duration::from_millis(82), Duration::from_millis(35), Duration::from_millis(140)];

    fn take_six((queue, child_can_start, parent_can_continue): (Queue<i32>, Event, Event)) {
        child_can_start.wait();
        (0..6).for_each(|_| assert!(queue.get().is_ok()));
        parent_can_continue.set();
    }

    #[test]
    fn test_put() -> Outcome {
        let _watchdog = watchdog();
        let queue = Queue::new(6)?;
        let (child_can_start, parent_can_continue) = (Event::new()?, Event::new()?);
        let child = spawn(take_six, (queue.clone(), child_can_start.clone(), parent_can_continue.clone()));
        assert!(queue.is_empty() && !queue.is_full());

        queue.put(1)?;
        queue.put(2)?;
        queue.put_timeout(3, Duration::MAX)?;
        queue.try_put(4)?;
        queue.put_timeout(5, Duration::ZERO)?;
        queue.try_put(6)?;
        // No feeder thread: a `put` that returned is in the queue.
        assert!(!queue.is_empty() && queue.is_full());

        assert_eq!(queue.try_put(7), Err(PutError::Full(7)));
        for timeout in TIMEOUTS {
            let begin = Instant::now();
            assert_eq!(queue.put_timeout(7, timeout), Err(PutError::Full(7)));
            assert!(begin.elapsed() >= timeout);
        }

        child_can_start.set();
        parent_can_continue.wait();
        assert!(queue.is_empty() && !queue.is_full());
        value(&child);
        Ok(())
    }

    fn put_four((queue, child_can_start, parent_can_continue): (Queue<i32>, Event, Event)) {
        child_can_start.wait();
        (2..6).for_each(|number| queue.put(number).expect("room"));
        parent_can_continue.set();
    }

    #[test]
    fn test_get() -> Outcome {
        let _watchdog = watchdog();
        let queue = Queue::unbounded()?;
        let (child_can_start, parent_can_continue) = (Event::new()?, Event::new()?);
        let child = spawn(put_four, (queue.clone(), child_can_start.clone(), parent_can_continue.clone()));
        assert!(queue.is_empty());
        child_can_start.set();
        parent_can_continue.wait();
        assert!(!queue.is_empty());

        assert_eq!(queue.get_timeout(Duration::MAX), Ok(2));
        assert_eq!(queue.get(), Ok(3));
        assert_eq!(queue.get_timeout(Duration::from_secs(1)), Ok(4));
        assert_eq!(queue.try_get(), Ok(5));
        assert!(queue.is_empty());

        assert_eq!(queue.try_get(), Err(GetError::Empty));
        for timeout in TIMEOUTS {
            let begin = Instant::now();
            assert_eq!(queue.get_timeout(timeout), Err(GetError::Empty));
            assert!(begin.elapsed() >= timeout);
        }
        value(&child);
        Ok(())
    }

    #[test]
    fn test_fork() -> Outcome {
        let _watchdog = watchdog();
        let queue = Queue::unbounded()?;
        (0..10).try_for_each(|number| queue.put(number))?;
        fn ten_more(queue: Queue<i32>) {
            (10..20).for_each(|number| queue.put(number).expect("room"));
        }
        let child = spawn(ten_more, queue.clone());
        for number in 0..20 {
            assert_eq!(queue.get(), Ok(number));
        }
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        value(&child);
        Ok(())
    }

    #[test]
    fn test_qsize() -> Outcome {
        let queue = Queue::unbounded()?;
        assert_eq!(queue.len(), 0);
        queue.put(1)?;
        assert_eq!(queue.len(), 1);
        queue.put(5)?;
        assert_eq!(queue.len(), 2);
        queue.get()?;
        assert_eq!(queue.len(), 1);
        queue.get()?;
        assert_eq!(queue.len(), 0);
        Ok(())
    }

    fn do_tasks(queue: JoinableQueue<Option<u32>>) {
        while queue.take().expect("a job").is_some() {
            thread::sleep(Duration::from_millis(10));
            queue.task_done().expect("one was taken");
        }
    }

    #[test]
    fn test_task_done() -> Outcome {
        let _watchdog = watchdog();
        let queue = JoinableQueue::new(Capacity::unbounded())?;
        assert_eq!(queue.task_done(), Err(NothingTaken));
        let workers: Vec<_> = (0..4).map(|_| spawn(do_tasks, queue.clone())).collect();
        (0..10).try_for_each(|number| queue.put(Some(number)))?;
        queue.join()?;
        assert_eq!((queue.len(), queue.leased(), queue.unfinished()), (0, 0, 0));
        workers.iter().try_for_each(|_| queue.put(None))?;
        workers.iter().for_each(value);
        queue.close();
        Ok(())
    }

    #[test]
    fn test_timeout() -> Outcome {
        let _watchdog = watchdog();
        let queue = Queue::<i32>::unbounded()?;
        let begin = Instant::now();
        assert_eq!(queue.get_timeout(Duration::from_millis(200)), Err(GetError::Empty));
        assert!(begin.elapsed() >= Duration::from_millis(200));
        Ok(())
    }

    /// `true`, or a value that cannot be encoded.
    #[derive(Debug, PartialEq)]
    enum Item {
        True,
        NotSerializable,
    }

    impl Serialize for Item {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::True => serializer.serialize_bool(true),
                Self::NotSerializable => Err(ser::Error::custom("AttributeError")),
            }
        }
    }

    impl<'de> Deserialize<'de> for Item {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if bool::deserialize(deserializer)? { Ok(Self::True) } else { Err(de::Error::custom("not true")) }
        }
    }

    #[test]
    fn test_queue_feeder_donot_stop_onexc() -> Outcome {
        let _watchdog = watchdog();
        let refused =
            |queue: &Queue<Item>| matches!(queue.put(Item::NotSerializable), Err(PutError::Encode { .. }));
        let queue = Queue::unbounded()?;
        assert!(refused(&queue));
        queue.put(Item::True)?;
        assert_eq!(queue.get(), Ok(Item::True));

        // The size is right after an error.
        let queue = Queue::new(1)?;
        assert!(refused(&queue));
        queue.put(Item::True)?;
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.get(), Ok(Item::True));
        assert!(queue.is_empty());
        Ok(())
    }

    #[test]
    fn test_queue_feeder_on_queue_feeder_error() -> Outcome {
        let queue = Queue::unbounded()?;
        // The error holds the object and the reason, which Python's queue passes to its hook.
        match queue.put(Item::NotSerializable) {
            Err(PutError::Encode { value: Item::NotSerializable, .. }) => {}
            other => panic!("{other:?}"),
        }
        queue.put(Item::True)?;
        assert_eq!(queue.get(), Ok(Item::True));
        Ok(())
    }

    #[test]
    fn test_closed_queue_put_get_exceptions() -> Outcome {
        let _watchdog = watchdog();
        let queue = Queue::unbounded()?;
        queue.close();
        let put = queue.put("foo".to_owned()).expect_err("closed");
        let get = queue.get().expect_err("closed");
        assert!(put.to_string().contains("is closed") && get.to_string().contains("is closed"));
        assert_eq!(put.into_inner(), "foo");
        Ok(())
    }

    #[test]
    fn test_closed_queue_empty_exceptions() -> Outcome {
        let queue = Queue::<String>::unbounded()?;
        queue.close();
        assert!(queue.is_empty());
        let queue = Queue::<String>::unbounded()?;
        queue.put("foo".to_owned())?;
        queue.close();
        // `is_empty` is no error, and the message can still be got.
        assert!(!queue.is_empty());
        assert_eq!(queue.get(), Ok("foo".to_owned()));
        assert!(queue.is_empty());
        Ok(())
    }
}

mod test_simple_queue {
    use multiproc::{Event, GetError, PutError, Queue, SimpleQueue};

    use crate::common::{Outcome, spawn, unique, value, watchdog};

    fn put_whether_empty((queue, child_can_start, parent_can_continue): (SimpleQueue<bool>, Event, Event)) {
        child_can_start.wait();
        queue.put(queue.is_empty()).expect("no error");
        queue.put(queue.is_empty()).expect("no error");
        parent_can_continue.set();
    }

    #[test]
    fn test_empty() -> Outcome {
        let _watchdog = watchdog();
        let queue = SimpleQueue::new()?;
        let (child_can_start, parent_can_continue) = (Event::new()?, Event::new()?);
        let child =
            spawn(put_whether_empty, (queue.clone(), child_can_start.clone(), parent_can_continue.clone()));
        assert!(queue.is_empty());
        child_can_start.set();
        parent_can_continue.wait();
        assert!(!queue.is_empty());
        assert_eq!((queue.get(), queue.get()), (Ok(true), Ok(false)));
        assert!(queue.is_empty());
        value(&child);
        Ok(())
    }

    #[test]
    fn test_empty_exceptions() -> Outcome {
        let queue = SimpleQueue::<bool>::new()?;
        queue.close();
        assert!(queue.is_empty());
        Ok(())
    }

    #[test]
    fn test_close() -> Outcome {
        let queue = SimpleQueue::<bool>::new()?;
        queue.close();
        queue.close();
        Ok(())
    }

    #[test]
    fn test_closed() -> Outcome {
        let queue = SimpleQueue::new()?;
        queue.put(1)?;
        queue.close();
        assert_eq!(queue.put(2), Err(PutError::Closed(2)));
        assert_eq!((queue.get(), queue.get()), (Ok(1), Err(GetError::Closed)));
        Ok(())
    }

    /// Both types open the same named object.
    #[test]
    fn simple_queue_opens_as_a_queue() -> Outcome {
        let name = unique("simple");
        let simple = SimpleQueue::create(&name)?;
        simple.put(1)?;
        let queue = Queue::open(&name)?;
        assert_eq!((queue.capacity(), queue.try_get()), (None, Ok(1)));
        queue.put(2)?;
        assert_eq!(SimpleQueue::open_or_create(&name)?.get(), Ok(2));
        assert_eq!(SimpleQueue::<i32>::open(&name)?.name(), Some(&name[..]));
        assert!(Queue::from(simple).is_empty());
        SimpleQueue::<i32>::unlink(&name)?;
        assert!(SimpleQueue::<i32>::open(&name).is_err());
        Ok(())
    }
}
