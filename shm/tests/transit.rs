//! Handles in messages: the object stays while one is on its way, and no longer.

mod common;

use std::time::Duration;

use multiproc_shm::{AtomicValue, Gc, Transit, Value};

use common::{Outcome, Space};

/// Serialises a handle as a message that is then sent.
fn send(value: &Value<u64>) -> Vec<u8> {
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(value).expect("a handle can be serialised");
    transit.sent();
    bytes
}

fn receive(bytes: &[u8]) -> Result<Value<u64>, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// Sweeps as if every ticket were old.
fn sweep(space: &Space) -> Vec<String> {
    Gc::new().ticket_age(Duration::ZERO).run(space.namespace()).expect("a sweep").removed
}

#[test]
fn handle_on_its_way_keeps_the_object() -> Outcome {
    for name in [Some("named"), None] {
        let space = Space::new();
        let value: Value<u64> = match name {
            Some(name) => space.options().create(name, 7)?,
            None => space.options().anonymous(7)?,
        };
        let bytes = send(&value);
        drop(value);
        assert_eq!(space.entries().len(), 1);
        assert_eq!(Gc::new().run(space.namespace())?.removed, [""; 0]);
        let arrived = receive(&bytes)?;
        assert_eq!((arrived.get()?, arrived.name()), (7, name));
        // Redeemed: from here on it lives as long as its users.
        drop(arrived);
        assert!(space.entries().is_empty());
    }
    Ok(())
}

#[test]
fn named_object_on_its_way_can_be_opened() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("open", 7)?;
    let bytes = send(&value);
    drop(value);
    assert_eq!(space.options().open::<Value<u64>>("open")?.get()?, 7);
    // That user's end is not the end of the object: its ticket is still out.
    assert_eq!(space.entries(), ["open"]);
    assert_eq!(receive(&bytes)?.get()?, 7);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn transit_that_is_not_sent_is_rolled_back() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(&value)?;
    drop(value);
    // The open transit has it.
    assert_eq!(space.entries().len(), 1);
    drop(transit);
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn message_decoded_twice() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let bytes = send(&value);
    drop(value);
    let first = receive(&bytes)?;
    // The second finds the same object, as long as somebody has it.
    let second = receive(&bytes)?;
    first.set(8)?;
    assert_eq!(second.get()?, 8);
    drop((first, second));
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn second_decoder_does_not_redeem_another_ticket() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let first = send(&value);
    drop(receive(&first)?);
    // The same slot, another ticket.
    let second = send(&value);
    drop(receive(&first)?);
    drop(value);
    assert_eq!(space.entries().len(), 1);
    assert_eq!(receive(&second)?.get()?, 7);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn lost_message_expires() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("lost", 7)?;
    let bytes = send(&value);
    drop(value);
    let dry = Gc::new().ticket_age(Duration::ZERO).dry_run(true).run(space.namespace())?;
    assert_eq!((dry.removed, space.entries()), (vec!["lost".to_owned()], vec!["lost".to_owned()]));
    assert_eq!(sweep(&space), ["lost"]);
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn more_tickets_than_slots() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let messages: Vec<Vec<u8>> = (0..33).map(|_| send(&value)).collect();
    drop(value);
    for bytes in &messages {
        assert_eq!(receive(bytes)?.get()?, 7);
    }
    // The one without a ticket keeps the object as long as this process lives.
    assert_eq!(space.entries().len(), 1);
    assert_eq!(sweep(&space), [""; 0]);
    Ok(())
}

#[test]
fn one_message_with_more_handles_than_slots() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(&vec![value.clone(); 33])?;
    transit.sent();
    drop(value);
    let arrived: Vec<Value<u64>> = postcard::from_bytes(&bytes)?;
    arrived[0].set(1)?;
    assert_eq!((arrived.len(), arrived[32].get()?), (33, 1));
    Ok(())
}

#[test]
fn outside_of_a_transit_the_process_keeps_it() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let bytes = postcard::to_stdvec(&value)?;
    drop(value);
    assert_eq!(sweep(&space), [""; 0]);
    drop(receive(&bytes)?);
    assert_eq!(receive(&bytes)?.get()?, 7);
    assert_eq!(space.entries().len(), 1);
    Ok(())
}

#[test]
fn transits_nest() -> Outcome {
    let space = Space::new();
    let (outer, inner): (Value<u64>, Value<u64>) = (space.options().create("outer", 1)?, space.options().create("inner", 2)?);
    let outer_transit = Transit::begin();
    let outer_bytes = postcard::to_stdvec(&outer)?;
    let inner_transit = Transit::begin();
    let inner_bytes = postcard::to_stdvec(&inner)?;
    drop((outer, inner));
    // The inner one fails, the outer one does not.
    drop(inner_transit);
    outer_transit.sent();
    assert_eq!(space.entries(), ["outer"]);
    assert!(receive(&inner_bytes).is_err());
    assert_eq!(receive(&outer_bytes)?.get()?, 1);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn sent_covers_what_came_before_it_only() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    drop(send(&value));
    let transit = Transit::begin();
    let _bytes = postcard::to_stdvec(&value)?;
    drop((value, transit));
    // The first ticket is out.
    assert_eq!(space.entries().len(), 1);
    assert_eq!(sweep(&space).len(), 1);
    Ok(())
}

#[test]
fn stale_handle_is_no_other_object() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("stale", 7)?;
    let bytes = send(&value);
    space.options().unlink("stale")?;
    drop(value);
    // Nobody has the name, then another value, then something of another kind.
    assert!(receive(&bytes).is_err());
    let newer: Value<u64> = space.options().create("stale", 8)?;
    assert!(receive(&bytes).is_err());
    assert_eq!(newer.get()?, 8);
    drop(newer);
    let _other: AtomicValue<u8> = space.options().create("stale", 9)?;
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn nonsense_is_an_error() {
    let space = Space::new();
    let sound: Value<u64> = space.options().create("sound", 1).expect("a value");
    let bytes = send(&sound);
    // Any byte of the message may be anything.
    for at in 0..bytes.len() {
        for byte in [0, 1, 0x2f, 0x7f, 0x80, 0xff, !bytes[at]] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            // The value, or an error: the directory may be another, and is then made, so the path stays as it is.
            let in_path = at < 2 + space.namespace().path().as_os_str().len();
            if !in_path {
                let _ = receive(&wrong).map(|value| value.get());
            }
        }
    }
    for length in 0..bytes.len() {
        assert!(receive(&bytes[..length]).is_err());
    }
    assert_eq!(sound.get(), Ok(1));
}
