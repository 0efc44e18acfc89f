//! Plain values as messages: `Queue<Plain<T>>`.
#![allow(clippy::unwrap_used, reason = "a test")]

mod kit;

use std::time::Duration;

use multiproc_queue::{Capacity, ErrorKind, GetError, Plain, PutError, Queue};
use multiproc_shm::{Namespace, Pod, Zeroable};

use kit::{Outcome, Sleeper, unique, watchdog};

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "multiproc_shm::bytemuck")]
#[repr(C)]
struct Sample {
    time: u64,
    place: [f32; 3],
    kind: u32,
}

fn sample(time: u64) -> Sample {
    Sample { time, place: [0.25, -1.0, f32::INFINITY], kind: 7 }
}

#[test]
fn plain_values_arrive() -> Outcome {
    let queue = Queue::<Plain<Sample>>::new(3)?;
    assert_eq!(queue.try_get_plain(), Err(GetError::Empty));
    queue.put_plain(&sample(1))?;
    queue.try_put_plain(&sample(2))?;
    queue.put_plain_timeout(&sample(3), Duration::ZERO)?;
    assert_eq!(queue.try_put_plain(&sample(4)), Err(PutError::Full(())));
    assert_eq!(queue.len(), 3);
    assert_eq!(
        (queue.get_plain()?, queue.try_get_plain()?, queue.get_plain_timeout(Duration::ZERO)?),
        (sample(1), sample(2), sample(3))
    );
    assert_eq!(queue.get_plain_timeout(Duration::from_millis(1)), Err(GetError::Empty));
    let mut place = sample(9);
    assert_eq!(queue.try_get_plain_into(&mut place), Err(GetError::Empty));
    assert_eq!(queue.get_plain_into_timeout(&mut place, Duration::from_millis(1)), Err(GetError::Empty));
    assert_eq!(place, sample(9));
    queue.put_plain(&sample(4))?;
    queue.get_plain_into(&mut place)?;
    assert_eq!(place, sample(4));
    queue.close();
    assert_eq!(queue.put_plain(&sample(5)), Err(PutError::Closed(())));
    assert_eq!(queue.get_plain(), Err(GetError::Closed));
    Ok(())
}

#[test]
fn plain_values_of_no_and_of_many_bytes_arrive() -> Outcome {
    let _watchdog = watchdog();
    let units = Queue::<Plain<[u64; 0]>>::new(3)?;
    units.put_plain(&[])?;
    units.put_plain(&[])?;
    assert_eq!((units.get_plain()?, units.len()), ([], 1));
    let odd = Queue::<Plain<[u8; 13]>>::new(3)?;
    for turn in 0..1000 {
        odd.put_plain(&[u8::try_from(turn % 251)?; 13])?;
        assert_eq!(odd.get_plain()?, [u8::try_from(turn % 251)?; 13]);
    }
    let long = Queue::<Plain<[u64; 4000]>>::new(Capacity::messages(3).bytes(4096))?;
    long.put_plain(&[u64::MAX; 4000])?;
    assert_eq!(long.get_plain()?, [u64::MAX; 4000]);
    Ok(())
}

#[test]
fn waiting_consumer_gets_the_value() -> Outcome {
    let _watchdog = watchdog();
    let queue = Queue::<Plain<u64>>::new(1)?;
    for number in 0..20 {
        let same = queue.clone();
        let sleeper = Sleeper::start(move || same.get_plain());
        queue.put_plain(&number)?;
        assert_eq!(sleeper.join()?, number);
    }
    Ok(())
}

/// A type of the same name, as another build of the program may have it.
mod older {
    use multiproc_shm::{Pod, Zeroable};

    #[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
    #[bytemuck(crate = "multiproc_shm::bytemuck")]
    #[repr(C)]
    pub(crate) struct Sample {
        pub(crate) time: u64,
    }
}

#[test]
fn queue_of_another_type_is_refused() -> Outcome {
    let name = unique("plain");
    let queue = Queue::<Plain<Sample>>::create(&name, 3)?;
    for error in [
        Queue::<Plain<older::Sample>>::open(&name).unwrap_err(),
        Queue::<[u8]>::open(&name).unwrap_err(),
        Queue::<Plain<u64>>::open(&name).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    }
    drop(queue);
    let words = Queue::<Plain<u64>>::create(&name, 3)?;
    assert_eq!(Queue::<u64>::open(&name).unwrap_err().kind(), ErrorKind::Mismatch);
    drop(words);
    Ok(())
}

#[test]
fn value_of_another_length_is_an_error_with_its_bytes() -> Outcome {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    let _watchdog = watchdog();
    // As if a build had put it whose type has another size: the length in the header of the first record.
    const LENGTH: u64 = 1024 + 256;
    for length in [0_u32, 3, 8, 13] {
        let name = unique("plain");
        let queue = Queue::<Plain<[u8; 12]>>::create(&name, 3)?;
        queue.put_plain(b"twelve bytes")?;
        queue.put_plain(b"another one!")?;
        let file = File::options().write(true).open(Namespace::current()?.path().join(&name))?;
        file.write_all_at(&(length + 1).to_le_bytes(), LENGTH)?;
        match queue.get_plain() {
            Err(GetError::Decode { bytes, problem, .. }) => {
                assert_eq!(bytes, b"twelve bytes\0"[..length as usize]);
                assert!(problem.contains("12 bytes"), "{problem}");
            }
            other => assert_eq!(length, 12, "{other:?}"),
        }
        // It is gone, and the next message comes.
        if length.div_ceil(8) == 2 {
            assert_eq!(queue.get_plain()?, *b"another one!");
        }
    }
    Ok(())
}
