//! Killed producers, consumers and waiters: every message that was put arrives, except at most one for each
//! killed consumer, and the other processes go on.
#![allow(unsafe_code, reason = "timers and signals, as a C program sets them")]

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use multiproc::{AtomicValue, Capacity, GetError, Process, PutError, Queue};

use crate::common::{Dice, How, Outcome, fork, kill, spawn, unique, value, wait_for, wait_until};
use crate::kit::{RawQueue, Side, message, read, stop_inside, wait_until_blocked, watchdog};

#[test]
fn killed_producer_loses_no_message() -> Outcome {
    let _watchdog = watchdog();
    // Python's queue delivers none of the twenty; with `maxsize=1` it is then empty and full at once, for
    // ever.
    for (capacity, count) in [(20, 20), (1000, 20), (1, 1)] {
        let (queue, step) = (Queue::new(capacity)?, AtomicValue::new(0)?);
        fn put((queue, count, step): (Queue<String>, u32, AtomicValue<u32>)) {
            (0..count).for_each(|n| queue.put(format!("message {n}")).unwrap());
            step.store(1);
            loop {
                std::hint::spin_loop();
            }
        }
        let child = spawn(put, (queue.clone(), count, step.clone()));
        wait_for(&step, 1);
        kill(&child);
        assert_eq!((queue.len(), queue.is_full()), (count as usize, capacity == count as usize));
        for n in 0..count {
            assert_eq!(queue.try_get()?, format!("message {n}"));
        }
        assert_eq!(queue.try_get(), Err(GetError::Empty));
        queue.put("still usable".to_owned())?;
        assert_eq!(queue.get()?, "still usable");
    }
    Ok(())
}

/// Puts one message after another, and records how many `put` calls have returned.
fn put_for_ever((queue, producer, noted): (Queue<[u8]>, u32, AtomicValue<u32>)) {
    for number in 0.. {
        queue.put_bytes(&message(producer, number)).unwrap();
        noted.store(number + 1);
    }
}

/// How many messages of each producer a consumer has received.
#[derive(Default)]
struct Book(HashMap<u32, u32>);

impl Book {
    /// Records a message, which must be its producer's next.
    fn enter(&mut self, bytes: &[u8]) {
        let (producer, number) = read(bytes);
        let next = self.0.entry(producer).or_default();
        assert_eq!(number, *next, "producer {producer}");
        *next += 1;
    }

    fn count(&self, producer: u32) -> u32 {
        self.0.get(&producer).copied().unwrap_or(0)
    }
}

/// Kills producers at random moments; every message that was put arrives, once and in order.
fn kill_producers(kills: u32, capacity: Capacity, forked: bool) -> Outcome {
    let queue: Queue<[u8]> = Queue::new(capacity)?;
    let mut book = Book::default();
    let mut dice = Dice::of_this_run();
    for producer in 0..kills {
        let noted = AtomicValue::new(0)?;
        let put = (queue.clone(), producer, noted.clone());
        let (process, fork) = if forked {
            (None, Some(fork(How::Libc, || (put_for_ever(put), 0).1)))
        } else {
            (Some(spawn(put_for_ever, put)), None)
        };
        let last = u32::try_from(dice.below(200))?;
        while noted.load() < last {
            // Blocking, trying and timed gets, so that the producer is killed with the queue in all states.
            let mut enter = |bytes: Vec<u8>| book.enter(&bytes);
            match dice.below(3) {
                0 => enter(queue.get_bytes()?),
                1 => (0..5).try_for_each(|_| queue.try_get_bytes().map(&mut enter)).unwrap_or_default(),
                _ => queue.get_bytes_timeout(Duration::from_micros(50)).map(enter).unwrap_or_default(),
            }
        }
        (0..dice.below(3000)).for_each(|_| std::hint::spin_loop());
        process.iter().for_each(kill);
        fork.into_iter().for_each(crate::common::Forked::kill);
        if dice.below(2) == 0 {
            // The length is right before any process has recovered the queue.
            let len = queue.len();
            let messages = std::iter::from_fn(|| queue.try_get_bytes().ok());
            let left = messages.map(|bytes| book.enter(&bytes)).count();
            assert_eq!(len, left);
            let (put, got) = (noted.load(), book.count(producer));
            assert!(got == put || got == put + 1, "{put} were put, {got} arrived");
        }
    }
    Ok(())
}

#[test]
fn producers_killed_at_random_lose_no_message() -> Outcome {
    let _watchdog = watchdog();
    kill_producers(150, Capacity::messages(1000).bytes(1 << 14), false)
}

#[test]
fn forked_producers_killed_at_random_lose_no_message() -> Outcome {
    let _watchdog = watchdog();
    kill_producers(700, Capacity::messages(1000).bytes(1 << 14), true)
}

