//! The facade has the whole of the library: what most programs need at its root, everything else in the module of its crate. As this
//! program names no other crate of ours, what is missing does not compile.

multiproc::test_support!();

/// Each name once, from the root and from where it is made: the same thing, not a copy that would be a type of its own.
macro_rules! same {
    ($($root:ty = $home:ty),* $(,)?) => {
        #[test]
        fn root_is_the_same_as_home() {
            use std::any::TypeId;
            $(assert_eq!(TypeId::of::<$root>(), TypeId::of::<$home>(), stringify!($root));)*
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
fn queue() -> Result<(), Box<dyn std::error::Error>> {
    let queue: multiproc::Queue<u32> = multiproc::Queue::new(multiproc::Capacity::messages(2))?;
    queue.put(1)?;
    queue.put(2)?;
    assert_eq!(queue.try_put(3), Err(multiproc::PutError::Full(3)));
    queue.close();
    assert_eq!((queue.get(), queue.get(), queue.get()), (Ok(1), Ok(2), Err(multiproc::GetError::Closed)));
    Ok(())
}

#[test]
fn sync() -> Result<(), Box<dyn std::error::Error>> {
    let lock = multiproc::Lock::new()?;
    let guard: multiproc::LockGuard<'_> = lock.lock()?;
    let death: Option<multiproc::Death> = multiproc::LockGuard::previous_owner_died(&guard);
    assert!(death.is_none());
    let error: multiproc::LockError = lock.lock().expect_err("this thread has it");
    assert_eq!(error.cause(), multiproc::sync::AcquireError::AlreadyHeld);
    Ok(())
}

#[test]
fn shm() -> Result<(), Box<dyn std::error::Error>> {
    let (value, hits) = (multiproc::Value::new(1_u64)?, multiproc::AtomicValue::new(1_u64)?);
    value.update(|number| *number += hits.fetch_add(1))?;
    assert_eq!((value.get()?, hits.load()), (2, 2));
    let error: multiproc::Error = multiproc::Value::<u64>::open("facade-nobody-made-this").expect_err("nobody did");
    assert_eq!(error.kind(), multiproc::ErrorKind::NotFound);

    let namespace = multiproc::Namespace::current()?;
    let anonymous: multiproc::Lock = multiproc::Options::new().namespace(&namespace).anonymous(())?;
    let transit = multiproc::Transit::begin();
    drop(transit);
    let report: multiproc::shm::GcReport = multiproc::gc()?;
    // It is in use, so it was not swept.
    assert!(report.kept.iter().any(|name| name.starts_with(".a-")), "{report:?}");
    drop(anonymous);
    Ok(())
}

#[test]
fn process() -> Result<(), Box<dyn std::error::Error>> {
    // Callable, but not called here: a child's `init` would make a harness of its own.
    let _init: fn() = multiproc::init;
    let child = multiproc::Process::spawn(|number: u32| number * 2, 21)?;
    assert_eq!(child.join()?, multiproc::Exit::Value(42));
    let named = multiproc::Builder::new().name("facade").spawn(|()| multiproc::process::name().map(str::to_owned), ())?;
    assert_eq!(named.join()?, multiproc::Exit::Value(Some("facade".to_owned())));
    assert!(matches!(named.join(), Err(multiproc::JoinError::ValueTaken { .. })));
    fn _errors(error: multiproc::SpawnError) -> Box<dyn std::error::Error> {
        error.into()
    }
    Ok(())
}
