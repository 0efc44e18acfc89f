//! What one process does to a queue is seen by other processes. (Most of the contract is tested in
//! `queue/tests`, within one process.)
#![allow(unsafe_code, reason = "a limit, set as a shell sets it")]

use std::fs;
use std::time::{Duration, Instant};

use multiproc::{ErrorKind, GetError, Lock, Messages, PutError, Queue, Value};
use serde::{Deserialize, Serialize};

use crate::common::{Outcome, spawn, unique, value, wait_until};
use crate::kit::watchdog;

#[test]
fn messages_go_to_a_child_and_back() -> Outcome {
    let _watchdog = watchdog();
    let (questions, answers) = (Queue::new(3)?, Queue::new(3)?);
    fn shout((questions, answers): (Queue<String>, Queue<String>)) -> usize {
        let shouted = questions.iter().map(|question| answers.put(question.unwrap().to_uppercase()).unwrap());
        shouted.count()
    }
    let child = spawn(shout, (questions.clone(), answers.clone()));
    for word in ["one", "two", ""] {
        questions.put(word.to_owned())?;
        assert_eq!(answers.get()?, word.to_uppercase());
    }
    questions.close();
    assert_eq!(value(&child), 3);
    Ok(())
}

#[test]
fn child_puts_as_many_as_the_capacity() -> Outcome {
    let _watchdog = watchdog();
    let fill = |queue: Queue<usize>| (0..).take_while(|n| queue.try_put(*n).is_ok()).count();
    for capacity in [1, 2, 17, 1000] {
        let queue = Queue::<usize>::new(capacity)?;
        let child = spawn(fill, queue.clone());
        assert_eq!(value(&child), capacity);
        assert!(queue.is_full());
        for n in 0..capacity {
            assert_eq!(queue.try_get(), Ok(n));
        }
    }
    Ok(())
}

#[test]
fn child_sees_length_and_state() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(2)?;
    fn look(queue: Queue<u8>) -> (usize, bool, bool, Option<usize>, bool) {
        (queue.len(), queue.is_empty(), queue.is_full(), queue.capacity(), queue.is_closed())
    }
    assert_eq!(value(&spawn(look, queue.clone())), (0, true, false, Some(2), false));
    queue.put(1)?;
    assert_eq!(value(&spawn(look, queue.clone())), (1, false, false, Some(2), false));
    queue.put(2)?;
    queue.close();
    assert_eq!(value(&spawn(look, queue.clone())), (2, false, true, Some(2), true));
    Ok(())
}

#[test]
fn try_put_of_a_child_to_a_full_queue_returns_the_message() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(1)?;
    queue.put("first".to_owned())?;
    fn try_it(queue: Queue<String>) -> (bool, String) {
        let error = queue.try_put("second".to_owned()).unwrap_err();
        (error.is_full(), error.into_inner())
    }
    assert_eq!(value(&spawn(try_it, queue.clone())), (true, "second".to_owned()));
    assert_eq!((queue.try_get(), queue.try_get()), (Ok("first".to_owned()), Err(GetError::Empty)));
    Ok(())
}

#[test]
fn timeouts_of_a_child_hold() -> Outcome {
    let _watchdog = watchdog();
    let (empty, full) = (Queue::new(1)?, Queue::new(1)?);
    full.put(1)?;
    fn wait((empty, full): (Queue<u8>, Queue<u8>)) -> bool {
        [0, 1, 7, 60].map(Duration::from_millis).into_iter().all(|timeout| {
            let start = Instant::now();
            let get = empty.get_timeout(timeout) == Err(GetError::Empty) && start.elapsed() >= timeout;
            let start = Instant::now();
            let put = full.put_timeout(2, timeout) == Err(PutError::Full(2)) && start.elapsed() >= timeout;
            get && put
        })
    }
    assert!(value(&spawn(wait, (empty, full))));
    Ok(())
}

#[test]
fn close_by_a_child_closes_the_queue() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::new(3)?;
    queue.put(1)?;
    fn put_and_close(queue: Queue<u8>) {
        queue.put(2).unwrap();
        queue.close();
        assert_eq!(queue.put(3), Err(PutError::Closed(3)));
    }
    value(&spawn(put_and_close, queue.clone()));
    assert!(queue.is_closed());
    assert_eq!(queue.put(4), Err(PutError::Closed(4)));
    assert_eq!((queue.get(), queue.get(), queue.get()), (Ok(1), Ok(2), Err(GetError::Closed)));
    value(&spawn(|queue: Queue<u8>| assert_eq!(queue.get(), Err(GetError::Closed)), queue));
    Ok(())
}

