//! Eight processes make, find, drop and unlink a few names, while a ninth kills them. The test asserts two
//! things. No process ever finds an incomplete object. Processes that have handles under one name at the same
//! time have the same object.
//!
//! # The oracle
//!
//! Each object holds a random number, sixteen times. So its contents identify the object, and show whether it
//! was complete. A worker that has found an object enters it into a ledger, and removes the entry before it
//! drops the handle.
//!
//! It is a **split** if two processes have handles under one name to different objects. It is none if the
//! name was unlinked after the earlier of them had begun to look for it. The reason: say P got object A, and
//! Q got object B later. P has had A mapped ever since, so A was in use, and a name in use means the same
//! object until an unlink.
//!
//! A worker enters an unlink before it begins and again when it has ended; for a killed worker the killer
//! does that. A worker that finds a difference asks the kernel whether the other worker is still alive. So
//! every split that is counted is a real one. Delays of the ledger only hide some.
//!
//! The ledger is a [`Value`]: a killed process has written to it completely, or not at all.

use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use multiproc::robust::{has_ended, thread_id};
use multiproc::shm::Gc;
use multiproc::{AtomicValue, Error, ErrorKind, Value};

use crate::common::{Dice, Forked, How, Outcome, Space, alone, fork};

const WORKERS: usize = 8;
/// The first name is never unlinked.
const NAMES: [&str; 3] = ["kept", "unlinked", "unlinked-too"];
/// The most handles that a worker has.
const HANDLES: usize = 3;

/// The contents of an object: a number that is never 0, sixteen times.
type Pattern = [u64; 16];
type Object = Value<Pattern>;

/// A handle that a worker has; all zeros: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Holding {
    object: u64,
    /// The time at which the call that found it began.
    begun: u64,
    name: u64,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
struct Ledger {
    holdings: [[Holding; HANDLES]; WORKERS],
    /// The thread of each worker.
    threads: [u64; WORKERS],
    /// 1 + the name that each worker is unlinking.
    unlinking: [u64; WORKERS],
    /// The time at which the last unlink of each name had ended.
    unlinked: [u64; NAMES.len()],
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
struct Counts {
    found: u64,
    /// How many pairs of handles of different workers were compared.
    compared: u64,
    splits: u64,
    uninitialised: u64,
    unlinks: u64,
}

/// The state that the processes share.
struct Storm {
    space: Space,
    ledger: Value<Ledger>,
    /// Counts up: a later time is a larger number.
    clock: AtomicValue<u64>,
    /// The [`Act`] that each worker is doing.
    acts: Vec<AtomicValue<u8>>,
}

/// What a worker is doing when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Else,
    Find,
    Drop,
    Unlink,
}

impl Storm {
    fn new() -> Result<Self, Error> {
        let acts = (0..WORKERS).map(|_| AtomicValue::new(0)).collect::<Result<_, _>>()?;
        Ok(Self {
            space: Space::new(),
            ledger: Value::new(Ledger::zeroed())?,
            clock: AtomicValue::new(1)?,
            acts,
        })
    }

    fn start(&self, worker: usize, seed: u64) -> Forked {
        fork(How::Libc, || {
            let result = self.work(worker, Dice::new(seed));
            panic!("a worker of the storm: {result:?}\n");
        })
    }

    /// Works until it is killed.
    fn work(&self, worker: usize, mut dice: Dice) -> Outcome {
        let mut kept: [Option<Object>; HANDLES] = Default::default();
        self.ledger.update(|ledger| ledger.threads[worker] = u64::from(thread_id()))?;
        loop {
            let slot = below(&mut dice, HANDLES);
            let name = below(&mut dice, NAMES.len());
            if let Some(handle) = kept[slot].take() {
                // The object of a handle stays the same.
                let object = handle.get()?;
                self.ledger.update(|ledger| {
                    let held = std::mem::take(&mut ledger.holdings[worker][slot]);
                    ledger.counts.uninitialised += u64::from(object != [held.object; 16]);
                })?;
                self.during(worker, Act::Drop, || drop(handle));
            } else if name > 0 && dice.below(4) == 0 {
                self.unlink(worker, name)?;
            } else if let Some(handle) = self.find(worker, slot, name, &mut dice)? {
                kept[slot] = Some(handle);
            }
        }
    }

