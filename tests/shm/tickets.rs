//! Tickets as they grow old: one that is lost, one that is late, one given back twice, one from a machine of long ago.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use multiproc::shm::{Gc, Transit};
use multiproc::{AtomicValue, Error, SharedMemory, Value};

use crate::common::{How, Outcome, Space, alone, fork, wait_for};

/// Where the tickets stand in the file, and how large one is.
const TICKETS: u64 = 256;
const TICKET: u64 = 16;
/// How long one counts.
const TEN_MINUTES: u64 = 600;

/// An object on its way: nobody has it, its ticket is out.
struct Sent {
    file: File,
    bytes: Vec<u8>,
}

impl Sent {
    fn new(space: &Space) -> Result<Self, Box<dyn std::error::Error>> {
        let value: Value<u64> = space.options().create("sent", 7)?;
        let transit = Transit::begin();
        let bytes = postcard::to_stdvec(&value)?;
        transit.sent();
        let file = OpenOptions::new().read(true).write(true).open(space.file("sent"))?;
        Ok(Self { file, bytes })
    }

    fn word(&self, at: u64) -> std::io::Result<u64> {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Makes its first ticket older, or younger.
    fn shift(&self, seconds: i64) -> std::io::Result<()> {
        let taken = self.word(TICKETS + 8)?;
        self.file.write_all_at(&taken.saturating_add_signed(seconds).to_le_bytes(), TICKETS + 8)
    }

    fn tickets_out(&self) -> std::io::Result<usize> {
        let ids: Vec<u64> = (0..32).map(|slot| self.word(TICKETS + TICKET * slot)).collect::<Result<_, _>>()?;
        Ok(ids.into_iter().filter(|id| *id != 0).count())
    }

    fn receive(&self) -> Result<Value<u64>, postcard::Error> {
        postcard::from_bytes(&self.bytes)
    }
}

fn swept(space: &Space) -> Result<Vec<String>, Error> {
    Ok(Gc::new().run(space.namespace())?.removed)
}

/// Seconds since the machine started: younger tickets than that cannot be ten minutes old.
fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[test]
fn lost_for_ten_minutes_and_no_longer() -> Outcome {
    let _alone = alone();
    if uptime() < 2 * TEN_MINUTES {
        println!("skipped: the machine has not run for twenty minutes");
        return Ok(());
    }
    let space = Space::new();
    let sent = Sent::new(&space)?;
    sent.shift(30 - TEN_MINUTES.cast_signed())?;
    assert_eq!(swept(&space)?, [""; 0]);
    sent.shift(-40)?;
    assert_eq!(swept(&space)?, ["sent"]);
    assert!(sent.receive().is_err());
    Ok(())
}

#[test]
fn late_but_before_the_sweep() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let sent = Sent::new(&space)?;
    sent.shift(i64::MIN)?;
    // Its time is over, but nobody has swept: the message is as good as ever.
    let received = sent.receive()?;
    assert_eq!((received.get()?, sent.tickets_out()?), (7, 0));
    drop(received);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn given_back_twice() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let sent = Sent::new(&space)?;
    let first = sent.receive()?;
    assert_eq!(sent.tickets_out()?, 0);
    // Another message takes the slot: the first message, decoded again, must not give that one's ticket back.
    let transit = Transit::begin();
    let other = postcard::to_stdvec(&first)?;
    transit.sent();
    let _again = sent.receive()?;
    assert_eq!(sent.tickets_out()?, 1);
    drop((first, _again));
    assert_eq!(swept(&space)?, [""; 0]);
    assert_eq!(postcard::from_bytes::<Value<u64>>(&other)?.get()?, 7);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn from_the_future_is_on_its_way() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    // Only a scribbler writes that. It keeps a file, and nothing else; who wants it gone unlinks it.
    let sent = Sent::new(&space)?;
    sent.shift(i64::MAX)?;
    assert_eq!(swept(&space)?, [""; 0]);
    assert_eq!(sent.receive()?.get()?, 7);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn every_slot_lost_by_the_dead() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let step = AtomicValue::new(0_u32)?;
    let sender = fork(How::Libc, || {
        let block: SharedMemory = space.options().create("lost", 10).expect("a block");
        for _ in 0..40 {
            let transit = Transit::begin();
            let _lost = postcard::to_stdvec(&block).expect("a handle can be serialised");
            transit.sent();
        }
        step.store(1);
        wait_for(&step, u32::MAX);
        0
    });
    wait_for(&step, 1);
    sender.kill();
    assert_eq!(swept(&space)?, [""; 0]);
    // A user comes and goes, and finds it whole; only the tickets keep it.
    drop(space.options().open::<SharedMemory>("lost")?);
    assert_eq!(space.entries(), ["lost"]);
    assert_eq!(Gc::new().ticket_age(std::time::Duration::ZERO).run(space.namespace())?.removed, ["lost"]);
    Ok(())
}
