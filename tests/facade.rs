//! The facade has the whole of the library: the most used names at its root, all others in the module of
//! their crate. This program uses no other crate of the workspace, so it does not compile if a name is
//! missing.

multiproc::test_support!();

/// Checks that each name at the root is the same type as in the module of its crate.
macro_rules! same {
    ($($root:ty = $in_crate:ty),* $(,)?) => {
        #[test]
        fn names_at_the_root_are_those_of_the_crates() {
            use std::any::TypeId;
            $(assert_eq!(TypeId::of::<$root>(), TypeId::of::<$in_crate>(), stringify!($root));)*
        }
    };
}

same! {
    multiproc::AtomicValue<u8> = multiproc::shm::AtomicValue<u8>,
    multiproc::Builder = multiproc::process::Builder,
    multiproc::Capacity = multiproc::queue::Capacity,
    multiproc::Death = multiproc::robust::Death,
    multiproc::Error = multiproc::shm::Error,
    multiproc::ErrorKind = multiproc::shm::ErrorKind,
    multiproc::Exit<u8> = multiproc::process::Exit<u8>,
    multiproc::GetError = multiproc::queue::GetError,
    multiproc::JobCounters = multiproc::queue::JobCounters,
    multiproc::JoinableQueue<u8> = multiproc::queue::JoinableQueue<u8>,
    multiproc::JoinError = multiproc::process::JoinError,
    multiproc::Lock = multiproc::sync::Lock,
    multiproc::LockError = multiproc::robust::LockError,
    multiproc::LockGuard<'static> = multiproc::sync::LockGuard<'static>,
    multiproc::Namespace = multiproc::shm::Namespace,
    multiproc::Options = multiproc::shm::Options,
    multiproc::Process<u8> = multiproc::process::Process<u8>,
    multiproc::PutError<u8> = multiproc::queue::PutError<u8>,
    multiproc::Queue<u8> = multiproc::queue::Queue<u8>,
    multiproc::RLock = multiproc::sync::RLock,
    multiproc::RLockGuard<'static> = multiproc::sync::RLockGuard<'static>,
    multiproc::BoundedSemaphore = multiproc::sync::BoundedSemaphore,
    multiproc::Permit<'static> = multiproc::sync::Permit<'static>,
    multiproc::Semaphore = multiproc::sync::Semaphore,
    multiproc::SharedMemory = multiproc::shm::SharedMemory,
    multiproc::SpawnError = multiproc::process::SpawnError,
    multiproc::Transit = multiproc::shm::Transit,
    multiproc::Value<u8> = multiproc::shm::Value<u8>,
    // One setup error and one lock error for all crates.
    multiproc::queue::Error = multiproc::Error,
    multiproc::sync::Error = multiproc::Error,
    multiproc::sync::LockError = multiproc::LockError,
    multiproc::sync::Death = multiproc::Death,
}

#[test]
fn queue_is_usable_through_the_facade() -> Result<(), Box<dyn std::error::Error>> {
    let queue: multiproc::Queue<u32> = multiproc::Queue::new(multiproc::Capacity::messages(2))?;
    queue.put(1)?;
    queue.put(2)?;
    assert_eq!(queue.try_put(3), Err(multiproc::PutError::Full(3)));
    queue.close();
    let all = (queue.get(), queue.get(), queue.get());
    assert_eq!(all, (Ok(1), Ok(2), Err(multiproc::GetError::Closed)));
    Ok(())
}

#[test]
fn sync_is_usable_through_the_facade() -> Result<(), Box<dyn std::error::Error>> {
    let lock = multiproc::Lock::new()?;
    let guard: multiproc::LockGuard<'_> = lock.lock()?;
    let death: Option<multiproc::Death> = multiproc::LockGuard::previous_owner_died(&guard);
    assert!(death.is_none());
    let error: multiproc::LockError = lock.lock().expect_err("this thread has it");
    assert_eq!(error.cause(), multiproc::sync::AcquireError::AlreadyHeld);
    Ok(())
}

#[test]
fn shm_is_usable_through_the_facade() -> Result<(), Box<dyn std::error::Error>> {
    let (value, hits) = (multiproc::Value::new(1_u64)?, multiproc::AtomicValue::new(1_u64)?);
    value.update(|number| *number += hits.fetch_add(1))?;
    assert_eq!((value.get()?, hits.load()), (2, 2));
    let error: multiproc::Error =
        multiproc::Value::<u64>::open("facade-does-not-exist").expect_err("it does not exist");
    assert_eq!(error.kind(), multiproc::ErrorKind::NotFound);

    let namespace = multiproc::Namespace::current()?;
    let anonymous: multiproc::Lock = multiproc::Options::new().namespace(&namespace).anonymous(())?;
    let transit = multiproc::Transit::begin();
    drop(transit);
    let report: multiproc::shm::GcReport = multiproc::gc()?;
    // It is in use, so the sweep kept it.
    assert!(report.kept.iter().any(|name| name.starts_with(".a-")), "{report:?}");
    drop(anonymous);
    Ok(())
}

#[test]
fn process_is_usable_through_the_facade() -> Result<(), Box<dyn std::error::Error>> {
    // Named, but not called: it belongs into a `main`, and the children of a test begin elsewhere.
    let _init: fn() = multiproc::init;
    let child = multiproc::Process::spawn(|number: u32| number * 2, 21)?;
    assert_eq!(child.join()?, multiproc::Exit::Value(42));
    let own_name = |()| multiproc::process::name().map(str::to_owned);
    let named = multiproc::Builder::new().name("facade").spawn(own_name, ())?;
    assert_eq!(named.join()?, multiproc::Exit::Value(Some("facade".to_owned())));
    assert!(matches!(named.join(), Err(multiproc::JoinError::ValueTaken { .. })));
    fn _errors(error: multiproc::SpawnError) -> Box<dyn std::error::Error> {
        error.into()
    }
    Ok(())
}