    fn find(
        &self,
        worker: usize,
        slot: usize,
        name: usize,
        dice: &mut Dice,
    ) -> Result<Option<Object>, Box<dyn std::error::Error>> {
        let options = self.space.options();
        let begun = self.clock.fetch_add(1);
        let fresh: Pattern = [dice.next() | 1; 16];
        let how = dice.below(6);
        let found: Result<Object, Error> = self.during(worker, Act::Find, || match how {
            0 => options.create(NAMES[name], fresh),
            1 => options.open(NAMES[name]),
            _ => options.open_or_create(NAMES[name], fresh),
        });
        let handle = match found {
            Err(error)
                if how < 2 && [ErrorKind::AlreadyExists, ErrorKind::NotFound].contains(&error.kind()) =>
            {
                return Ok(None);
            }
            found => found?,
        };
        let pattern = handle.get()?;
        let mine = Holding { object: pattern[0], begun, name: name as u64 };
        let mut ledger = self.ledger.lock()?;
        ledger.counts.found += 1;
        if pattern[0] == 0 || pattern.iter().any(|word| *word != pattern[0]) {
            ledger.counts.uninitialised += 1;
        }
        for other in (0..WORKERS).filter(|other| *other != worker) {
            for held in
                ledger.holdings[other].into_iter().filter(|held| held.object != 0 && held.name == mine.name)
            {
                let unlinked = ledger.unlinking.contains(&(mine.name + 1))
                    || ledger.unlinked[name] >= held.begun.min(begun);
                // Asked last: a worker that is alive now had its handle when this one had its own.
                if !unlinked && !has_ended(u32::try_from(ledger.threads[other])?) {
                    ledger.counts.compared += 1;
                    ledger.counts.splits += u64::from(held.object != mine.object);
                }
            }
        }
        ledger.holdings[worker][slot] = mine;
        Ok(Some(handle))
    }

