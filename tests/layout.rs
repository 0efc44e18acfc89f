//! The numbers of `docs/LAYOUT.md`, looked up in the files themselves: whoever changes a byte that processes
//! share changes the table and a layout version, and not only the code.
#![allow(clippy::unwrap_used, reason = "a test that cannot read its file has failed")]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

use multiproc::robust::MAX_HELD;
use multiproc::shm::Namespace;
use multiproc::{
    Array, AtomicArray, AtomicValue, Barrier, BoundedSemaphore, Capacity, Condition, ErrorKind, Event,
    JobLimits, JoinableQueue, Lock, Options, Queue, RLock, RwLock, Semaphore, SharedMemory, Transit, Value,
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Where the object begins.
const OBJECT: usize = 1024;
const TICKETS: usize = 256;
const TICKET: usize = 16;
const PERSISTENT: u32 = 1;

/// The beginning of a file as it is at this moment, and its length.
struct Bytes(Vec<u8>, u64);

impl Bytes {
    fn of(name: &str) -> Self {
        Self::at(&Namespace::current().unwrap().path().join(name))
    }

    fn at(path: &std::path::Path) -> Self {
        let file = File::open(path).unwrap();
        let length = file.metadata().unwrap().len();
        let mut bytes = Vec::new();
        // Most of a queue is only address space.
        file.take(1 << 17).read_to_end(&mut bytes).unwrap();
        Self(bytes, length)
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn text(&self, at: usize, length: usize) -> &str {
        std::str::from_utf8(&self.0[at..at + length]).unwrap().trim_end_matches('\0')
    }

    fn is_zero(&self, from: usize, to: usize) -> bool {
        self.0[from..to].iter().all(|byte| *byte == 0)
    }

    /// What every header says of an object of this kind.
    fn check_header(
        &self,
        kind: &str,
        layout: u32,
        object: usize,
        extents: [u64; 2],
        element: (u32, u32, &str),
    ) {
        assert_eq!(self.text(0, 8), "multiprc");
        assert_eq!((self.u32(8), self.u32(12)), (1, layout), "format, layout");
        // From the list node to the lock word: 32 bytes down.
        assert_eq!((self.u32(16) & !PERSISTENT, self.u32(20).cast_signed()), (0, -32));
        assert_eq!(self.u64(24), fs::metadata("/proc/self/ns/pid").unwrap().ino());
        assert_eq!((self.u64(32), self.u64(40)), ((OBJECT + object) as u64, object as u64), "lengths");
        assert_eq!(self.1, (OBJECT + object) as u64);
        assert_eq!([self.u64(48), self.u64(56)], extents);
        assert_eq!((self.u32(64), self.u32(68), self.text(128, 128)), element);
        assert_eq!(self.u64(72), fnv(element.2));
        assert!(!self.is_zero(80, 96), "a generation is random");
        assert_eq!(self.text(96, 16), kind);
        assert_eq!((self.u64(112), self.u64(120)), (8, 0), "pointer width, reserved");
        assert!(self.is_zero(TICKETS, OBJECT), "no tickets; reserved");
    }

    /// The lock at this place as it is when nobody has ever held it.
    fn check_untouched_lock(&self, at: usize) {
        assert!(self.is_zero(at, at + 40));
    }

    /// The lock at this place as this thread left it, or holds it.
    fn check_lock(&self, at: usize, held: bool) {
        let pid = std::process::id();
        let tid = self.u32(at + 16);
        assert_eq!(self.u32(at + 20), pid, "holder: process");
        assert!(fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap(), "holder: thread");
        assert_eq!(self.u32(at), if held { tid } else { 0 }, "owner word");
        assert_eq!(
            (self.u32(at + 4), self.u64(at + 8), self.u64(at + 24)),
            (0, 0, 0),
            "announcements, bell and contenders, kind and reserved"
        );
    }
}

/// FNV-1a over the type's name, 64 bits.
fn fnv(name: &str) -> u64 {
    name.bytes().fold(if name.is_empty() { 0 } else { 0xcbf2_9ce4_8422_2325 }, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A name of this run alone.
fn unique(what: &str) -> String {
    format!("layout-{what}-{}", std::process::id())
}

/// Bytes far behind the beginning.
fn behind(name: &str, from: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let file = File::open(Namespace::current().unwrap().path().join(name)).unwrap();
    file.read_exact_at(&mut bytes, from as u64).unwrap();
    bytes
}

/// Position (in words) and number of messages.
fn place(position: u64, messages: u64) -> u64 {
    position | messages << 32
}

#[test]
fn shared_memory() -> Outcome {
    let name = unique("memory");
    let block = SharedMemory::create(&name, 11)?;
    block.write_at(0, b"eleven byte")?;
    let bytes = Bytes::of(&name);
    bytes.check_header("memory", 1, 16, [11, 0], (0, 0, ""));
    assert_eq!(&bytes.0[OBJECT..], b"eleven byte\0\0\0\0\0");
    Ok(())
}

#[test]
fn rwlock() -> Outcome {
    let name = unique("rwlock");
    let lock = RwLock::create(&name)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("rwlock", 1, 64 + 120 * 64, [0, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 64 + 120 * 64));
    let (one, other) = (lock.read()?, lock.read()?);
    let read = Bytes::of(&name);
    read.check_lock(OBJECT, false);
    read.check_lock(OBJECT + 64, true);
    read.check_lock(OBJECT + 128, true);
    assert_eq!(read.u32(OBJECT + 192), 0);
    drop((one, other));
    let guard = lock.write()?;
    let written = Bytes::of(&name);
    written.check_lock(OBJECT + 64, false);
    assert_eq!(
        (written.u32(OBJECT + 40), written.u32(OBJECT + 44)),
        (written.u32(OBJECT), std::process::id())
    );
    drop(guard);
    assert_eq!(Bytes::of(&name).u64(OBJECT + 40), 0);
    Ok(())
}

#[test]
fn condition() -> Outcome {
    let name = unique("condition");
    let condition = Condition::create(&name)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("condition", 1, 128 + 120 * 64, [0, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 128 + 120 * 64));
    let lock = Lock::new()?;
    thread::scope(|s| -> Outcome {
        s.spawn(|| drop(condition.wait(lock.lock().unwrap()).unwrap()));
        while condition.waiters() == 0 {
            thread::yield_now();
        }
        let one = Bytes::of(&name);
        assert_eq!(
            (one.u64(OBJECT + 72), one.u64(OBJECT + 80), one.u64(OBJECT + 88)),
            (1, 0, 4),
            "tickets, horizon, watched"
        );
        // Its owner, with the bit for waiters, its ticket.
        assert!(one.u32(OBJECT + 128) > 1 << 31 && one.u64(OBJECT + 128 + 40) == 1);
        assert_eq!(condition.notify_all()?, 1);
        Ok(())
    })?;
    let after = Bytes::of(&name);
    assert_eq!((after.u64(OBJECT + 72), after.u64(OBJECT + 80), after.u64(OBJECT + 128 + 40)), (1, 1, 0));
    assert!(after.u64(OBJECT + 96) > 0 && after.u32(OBJECT + 128 + 52) >= 1, "CPU, calls");
    Ok(())
}

#[test]
fn lock() -> Outcome {
    let name = unique("lock");
    let lock = Lock::create(&name)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("lock", 1, 64, [0, 0], (0, 0, ""));
    fresh.check_untouched_lock(OBJECT);
    let guard = lock.lock()?;
    Bytes::of(&name).check_lock(OBJECT, true);
    assert!(Bytes::of(&name).u64(OBJECT + 32) != 0, "the link");
    drop(guard);
    Bytes::of(&name).check_lock(OBJECT, false);
    Ok(())
}

#[test]
fn event() -> Outcome {
    let name = unique("event");
    let event = Event::create(&name)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("event", 1, 64, [0, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 64));
    event.set();
    let set = Bytes::of(&name);
    // Up, nobody sleeps; once; a CPU.
    assert_eq!((set.u32(OBJECT), set.u32(OBJECT + 4)), (0x4000_0000, 1));
    assert!((1..4096).contains(&set.u32(OBJECT + 8)) && set.is_zero(OBJECT + 12, OBJECT + 64));
    event.clear();
    assert!(!event.wait_timeout(std::time::Duration::from_millis(1)));
    assert_eq!((Bytes::of(&name).u32(OBJECT), Bytes::of(&name).u32(OBJECT + 4)), (0x8000_0000, 1));
    Ok(())
}

#[test]
fn rlock() -> Outcome {
    let name = unique("rlock");
    let lock = RLock::create(&name)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("rlock", 1, 64, [0, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 64));
    let guards = (lock.lock()?, lock.lock()?);
    let held = Bytes::of(&name);
    held.check_lock(OBJECT, true);
    assert_eq!(held.u64(OBJECT + 40), 2, "depth");
    drop(guards);
    let free = Bytes::of(&name);
    free.check_lock(OBJECT, false);
    assert_eq!(free.u64(OBJECT + 40), 1);
    assert!(free.is_zero(OBJECT + 48, OBJECT + 64));
    Ok(())
}

#[test]
fn barrier() -> Outcome {
    let name = unique("barrier");
    let barrier = Barrier::create(&name, 1)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("barrier", 1, 64 + 2 * 64, [1, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 192));
    barrier.wait()?;
    let passed = Bytes::of(&name);
    // Turned over, in round 1; no cause, nobody outside.
    assert_eq!((passed.u32(OBJECT), passed.u32(OBJECT + 4)), (1 << 9, 1));
    assert!(passed.is_zero(OBJECT + 8, OBJECT + 64));
    passed.check_lock(OBJECT + 64, false);
    // The seat: sat upon in round 0; a CPU.
    assert_eq!(passed.u64(OBJECT + 64 + 40), 1 << 32);
    assert!((1..4096).contains(&passed.u64(OBJECT + 64 + 48)));
    barrier.abort();
    let broken = Bytes::of(&name);
    assert_eq!((broken.u32(OBJECT), broken.u32(OBJECT + 4)), (1 << 8 | 1 << 9, 2));
    broken.check_lock(OBJECT + 128, false);
    Ok(())
}

#[test]
fn semaphore() -> Outcome {
    let name = unique("semaphore");
    let semaphore = Semaphore::create(&name, 3)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("semaphore", 1, 64 + 3 * 64, [3, 0], (0, 0, ""));
    assert!(fresh.is_zero(OBJECT, OBJECT + 4 * 64));
    let permit = semaphore.acquire()?;
    let place = OBJECT + 64 + multiproc::Permit::number(&permit) * 64;
    Bytes::of(&name).check_lock(place, true);
    drop(permit);
    let free = Bytes::of(&name);
    free.check_lock(place, false);
    assert!(free.is_zero(OBJECT, OBJECT + 64), "nobody went through the gate");
    Ok(())
}

#[test]
fn bounded() -> Outcome {
    let name = unique("bounded");
    let semaphore = BoundedSemaphore::create(&name, 2, 5)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("bounded", 1, 64, [2, 5], (0, 0, ""));
    assert_eq!(fresh.u64(OBJECT), 2, "count");
    assert!(fresh.is_zero(OBJECT + 8, OBJECT + 64));
    semaphore.release(1)?;
    let released = Bytes::of(&name);
    assert_eq!(
        (released.u64(OBJECT), released.u32(OBJECT + 8), released.u32(OBJECT + 12)),
        (3, 1, 0),
        "count, changes, sleepers"
    );
    assert!(released.is_zero(OBJECT + 20, OBJECT + 64));
    Ok(())
}

#[test]
fn value() -> Outcome {
    let name = unique("value");
    let value = Value::create(&name, [0x11_u32, 0x22, 0x33])?;
    let fresh = Bytes::of(&name);
    // Two buffers of whole words.
    fresh.check_header("value", 1, 128 + 2 * 16, [12, 0], (12, 4, "[u32; 3]"));
    fresh.check_untouched_lock(OBJECT);
    let buffer = |bytes: &Bytes, at: usize| [0, 4, 8, 12].map(|offset| bytes.u32(at + offset));
    assert_eq!((fresh.u64(OBJECT + 64), buffer(&fresh, OBJECT + 128)), (0, [0x11, 0x22, 0x33, 0]));
    assert!(fresh.is_zero(OBJECT + 72, OBJECT + 128) && fresh.is_zero(OBJECT + 144, OBJECT + 160));

    value.set([0x44, 0x55, 0x66])?;
    let set = Bytes::of(&name);
    set.check_lock(OBJECT, false);
    // An odd version: the second buffer. The first one is as it was.
    assert_eq!((set.u64(OBJECT + 64), buffer(&set, OBJECT + 144)), (1, [0x44, 0x55, 0x66, 0]));
    assert_eq!(buffer(&set, OBJECT + 128), [0x11, 0x22, 0x33, 0]);
    Ok(())
}

#[test]
fn atomic_value() -> Outcome {
    let name = unique("atomic");
    let value = AtomicValue::create(&name, 0x1122_u16)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("atomic value", 1, 64, [2, 0], (2, 2, "u16"));
    assert_eq!(fresh.u64(OBJECT), 0x1122);
    value.store(0x3344);
    assert_eq!(Bytes::of(&name).u64(OBJECT), 0x3344);
    assert!(Bytes::of(&name).is_zero(OBJECT + 8, OBJECT + 64));
    Ok(())
}

#[test]
fn array() -> Outcome {
    let name = unique("array");
    let array = Array::<u16>::create(&name, 7)?;
    let fresh = Bytes::of(&name);
    // Seven elements of two bytes, in whole words.
    fresh.check_header("array", 1, 64 + 16, [7, 2], (2, 2, "u16"));
    fresh.check_untouched_lock(OBJECT);
    assert!(fresh.is_zero(OBJECT + 40, OBJECT + 80));
    array.copy_from(&[1, 2, 3, 4, 5, 6, 0x0708])?;
    let set = Bytes::of(&name);
    set.check_lock(OBJECT, false);
    assert_eq!((set.u64(OBJECT + 64), set.u64(OBJECT + 72)), (0x0004_0003_0002_0001, 0x0708_0006_0005));
    assert!(set.is_zero(OBJECT + 40, OBJECT + 64));

    let writer = |bytes: &Bytes| [bytes.u32(OBJECT + 40), bytes.u32(OBJECT + 44)];
    let mut guard = array.lock().map_err(multiproc::ArrayLockError::into_static)?;
    assert_eq!(writer(&Bytes::of(&name)), [0, 0]);
    guard.set(0, 9)?;
    let begun = Bytes::of(&name);
    // Who holds the lock is who writes: thread, process.
    assert_eq!(writer(&begun), [begun.u32(OBJECT + 16), std::process::id()]);
    drop(guard);
    assert_eq!(writer(&Bytes::of(&name)), [0, 0]);
    Ok(())
}

#[test]
fn atomic_array() -> Outcome {
    let name = unique("atomic-array");
    let array = AtomicArray::<u16>::create(&name, 3)?;
    let fresh = Bytes::of(&name);
    fresh.check_header("atomic array", 1, 64 + 3 * 8, [3, 2], (2, 2, "u16"));
    assert!(fresh.is_zero(OBJECT, OBJECT + 88));
    array.store(1, 0x3344)?;
    let set = Bytes::of(&name);
    assert_eq!([64, 72, 80].map(|at| set.u64(OBJECT + at)), [0, 0x3344, 0]);
    assert!(set.is_zero(OBJECT, OBJECT + 64));
    Ok(())
}

#[test]
fn queue() -> Outcome {
    const LOG: usize = OBJECT + 256;
    let [tail, count_of_bytes, closed, seen_head] = [40, 48, 56, 104].map(|at| OBJECT + at);
    let [head, pause, cpus] = [40, 48, 56].map(|at| OBJECT + 128 + at);
    /// Behind the log.
    const ANNEX: usize = 256 + (8 << 30);
    let name = unique("queue");
    let queue: Queue<[u8]> = Queue::create(&name, Capacity::messages(5).bytes(4000))?;
    let fresh = Bytes::of(&name);
    // Messages, words of home, the limit in words. Most of it is only address space.
    fresh.check_header("queue", 1, ANNEX + 129 * 64, [5 | 512 << 32, 512], (0, 0, "[u8]"));
    assert!(fresh.is_zero(OBJECT, OBJECT + 256 + 4096));

    queue.put_bytes(b"hello, world")?;
    let one = Bytes::of(&name);
    one.check_lock(OBJECT, false);
    one.check_untouched_lock(OBJECT + 128);
    // A record: length + 1, the producer's CPU; then the payload in whole words; then an empty header.
    assert_eq!(one.u32(LOG), 12 + 1);
    assert!(one.u32(LOG + 4) < 4096, "a CPU");
    assert_eq!((one.text(LOG + 8, 16), one.u64(LOG + 24)), ("hello, world", 0));
    assert_eq!((one.u64(tail), one.u64(head), one.u64(closed)), (place(3, 1), 0, 0));
    assert_eq!(one.u64(count_of_bytes), 12);

    queue.put_bytes(b"")?;
    assert_eq!((Bytes::of(&name).u32(LOG + 24), Bytes::of(&name).u64(tail)), (1, place(4, 2)));
    assert_eq!(queue.get_bytes()?, b"hello, world");
    let two = Bytes::of(&name);
    two.check_lock(OBJECT + 128, false);
    assert_eq!((two.u64(tail), two.u64(head), two.u64(seen_head)), (place(4, 2), place(3, 1), 0));
    assert!(two.u32(cpus + 4) < 4096 && two.u64(pause) == 0);
    // Nobody has slept: neither counts nor notes. The log has not left home.
    for side in [OBJECT, OBJECT + 128] {
        assert!(two.is_zero(side + 64, side + 128));
    }
    let [jumped, top, filled, low, solid] = [88, 92, 96, 112, 120].map(|at| OBJECT + at);
    // Too long for what is left of home: it climbs.
    queue.put_bytes(&[7; 4800])?;
    let long = Bytes::of(&name);
    // 606 words, and twice as much at a time at first.
    let end = 1024;
    assert_eq!((long.u32(jumped), long.u32(top)), (0, 1024));
    assert_eq!([filled, low, solid].map(|at| long.u64(at)), [end, 0, end]);
    // From the end of what there is back to the beginning: a jump, and the record there.
    assert_eq!((queue.get_bytes()?, queue.get_bytes()?), (vec![], vec![7; 4800]));
    queue.put_bytes(&[b'x'; 4000])?;
    let back = Bytes::of(&name);
    let place_of_jump = 4 + 601;
    assert_eq!((back.u32(LOG + 8 * place_of_jump), back.u32(LOG + 8 * place_of_jump + 4)), (u32::MAX, 0));
    assert_eq!((back.u32(LOG), back.text(LOG + 8, 4), back.u32(jumped)), (4001, "xxxx", 605));
    assert_eq!(back.u64(tail), place((1 << 30) + 501, 4));
    // A place that is reserved: its length + 1; the mark, of the first lock at its first turn.
    let reserved = queue.reserve(5)?;
    let marked = Bytes::of(&name);
    assert_eq!((marked.u32(LOG + 8 * 501), marked.u32(LOG + 8 * 501 + 4)), (6, 1 << 31 | 1 << 3));
    assert_eq!(marked.u64(OBJECT + 128 + 112), 1 << 32, "one lock of a place was used");
    let lock = Bytes(behind(&name, OBJECT + ANNEX + 120 * 64, 576), 0);
    assert_eq!(lock.u32(0) & 0x3fff_ffff, lock.u32(16), "owner word, holder: thread");
    assert_eq!(lock.u32(0) & 0x8000_0000, 0x8000_0000, "whoever watches it is woken");
    assert_eq!(lock.u64(40), 1, "its turn");
    assert!(lock.is_zero(64, 512) && lock.is_zero(524, 576));
    drop(reserved);
    let lock = Bytes(behind(&name, OBJECT + ANNEX + 120 * 64, 576), 0);
    assert_eq!(lock.u64(40), 2);
    queue.close();
    assert_eq!(Bytes::of(&name).u64(closed), 1);
    Ok(())
}

#[test]
fn joinable_queue() -> Outcome {
    const SLOTS: usize = OBJECT + 640;
    const NOTES: usize = SLOTS + 120 * 64;
    const LOG: usize = OBJECT + 16_000;
    let name = unique("jobs");
    let queue: JoinableQueue<u32> =
        JoinableQueue::create(&name, JobLimits::from(5).max_deliveries(2).longest_job(1 << 20))?;
    let fresh = Bytes::of(&name);
    let extents = [5 | 8192 << 32, u64::from(u32::MAX) | 20 << 40 | 2 << 48];
    fresh.check_header("jobs", 1, 16_000 + (16 << 30) + 120 * (1 << 20), extents, (0, 0, "u32"));
    assert!(fresh.is_zero(OBJECT, LOG));
    (7..10_u32).try_for_each(|number| queue.put(number))?;
    let (job, taken) = (queue.get()?, queue.take()?);
    let bytes = Bytes::of(&name);
    // `used`, `leased`, `taken`.
    assert_eq!((bytes.u32(OBJECT + 512), bytes.u32(OBJECT + 580), bytes.u64(OBJECT + 584)), (2, 2, 1));
    // Held, and always as if somebody slept there.
    let owner_words = |bytes: &Bytes| [SLOTS, SLOTS + 64].map(|at| bytes.u32(at) - (1 << 31));
    assert_eq!(owner_words(&bytes), [bytes.u32(OBJECT + 128 + 16); 2], "owner words");
    // State, deliveries, bytes of the job, beside the lock; words of memory, number of the taking.
    assert_eq!([40, 48, 56].map(|at| bytes.u64(SLOTS + at)), [1, 1, 1]);
    assert_eq!((bytes.u32(NOTES), bytes.u64(NOTES + 8), bytes.u64(NOTES + 64 + 8)), (512, 0, 1));
    assert_eq!((taken, bytes.u64(LOG) & 0xffff_ffff), (8, 2));
    queue.task_done()?;
    job.retry();
    let bytes = Bytes::of(&name);
    assert_eq!(owner_words(&bytes), [0, 0]);
    assert_eq!((bytes.u64(SLOTS + 40), bytes.u64(SLOTS + 64 + 40)), (1, 0));
    queue.get()?.retry();
    // Handed out twice; once again, of all jobs that were there.
    assert_eq!(Bytes::of(&name).u64(SLOTS + 48), 1 << 24 | 2);
    queue.get()?.done();
    // `morgue`, and the places of the dead letters' log.
    let bytes = Bytes::of(&name);
    assert_eq!((bytes.u32(OBJECT + 524), bytes.u64(OBJECT + 256 + 40)), (1, place(4, 1)));
    queue.dead_letters().replay()?;
    assert_eq!(Bytes::of(&name).u32(OBJECT + 540), 1);
    queue.close();
    assert_eq!(Bytes::of(&name).u32(OBJECT + 516), 1);
    Ok(())
}

#[test]
fn queue_with_roles() -> Outcome {
    /// How many locks of each kind were ever taken, 16 bits each.
    const USED: usize = OBJECT + 240;
    let name = unique("roles");
    let queue: Queue<[u8]> = Queue::create(&name, 5)?;
    let file = File::open(Namespace::current()?.path().join(&name))?;
    let seat = |at: usize| {
        let mut word = [0; 4];
        file.read_exact_at(&mut word, (OBJECT + 256 + (8 << 30) + 64 * at) as u64).unwrap();
        u32::from_le_bytes(word)
    };
    let fresh = Bytes::of(&name);
    assert_eq!(fresh.u64(USED), 0);
    let roles = (queue.producer()?, queue.producer()?, queue.consumer()?);
    let taken = Bytes::of(&name);
    assert_eq!(taken.u64(USED), 2 | 1 << 16);
    // Each is held by the thread that keeps it for this process, and watched.
    for at in [0, 1, 60] {
        assert_eq!(seat(at) >> 30, 2, "waiters");
        assert!(fs::exists(format!("/proc/self/task/{}", seat(at) & 0x3fff_ffff))?);
    }
    assert_eq!([2, 59, 61, 119].map(seat), [0; 4]);
    drop(roles);
    assert_eq!([0, 1, 60].map(|at| seat(at) & 0x7fff_ffff), [0; 3]);
    assert_eq!(Bytes::of(&name).u64(USED), 2 | 1 << 16);
    Ok(())
}

#[test]
fn queue_with_sleepers() -> Outcome {
    let name = unique("sleepers");
    let queue: Queue<[u8]> = Queue::create(&name, 1)?;
    queue.put_bytes(b"one")?;
    assert!(queue.put_bytes_timeout(&[0; 20], std::time::Duration::from_millis(20)).is_err());
    let bytes = Bytes::of(&name);
    // The smallest record that anybody has slept for: a header and three words, as the distance from the
    // largest number.
    assert_eq!(bytes.u64(OBJECT + 72), u64::MAX - 4);
    // Nobody sleeps any more, on either side: those that watch everything, those in their brief sleep.
    assert_eq!((bytes.u64(OBJECT + 64), bytes.u64(OBJECT + 128 + 64)), (0, 0));
    // The waiter has announced itself where consumers would see it.
    assert!(bytes.u32(OBJECT + 128 + 4) > 0);
    assert_eq!(bytes.u32(OBJECT + 128), 0x8000_0000);
    Ok(())
}

#[test]
fn tickets() -> Outcome {
    let name = unique("tickets");
    let value = Value::create(&name, 7_u64)?;
    let transit = Transit::begin();
    let [first, second] = [(); 2].map(|()| postcard::to_stdvec(&value).unwrap());
    let ticket = |bytes: &Bytes, slot: usize| [0, 8].map(|at| bytes.u64(TICKETS + slot * TICKET + at));
    let out = Bytes::of(&name);
    let uptime: f64 = fs::read_to_string("/proc/uptime")?.split(' ').next().unwrap_or_default().parse()?;
    for slot in [0, 1] {
        let [id, born] = ticket(&out, slot);
        assert!(id != 0 && (uptime - born as f64).abs() < 60.0, "born at {born}, up for {uptime} s");
    }
    assert!(out.is_zero(TICKETS + 2 * TICKET, OBJECT));
    transit.sent();
    // Redeemed: the id is gone, and only that of the ticket that was in the message.
    let _arrived: Value<u64> = postcard::from_bytes(&second)?;
    assert_eq!((ticket(&Bytes::of(&name), 0)[0], ticket(&Bytes::of(&name), 1)[0]), (ticket(&out, 0)[0], 0));
    let _arrived: Value<u64> = postcard::from_bytes(&first)?;
    assert_eq!(ticket(&Bytes::of(&name), 0)[0], 0);
    // As many as there is room for between the names and the reserved part.
    assert_eq!((768 - TICKETS) / TICKET, 32);
    Ok(())
}

#[test]
fn flags() -> Outcome {
    let name = unique("flags");
    let value: Value<u8> = Options::new().persistent(true).create(&name, 1)?;
    let flags = Bytes::of(&name).u32(16);
    Value::<u8>::unlink(&name)?;
    drop(value);
    assert_eq!(flags, PERSISTENT);
    Ok(())
}

/// An object of another layout is refused, whatever else is right.
#[test]
fn homes() -> Outcome {
    let path = Namespace::current()?.path().join(unique("home"));
    let options = Options::new();
    drop(options.create_file::<AtomicValue<u16>>(&path, 0x1122)?);
    let bytes = Bytes::at(&path);
    assert_eq!(
        (bytes.u32(16), bytes.u64(32), bytes.u64(40), bytes.u64(120)),
        (1 | 4, 1088, 64, 0),
        "flags, lengths, probe"
    );
    assert_eq!(bytes.u64(24), fs::metadata("/proc/self/ns/pid")?.ino());
    fs::remove_file(&path)?;
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    file.set_len(4096)?;
    let map = || memmap2::MmapRaw::map_raw(&file).unwrap();
    let placed: AtomicValue<u16> = options.place(map(), 0, 0x1122)?;
    let bytes = Bytes::at(&path);
    assert_eq!((bytes.text(0, 8), bytes.u32(16)), ("multiprc", 2));
    assert_eq!((bytes.u64(32), bytes.u64(40), bytes.u64(120)), (1088, 64, 0), "lengths, probe");
    drop(options.attach::<AtomicValue<u16>>(map(), 0)?);
    assert_ne!(Bytes::at(&path).u64(120), 0, "probe");
    drop(placed);
    // A claim of a thread that there is not.
    let claim = 0x6d70_u64 << 48 | (fs::metadata("/proc/self/ns/pid")?.ino() & 0xffff) << 32 | 0x3fff_fff0;
    file.write_all_at(&claim.to_le_bytes(), 0)?;
    assert_eq!(options.attach::<AtomicValue<u16>>(map(), 0).unwrap_err().kind(), ErrorKind::NotReady);
    drop(options.place::<AtomicValue<u16>>(map(), 0, 1)?);
    fs::remove_file(&path)?;
    Ok(())
}

#[test]
fn other_layout() -> Outcome {
    let name = unique("other");
    let queue: Queue<[u8]> = Options::new().persistent(true).create(&name, 1.into())?;
    drop(queue);
    let file = File::options().write(true).open(Namespace::current()?.path().join(&name))?;
    file.write_all_at(&2_u32.to_le_bytes(), 12)?;
    drop(file);
    let error = Queue::<[u8]>::open(&name).expect_err("another layout");
    Queue::<[u8]>::unlink(&name)?;
    assert_eq!(error.kind(), ErrorKind::WrongVersion);
    assert!(error.to_string().contains("layout version 2, this build reads 1"), "{error}");
    Ok(())
}

/// Not bytes, but numbers in the same document.
#[test]
fn limits() {
    assert_eq!(MAX_HELD, 1000);
}
