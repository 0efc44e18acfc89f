//! Handles in messages: an in-flight reference keeps the object, and nothing longer than that.

mod common;

use std::time::Duration;

use multiproc_shm::{AtomicValue, Gc, Transit, Value};

use common::{Outcome, Space};

/// Serialises a handle as a message that is sent.
fn send(value: &Value<u64>) -> Vec<u8> {
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(value).expect("a handle can be serialised");
    transit.sent();
    bytes
}

fn receive(bytes: &[u8]) -> Result<Value<u64>, postcard::Error> {
    postcard::from_bytes(bytes)
}

/// Sweeps as if every in-flight reference were old.
fn sweep(space: &Space) -> Vec<String> {
    Gc::new().in_flight_age(Duration::ZERO).run(space.namespace()).expect("a sweep").removed
}

#[test]
fn handle_in_flight_keeps_the_object() -> Outcome {
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
        let received = receive(&bytes)?;
        assert_eq!((received.get()?, received.name()), (7, name));
        // The reference is released, so the object lives as long as its users.
        drop(received);
        assert!(space.entries().is_empty());
    }
    Ok(())
}

#[test]
fn named_object_in_flight_can_be_opened() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("open", 7)?;
    let bytes = send(&value);
    drop(value);
    assert_eq!(space.options().open::<Value<u64>>("open")?.get()?, 7);
    // The end of that user is not the end of the object: a message still references it.
    assert_eq!(space.entries(), ["open"]);
    assert_eq!(receive(&bytes)?.get()?, 7);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn dropped_transit_releases_its_references() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(&value)?;
    drop(value);
    // The open transit keeps it.
    assert_eq!(space.entries().len(), 1);
    drop(transit);
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn message_can_be_decoded_twice_while_the_object_is_used() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let bytes = send(&value);
    drop(value);
    let first = receive(&bytes)?;
    // The second reader finds the same object while a handle to it lives.
    let second = receive(&bytes)?;
    first.set(8)?;
    assert_eq!(second.get()?, 8);
    drop((first, second));
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn second_decoding_releases_no_other_reference() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let first = send(&value);
    drop(receive(&first)?);
    // The same index in the header, another id.
    let second = send(&value);
    drop(receive(&first)?);
    drop(value);
    assert_eq!(space.entries().len(), 1);
    assert_eq!(receive(&second)?.get()?, 7);
    assert!(space.entries().is_empty());
    Ok(())
}

#[test]
fn reference_of_a_lost_message_expires() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("lost", 7)?;
    let bytes = send(&value);
    drop(value);
    let dry = Gc::new().in_flight_age(Duration::ZERO).dry_run(true).run(space.namespace())?;
    assert_eq!((dry.removed, space.entries()), (vec!["lost".to_owned()], vec!["lost".to_owned()]));
    assert_eq!(sweep(&space), ["lost"]);
    assert!(space.entries().is_empty());
    assert!(receive(&bytes).is_err());
    Ok(())
}

#[test]
fn process_keeps_the_object_if_all_references_are_taken() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let messages: Vec<Vec<u8>> = (0..33).map(|_| send(&value)).collect();
    drop(value);
    for bytes in &messages {
        assert_eq!(receive(bytes)?.get()?, 7);
    }
    // The handle without a reference keeps the object as long as this process lives.
    assert_eq!(space.entries().len(), 1);
    assert_eq!(sweep(&space), [""; 0]);
    Ok(())
}

#[test]
fn one_message_can_have_more_handles_than_references() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    let transit = Transit::begin();
    let bytes = postcard::to_stdvec(&vec![value.clone(); 33])?;
    transit.sent();
    drop(value);
    let received: Vec<Value<u64>> = postcard::from_bytes(&bytes)?;
    received[0].set(1)?;
    assert_eq!((received.len(), received[32].get()?), (33, 1));
    Ok(())
}

#[test]
fn process_keeps_an_object_that_is_serialised_outside_of_a_transit() -> Outcome {
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
    let (outer, inner): (Value<u64>, Value<u64>) =
        (space.options().create("outer", 1)?, space.options().create("inner", 2)?);
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
fn sent_keeps_the_references_of_its_own_scope_only() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().anonymous(7)?;
    drop(send(&value));
    let transit = Transit::begin();
    let _bytes = postcard::to_stdvec(&value)?;
    drop((value, transit));
    // The reference of the first message is in flight.
    assert_eq!(space.entries().len(), 1);
    assert_eq!(sweep(&space).len(), 1);
    Ok(())
}

#[test]
fn stale_handle_means_no_other_object() -> Outcome {
    let space = Space::new();
    let value: Value<u64> = space.options().create("stale", 7)?;
    let bytes = send(&value);
    space.options().unlink("stale")?;
    drop(value);
    // The name means nothing, then another value, then an object of another kind.
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
fn wrong_bytes_are_an_error() {
    let space = Space::new();
    let value: Value<u64> = space.options().create("value", 1).expect("a value");
    let bytes = send(&value);
    // Any byte of the message may be wrong.
    for at in 0..bytes.len() {
        for byte in [0, 1, 0x2f, 0x7f, 0x80, 0xff, !bytes[at]] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            // The result is the value or an error. The bytes of the path are left out.
            let in_path = at < 2 + space.namespace().path().as_os_str().len();
            if !in_path {
                let _ = receive(&wrong).map(|value| value.get());
            }
        }
    }
    for length in 0..bytes.len() {
        assert!(receive(&bytes[..length]).is_err());
    }
    assert_eq!(value.get(), Ok(1));
}