    fn unlink(&self, worker: usize, name: usize) -> Outcome {
        self.ledger.update(|ledger| ledger.unlinking[worker] = name as u64 + 1)?;
        let unlinked = self.during(worker, Act::Unlink, || self.space.options().unlink(NAMES[name]));
        let now = self.clock.fetch_add(1);
        self.ledger.update(|ledger| ledger.unlink_ended(worker, now))?;
        match unlinked {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn during<T>(&self, worker: usize, act: Act, body: impl FnOnce() -> T) -> T {
        self.acts[worker].store(act as u8);
        let result = body();
        self.acts[worker].store(Act::Else as u8);
        result
    }

    /// Kills a worker during a chosen act, if one does that soon, and starts it again. Returns the act.
    fn kill_one(
        &self,
        workers: &mut [Option<Forked>],
        dice: &mut Dice,
    ) -> Result<Act, Box<dyn std::error::Error>> {
        let wanted = [Act::Find, Act::Find, Act::Drop, Act::Unlink, Act::Else][below(dice, 5)];
        let mut victim = below(dice, WORKERS);
        // Looks at all workers at least once, so that all go on.
        let begun = Instant::now();
        let patience = Duration::from_micros(dice.below(3_000));
        while begun.elapsed() < patience || self.acts[victim].load() != wanted as u8 {
            victim = (victim + 1) % WORKERS;
            if begun.elapsed() > 2 * patience {
                break;
            }
            if begun.elapsed() < patience {
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        (0..dice.below(3_000)).for_each(|_| std::hint::spin_loop());
        let act = self.acts[victim].load();
        workers[victim].take().ok_or("a worker")?.kill();
        let now = self.clock.fetch_add(1);
        self.ledger.update(|ledger| {
            ledger.holdings[victim] = Default::default();
            ledger.threads[victim] = 0;
            ledger.unlink_ended(victim, now);
        })?;
        self.acts[victim].store(Act::Else as u8);
        workers[victim] = Some(self.start(victim, dice.next()));
        Ok([Act::Else, Act::Find, Act::Drop, Act::Unlink][usize::from(act)])
    }

    fn run(&self, kills: u64, mut dice: Dice) -> Outcome {
        let mut workers: Vec<_> = (0..WORKERS).map(|worker| Some(self.start(worker, dice.next()))).collect();
        let mut during = [0_u64; 4];
        let (mut found, mut since) = (0, Instant::now());
        for _ in 0..kills {
            during[self.kill_one(&mut workers, &mut dice)? as usize] += 1;
            let now = self.ledger.get()?.counts.found;
            if now > found {
                (found, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < Duration::from_secs(30), "no worker has found an object for 30 s");
        }
        workers.into_iter().flatten().for_each(Forked::kill);
        let counts = self.ledger.get()?.counts;
        Gc::new().run(self.space.namespace())?;
        let left = self.space.entries();
        println!(
            "{} found, {} compared, {} unlinked; killed in find {}, drop {}, unlink {}, between {}",
            counts.found, counts.compared, counts.unlinks, during[1], during[2], during[3], during[0]
        );
        println!(
            "storm: {kills} kills, {} splits, {} uninitialised, {} files left",
            counts.splits,
            counts.uninitialised,
            left.len()
        );
        assert_eq!((counts.splits, counts.uninitialised, left), (0, 0, Vec::new()));
        assert!(counts.compared > kills, "too few comparisons: {counts:?}");
        Ok(())
    }
}

impl Ledger {
    fn unlink_ended(&mut self, worker: usize, now: u64) {
        if let Some(name) = std::mem::take(&mut self.unlinking[worker]).checked_sub(1) {
            let at = usize::try_from(name).unwrap_or(0);
            self.unlinked[at] = self.unlinked[at].max(now);
            self.counts.unlinks += 1;
        }
    }
}

fn below(dice: &mut Dice, end: usize) -> usize {
    usize::try_from(dice.below(end as u64)).unwrap_or(0)
}

#[test]
fn names_survive_two_hundred_kills() -> Outcome {
    let _alone = alone();
    Storm::new()?.run(200, Dice::of_this_run())
}

/// `ci/storm.sh KILLS [SEED]`.
#[test]
#[ignore = "runs as many kills as asked for: ci/storm.sh"]
fn as_many_as_asked_for() -> Outcome {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let kills = number("STORM_KILLS").ok_or("set STORM_KILLS to the number of kills")?;
    Storm::new()?.run(kills, number("STORM_SEED").map_or_else(Dice::of_this_run, Dice::new))
}

/// Checks the oracle: it sees a worker that gets another object under the name.
#[test]
fn oracle_sees_a_split() -> Outcome {
    let _alone = alone();
    let storm = Storm::new()?;
    let mut dice = Dice::new(1);
    let thread = u64::from(thread_id());
    storm.ledger.update(|ledger| ledger.threads = [thread; WORKERS])?;
    let find = |worker: usize, dice: &mut Dice| loop {
        if let Some(found) = storm.find(worker, 0, 0, dice)? {
            return Ok::<_, Box<dyn std::error::Error>>(found);
        }
    };
    let _first = find(0, &mut dice)?;
    let _same = find(1, &mut dice)?;
    let counts = storm.ledger.get()?.counts;
    assert_eq!((counts.compared, counts.splits), (1, 0));
    // An unlink that the ledger does not have is a split.
    storm.space.options().unlink(NAMES[0])?;
    let _other = find(2, &mut dice)?;
    let counts = storm.ledger.get()?.counts;
    assert_eq!((counts.compared, counts.splits), (3, 2));
    // One that it has is none.
    storm.unlink(3, 0)?;
    let _another = find(4, &mut dice)?;
    assert_eq!(storm.ledger.get()?.counts.splits, 2);
    // An object that is not complete is seen, too.
    storm.space.options().unlink(NAMES[0])?;
    let _bad: Object = storm.space.options().create(NAMES[0], [0; 16])?;
    let _found = find(5, &mut dice)?;
    assert_eq!(storm.ledger.get()?.counts.uninitialised, 1);
    Ok(())
}
