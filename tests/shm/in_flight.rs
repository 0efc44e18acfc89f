//! The age of in-flight references: lost, late, released twice, and from the future.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;

use multiproc::shm::{Gc, Transit};
use multiproc::{AtomicValue, Error, SharedMemory, Value};

use crate::common::{How, Outcome, Space, alone, fork, wait_for};

/// Offset of the in-flight references in the file, and the bytes of one.
const REFERENCES: u64 = 256;
const REFERENCE: u64 = 16;
/// How long a reference keeps the object, in seconds.
const TEN_MINUTES: u64 = 600;

/// An object that no process uses and that a message references.
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

    /// Makes the first reference older or younger.
    fn shift(&self, seconds: i64) -> std::io::Result<()> {
        let taken = self.word(REFERENCES + 8)?;
        self.file.write_all_at(&taken.saturating_add_signed(seconds).to_le_bytes(), REFERENCES + 8)
    }

    fn references(&self) -> std::io::Result<usize> {
        let ids: Vec<u64> =
            (0..32).map(|index| self.word(REFERENCES + REFERENCE * index)).collect::<Result<_, _>>()?;
        Ok(ids.into_iter().filter(|id| *id != 0).count())
    }

    fn receive(&self) -> Result<Value<u64>, postcard::Error> {
        postcard::from_bytes(&self.bytes)
    }
}

fn swept(space: &Space) -> Result<Vec<String>, Error> {
    Ok(Gc::new().run(space.namespace())?.removed)
}

/// Seconds since the machine started. No reference can be older.
fn uptime() -> u64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

#[test]
fn reference_of_a_lost_message_expires_after_ten_minutes() -> Outcome {
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
fn expired_reference_is_valid_until_a_sweep() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let sent = Sent::new(&space)?;
    sent.shift(i64::MIN)?;
    // The reference has expired, but no sweep has run, so the message is still valid.
    let received = sent.receive()?;
    assert_eq!((received.get()?, sent.references()?), (7, 0));
    drop(received);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn decoding_twice_releases_no_other_reference() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    let sent = Sent::new(&space)?;
    let first = sent.receive()?;
    assert_eq!(sent.references()?, 0);
    // Another message takes the same index. Decoding the first message again must not release that reference.
    let transit = Transit::begin();
    let other = postcard::to_stdvec(&first)?;
    transit.sent();
    let _again = sent.receive()?;
    assert_eq!(sent.references()?, 1);
    drop((first, _again));
    assert_eq!(swept(&space)?, [""; 0]);
    assert_eq!(postcard::from_bytes::<Value<u64>>(&other)?.get()?, 7);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn reference_from_the_future_keeps_the_object() -> Outcome {
    let _alone = alone();
    let space = Space::new();
    // Only a faulty program writes that. It keeps one file, until that is unlinked.
    let sent = Sent::new(&space)?;
    sent.shift(i64::MAX)?;
    assert_eq!(swept(&space)?, [""; 0]);
    assert_eq!(sent.receive()?.get()?, 7);
    assert_eq!(space.entries(), [""; 0]);
    Ok(())
}

#[test]
fn object_survives_a_sender_that_took_every_reference() -> Outcome {
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
    // Another process opens it and drops it. Only the references keep it.
    drop(space.options().open::<SharedMemory>("lost")?);
    assert_eq!(space.entries(), ["lost"]);
    assert_eq!(Gc::new().in_flight_age(std::time::Duration::ZERO).run(space.namespace())?.removed, ["lost"]);
    Ok(())
}