#[test]
fn queue_lives_as_long_as_a_process_has_it_open() -> Outcome {
    let _watchdog = watchdog();
    let name = unique("drops");
    let queue = Queue::create(&name, 3)?;
    queue.put(1)?;
    let release = Queue::<()>::new(1)?;
    fn keep((queue, release): (Queue<u8>, Queue<()>)) -> u8 {
        release.get().unwrap();
        queue.get().unwrap()
    }
    let child = spawn(keep, (queue.clone(), release.clone()));
    drop(queue);
    // The child has it open.
    Queue::<u8>::open(&name)?.put(2)?;
    release.put(())?;
    assert_eq!(value(&child), 1);
    // At once, unless another test has just forked: its child has all mappings of this process.
    wait_until(|| Queue::<u8>::open(&name).is_err_and(|error| error.kind() == ErrorKind::NotFound));
    Ok(())
}

#[test]
fn child_opens_a_queue_by_name_and_type() -> Outcome {
    let _watchdog = watchdog();
    let name = unique("names");
    let queue = Queue::<u32>::create(&name, 3)?;
    fn open(name: String) -> (String, String) {
        Queue::<u32>::open(&name).unwrap().put(7).unwrap();
        (Queue::<i32>::open(&name).unwrap_err().to_string(), Lock::open(&name).unwrap_err().to_string())
    }
    let (other_type, other_kind) = value(&spawn(open, name.clone()));
    assert!(other_type.contains("u32") && other_type.contains("i32"), "{other_type}");
    assert!(other_kind.contains("queue") && other_kind.contains(&name), "{other_kind}");
    assert_eq!(queue.get()?, 7);
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Order {
    lock: Lock,
    sum: Value<u64>,
    reply_to: Queue<Self>,
}

#[test]
fn handles_in_messages_arrive() -> Outcome {
    let _watchdog = watchdog();
    let orders = Queue::new(10)?;
    fn work(orders: Queue<Order>) -> usize {
        let mut done = 0;
        for order in &orders {
            let order = order.unwrap();
            order.sum.update(|sum| *sum += 1).unwrap();
            drop(order.lock.lock().unwrap());
            let reply_to = order.reply_to.clone();
            // The order goes back, and this process keeps no handle.
            reply_to.put(order).unwrap();
            done += 1;
        }
        done
    }
    let child = spawn(work, orders.clone());
    let replies = Queue::new(10)?;
    for n in 0..30 {
        orders.put(Order { lock: Lock::new()?, sum: Value::new(n)?, reply_to: replies.clone() })?;
        let order = replies.get()?;
        assert_eq!(order.sum.get()?, n + 1);
        assert!(order.lock.try_lock().is_ok());
    }
    orders.close();
    assert_eq!(value(&child), 30);
    Ok(())
}

#[test]
fn message_without_memory_for_it_stays_in_the_queue() -> Outcome {
    const LENGTH: usize = 64 << 20;
    let _watchdog = watchdog();
    fn get_with_little_memory(queue: Queue<[u8]>) -> [GetError; 3] {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let number =
            |line: &str| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok();
        let mut limit = (status.lines().find_map(number).unwrap() << 10) + LENGTH as u64;
        // Other threads may have had more memory for a moment when the size was read.
        while Vec::<u8>::new().try_reserve(LENGTH).is_ok() {
            limit -= LENGTH as u64 / 8;
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: a plain struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        }
        let mut kept = vec![1, 2, 3];
        let mut many = Messages::default();
        [
            queue.get_bytes().unwrap_err(),
            queue.get_into(&mut kept).unwrap_err(),
            queue.try_get_many_into(&mut many, 4).unwrap_err(),
        ]
    }
    let queue: Queue<[u8]> = Queue::unbounded()?;
    queue.put_bytes(&vec![5; LENGTH])?;
    for error in
        value(&spawn(|queue| get_with_little_memory(queue).map(|error| error.to_string()), queue.clone()))
    {
        assert!(error.ends_with("no memory for a message of 67108864 bytes"), "{error}");
    }
    assert_eq!(queue.len(), 1);
    assert_eq!(queue.get_bytes()?, vec![5; LENGTH]);
    Ok(())
}