#[test]
fn producers_killed_while_the_queue_is_full_lose_no_message() -> Outcome {
    let _watchdog = watchdog();
    kill_producers(150, Capacity::messages(2), true)
}

/// A received message: consumer, producer, number.
type Receipt = (u32, u32, u32);

/// Takes messages and reports each; a kill between the two loses one report.
fn get_for_ever((queue, done, consumer): (Queue<[u8]>, Queue<Receipt>, u32)) {
    while let Ok(bytes) = queue.get_bytes() {
        let (producer, number) = read(&bytes);
        done.put((consumer, producer, number)).unwrap();
    }
}

#[test]
fn consumer_killed_at_random_loses_at_most_one_message() -> Outcome {
    let _watchdog = watchdog();
    const KILLS: u32 = 150;
    let queue: Queue<[u8]> = Queue::new(Capacity::messages(50).bytes(1 << 14))?;
    let done = Queue::new(100_000)?;
    let mut dice = Dice::of_this_run();
    let consume = |consumer| spawn(get_for_ever, (queue.clone(), done.clone(), consumer));
    let mut consumers = [consume(0), consume(1)];
    let mut sent = 0;
    let mut seen = HashSet::new();
    let mut last = HashMap::new();
    let mut check = |(consumer, _, number): Receipt| {
        assert!(seen.insert(number), "{number} arrived twice");
        assert!(last.insert(consumer, number) < Some(number), "order at consumer {consumer}");
        seen.len()
    };
    for kills in 0..KILLS {
        let enough = sent + u32::try_from(dice.below(300))?;
        while sent < enough {
            queue.put_bytes(&message(0, sent))?;
            sent += 1;
            if dice.below(3) == 0 {
                let _ = done.try_get().map(&mut check);
            }
            if dice.below(100) == 0 {
                // Then the consumers go to sleep.
                wait_until(|| queue.is_empty());
            }
        }
        let victim = usize::try_from(dice.below(2))?;
        kill(&consumers[victim]);
        consumers[victim] = consume(kills + 2);
    }
    queue.close();
    consumers.iter().for_each(value);
    let arrived = std::iter::from_fn(|| done.try_get().ok()).map(&mut check).last().unwrap_or(0);
    let lost = sent - u32::try_from(arrived)?;
    assert!(lost <= KILLS, "{lost} of {sent} lost with {KILLS} consumers");
    Ok(())
}

/// Waits for one message and forwards it.
fn get_one((queue, done, step): (Queue<u32>, Queue<u32>, AtomicValue<u32>)) {
    step.fetch_add(1);
    done.put(queue.get().unwrap()).unwrap();
}

#[test]
fn consumer_killed_while_it_waits_does_not_block_other_consumers() -> Outcome {
    let _watchdog = watchdog();
    // In Python every other `get` hangs from then on.
    for round in 0..30 {
        let (queue, done, step) = (Queue::new(10)?, Queue::new(10)?, AtomicValue::new(0)?);
        let consumers = [(); 3].map(|()| spawn(get_one, (queue.clone(), done.clone(), step.clone())));
        consumers.iter().for_each(|child| wait_until_blocked(child.pid(), &step, 3));
        kill(&consumers[round % 3]);
        queue.put(1)?;
        assert_eq!(done.get()?, 1);
        assert_eq!((queue.len(), queue.try_get()), (0, Err(GetError::Empty)));
        queue.put(2)?;
        assert_eq!(done.get()?, 2);
        // And a consumer that comes later.
        queue.put(3)?;
        assert_eq!(queue.get()?, 3);
    }
    Ok(())
}

#[test]
fn consumer_killed_as_it_wakes_takes_no_wake_up_with_it() -> Outcome {
    let _watchdog = watchdog();
    let mut dice = Dice::of_this_run();
    let mut slow = 0;
    for round in 0..100_u32 {
        let (queue, done, step) = (Queue::new(10)?, Queue::new(10)?, AtomicValue::new(0)?);
        let [victim, survivor] =
            [(); 2].map(|()| spawn(get_one, (queue.clone(), done.clone(), step.clone())));
        if round % 4 == 0 {
            wait_for(&step, 2);
        } else {
            [&victim, &survivor].into_iter().for_each(|child| wait_until_blocked(child.pid(), &step, 2));
        }
        queue.put(1)?;
        (0..dice.below(2000)).for_each(|_| std::hint::spin_loop());
        // It may be too late: then the victim has done its work and returned.
        victim.kill()?;
        let _ = victim.join()?;
        let begun = Instant::now();
        // The victim may have taken the message, and may have forwarded it: then the survivor still waits.
        if survivor_got_the_message(&queue, &done, &survivor) {
            slow += u32::from(begun.elapsed() > Duration::from_millis(500));
        }
    }
    // The kernel reports a death at once; the liveness poll, once a second, is for deaths that it misses.
    assert!(slow < 5, "{slow} times the survivor noticed nothing for half a second");
    Ok(())
}

/// Waits until the survivor has returned; false if it needed another message.
fn survivor_got_the_message(queue: &Queue<u32>, done: &Queue<u32>, survivor: &Process<()>) -> bool {
    if !queue.is_empty() {
        // The message is still there: the survivor must take it, without help.
        value(survivor);
        return true;
    }
    queue.put(2).unwrap();
    wait_until(|| queue.is_empty() || !survivor.is_alive());
    value(survivor);
    assert!(done.len() + queue.len() >= 1);
    false
}

#[test]
fn producer_killed_while_it_waits_does_not_block_other_producers() -> Outcome {
    let _watchdog = watchdog();
    let mut dice = Dice::of_this_run();
    for round in 0..60_usize {
        let (queue, step) = (Queue::new(1)?, AtomicValue::new(0)?);
        queue.put(9)?;
        fn put((queue, n, step): (Queue<usize>, usize, AtomicValue<u32>)) {
            step.fetch_add(1);
            queue.put(n).unwrap();
        }
        let producers = [0, 1, 2].map(|n| spawn(put, (queue.clone(), n, step.clone())));
        producers.iter().for_each(|child| wait_until_blocked(child.pid(), &step, 3));
        let victim = round % 3;
        if round % 2 == 0 {
            kill(&producers[victim]);
            assert_eq!(queue.get()?, 9);
        } else {
            assert_eq!(queue.get()?, 9);
            (0..dice.below(2000)).for_each(|_| std::hint::spin_loop());
            // It may be too late: then the victim has put its message and returned.
            producers[victim].kill()?;
            let _ = producers[victim].join()?;
        }
        let mut seen = [0; 3];
        while (0..3).any(|n| n != victim && seen[n] == 0) {
            seen[queue.get()?] += 1;
        }
        (0..3).filter(|n| *n != victim).for_each(|n| value(&producers[n]));
        seen[victim] += queue.try_get().map_or(0, |n| usize::from(n == victim));
        assert!(seen[victim] <= usize::from(round % 2 == 1), "{seen:?}");
        assert!(seen.iter().all(|times| *times <= 1), "{seen:?}");
        assert!(queue.is_empty());
    }
    Ok(())
}

/// Takes and puts without end, so that it can be stopped while it holds either lock.
fn get_and_put(queue: Queue<u32>) {
    loop {
        queue.put(queue.get().unwrap()).unwrap();
    }
}

#[test]
fn killed_owner_of_a_lock_does_not_block_other_processes() -> Outcome {
    let _watchdog = watchdog();
    let mut slow = 0;
    for round in 0..20 {
        let putting = round % 2 == 0;
        let (queue, step) = (Queue::create(&unique("owner"), 100)?, AtomicValue::new(0)?);
        (0..50).try_for_each(|_| queue.put(0))?;
        let raw = RawQueue::open(&queue);
        let owner = spawn(get_and_put, queue.clone());
        wait_until(|| raw.head() != 0);
        stop_inside(owner.pid(), &raw, if putting { Side::Producers } else { Side::Consumers });
        // A second process waits for the lock; this process comes later.
        fn want((queue, putting, step): (Queue<u32>, bool, AtomicValue<u32>)) {
            step.store(1);
            if putting {
                queue.put(7).unwrap();
            } else {
                queue.get().unwrap();
            }
        }
        let other = spawn(want, (queue.clone(), putting, step.clone()));
        wait_until_blocked(other.pid(), &step, 1);
        let begun = Instant::now();
        kill(&owner);
        if putting {
            queue.put(8)?;
        } else {
            queue.get()?;
        }
        value(&other);
        slow += u32::from(begun.elapsed() > Duration::from_millis(500));
        // The owner may have taken one message; the message that it was taking or putting is there or not.
        let expected = if putting { 51..=52 } else { 47..=48 };
        assert!(expected.contains(&queue.len()), "{} messages, putting: {putting}", queue.len());
    }
    // The kernel reports a death at once; the liveness poll, once a second, is for deaths that it misses.
    assert!(slow < 3, "{slow} times it took more than half a second until the death was noticed");
    Ok(())
}

#[test]
fn queue_of_a_killed_maker_keeps_its_messages_and_stays_closed() -> Outcome {
    let _watchdog = watchdog();
    let queues = Queue::new(3)?;
    fn make(queues: Queue<Queue<u32>>) {
        let queue = Queue::new(3).unwrap();
        queue.put(1).unwrap();
        queues.put(queue.clone()).unwrap();
        queue.put(2).unwrap();
        queue.close();
        queues.put(queue).unwrap();
        loop {
            std::hint::spin_loop();
        }
    }
    let child = spawn(make, queues.clone());
    let (queue, again) = (queues.get()?, queues.get()?);
    kill(&child);
    assert_eq!(queue.put(3), Err(PutError::Closed(3)));
    assert_eq!((again.get(), queue.get(), again.get()), (Ok(1), Ok(2), Err(GetError::Closed)));
    Ok(())
}

#[test]
fn killed_closer_leaves_the_queue_open_or_closed_for_all() -> Outcome {
    let _watchdog = watchdog();
    // 150 processes are killed at random moments of `close`.
    let mut dice = Dice::of_this_run();
    for _ in 0..150 {
        let (queue, step) = (Queue::<u32>::new(1)?, AtomicValue::new(0)?);
        fn wait((queue, step): (Queue<u32>, AtomicValue<u32>)) -> bool {
            step.fetch_add(1);
            queue.get() == Err(GetError::Closed)
        }
        let waiter = spawn(wait, (queue.clone(), step.clone()));
        wait_until_blocked(waiter.pid(), &step, 1);
        let mine = queue.clone();
        let closer = fork(How::Libc, move || {
            mine.close();
            0
        });
        (0..dice.below(20_000)).for_each(|_| std::hint::spin_loop());
        crate::common::signal(closer.pid(), libc::SIGKILL);
        closer.wait();
        let closed = queue.is_closed();
        assert_eq!(queue.try_put(7).is_err(), closed);
        assert_eq!(value(&waiter), closed);
    }
    Ok(())
}

#[test]
fn forked_child_uses_queues_that_other_threads_were_using() -> Outcome {
    let _watchdog = watchdog();
    const THREAD: u32 = 1_000_000;
    fn parent((queue, private): (Queue<u32>, Queue<()>)) {
        // At each fork, other threads are in the middle of puts and gets. The children do not have these
        // threads.
        let stop = AtomicValue::new(0).unwrap();
        std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                scope.spawn(|| {
                    while stop.load() == 0 {
                        queue.put(THREAD).unwrap();
                        private.put(()).unwrap();
                        private.get().unwrap();
                    }
                })
            });
            for n in 0..50 {
                let child = fork(How::Libc, || {
                    private.put(()).unwrap();
                    private.get().unwrap();
                    queue.put(n).unwrap();
                    0
                });
                assert_eq!(child.wait(), 0);
            }
            stop.store(1);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        queue.close();
    }
    let (queue, private) = (Queue::new(1000)?, Queue::new(1)?);
    let child = spawn(parent, (queue.clone(), private.clone()));
    let theirs: Vec<u32> = queue.iter().map(Result::unwrap).filter(|n| *n != THREAD).collect();
    value(&child);
    assert!(theirs.into_iter().eq(0..50));
    assert!(private.is_empty());
    Ok(())
}

#[test]
fn signals_do_not_end_waits() -> Outcome {
    let _watchdog = watchdog();
    fn signal_every_millisecond() {
        extern "C" fn ignore(_: libc::c_int) {}
        // SAFETY: all zeros is a valid action without flags.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as *const () as usize;
        // SAFETY: a handler that does nothing, without SA_RESTART.
        assert_eq!(unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) }, 0);
        let tick = libc::timeval { tv_sec: 0, tv_usec: 1000 };
        let timer = libc::itimerval { it_interval: tick, it_value: tick };
        // SAFETY: a valid timer.
        assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()) }, 0);
    }
    fn echo((questions, answers): (Queue<u32>, Queue<u32>)) -> u32 {
        signal_every_millisecond();
        let empty = Queue::<u8>::new(1).unwrap();
        for timeout in [3, 50, 1200].map(Duration::from_millis) {
            let begun = Instant::now();
            assert_eq!(empty.get_timeout(timeout), Err(GetError::Empty));
            let took = begun.elapsed();
            assert!(took >= timeout && took < timeout + Duration::from_secs(1), "{took:?}");
        }
        let answered = questions.iter().map(|question| answers.put(question.unwrap()).unwrap());
        answered.count().try_into().unwrap()
    }
    const COUNT: u32 = 3000;
    let (questions, answers) = (Queue::new(1)?, Queue::new(1)?);
    let child = spawn(echo, (questions.clone(), answers.clone()));
    for n in 0..COUNT {
        questions.put(n)?;
        if n % 300 == 0 {
            // The child waits a while and receives signals.
            wait_until(|| answers.len() == 1);
            let begun = Instant::now();
            wait_until(|| begun.elapsed() > Duration::from_millis(20));
        }
        assert_eq!(answers.get()?, n);
    }
    // The child also waits on a full queue.
    questions.put(0)?;
    questions.put(1)?;
    let begun = Instant::now();
    wait_until(|| begun.elapsed() > Duration::from_millis(50));
    assert_eq!((answers.get()?, answers.get()?), (0, 1));
    questions.close();
    assert_eq!(value(&child), COUNT + 2);
    Ok(())
}
