//! libc's locks between processes: the mutex that notices the death of its owner; the read-write lock and the
//! semaphore, which do not.

use std::mem::MaybeUninit;

use crate::os;

/// A mutex with `PTHREAD_PROCESS_SHARED` and `PTHREAD_MUTEX_ROBUST`, in shared memory, never destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RobustMutex(*mut libc::pthread_mutex_t);
// SAFETY: any thread may use such a mutex.
unsafe impl Send for RobustMutex {}

impl RobustMutex {
    pub(crate) fn shared() -> Result<Self, String> {
        Self::of_kind(libc::PTHREAD_MUTEX_NORMAL)
    }

    pub(crate) fn recursive() -> Result<Self, String> {
        Self::of_kind(libc::PTHREAD_MUTEX_RECURSIVE)
    }

    fn of_kind(kind: i32) -> Result<Self, String> {
        let mutex: *mut libc::pthread_mutex_t = os::shared_bytes(size_of::<libc::pthread_mutex_t>()).cast();
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised before they are used, the mutex lies in mapped zeros.
        let results = unsafe {
            [
                libc::pthread_mutexattr_init(attributes),
                libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_settype(attributes, kind),
                libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(mutex, attributes),
            ]
        };
        if results == [0; 5] { Ok(Self(mutex)) } else { Err("no robust mutex here".to_owned()) }
    }

    #[inline]
    pub(crate) fn lock(self) -> Result<(), String> {
        // SAFETY: initialised, and mapped for ever.
        done("pthread_mutex_lock", unsafe { libc::pthread_mutex_lock(self.0) })
    }

    #[inline]
    pub(crate) fn unlock(self) {
        // SAFETY: as above; this thread holds it.
        unsafe { libc::pthread_mutex_unlock(self.0) };
    }
}

/// A `pthread_rwlock_t` that processes share, never destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RwMutex(*mut libc::pthread_rwlock_t);
// SAFETY: any thread may use such a lock.
unsafe impl Send for RwMutex {}

impl RwMutex {
    pub(crate) fn shared() -> Result<Self, String> {
        let lock: *mut libc::pthread_rwlock_t = os::shared_bytes(size_of::<libc::pthread_rwlock_t>()).cast();
        let mut attributes = MaybeUninit::<libc::pthread_rwlockattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised before they are used, the lock lies in mapped zeros.
        let results = unsafe {
            [
                libc::pthread_rwlockattr_init(attributes),
                libc::pthread_rwlockattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_rwlock_init(lock, attributes),
            ]
        };
        if results == [0; 3] { Ok(Self(lock)) } else { Err("no shared read-write lock here".to_owned()) }
    }

    #[inline]
    pub(crate) fn read(self) -> Result<(), String> {
        // SAFETY: initialised, and mapped for ever.
        done("pthread_rwlock_rdlock", unsafe { libc::pthread_rwlock_rdlock(self.0) })
    }

    #[inline]
    pub(crate) fn write(self) -> Result<(), String> {
        // SAFETY: as above.
        done("pthread_rwlock_wrlock", unsafe { libc::pthread_rwlock_wrlock(self.0) })
    }

    #[inline]
    pub(crate) fn unlock(self) {
        // SAFETY: as above; this thread holds it.
        unsafe { libc::pthread_rwlock_unlock(self.0) };
    }
}

/// A `sem_t` that processes share, never destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Posix(*mut libc::sem_t);
// SAFETY: any thread may use such a semaphore.
unsafe impl Send for Posix {}

impl Posix {
    pub(crate) fn shared(value: u32) -> Result<Self, String> {
        let semaphore: *mut libc::sem_t = os::shared_bytes(size_of::<libc::sem_t>()).cast();
        // SAFETY: it lies in mapped zeros.
        done("sem_init", unsafe { libc::sem_init(semaphore, 1, value) }).map(|()| Self(semaphore))
    }

    #[inline]
    pub(crate) fn wait(self) -> Result<(), String> {
        // SAFETY: initialised, and mapped for ever.
        done("sem_wait", unsafe { libc::sem_wait(self.0) })
    }

    #[inline]
    pub(crate) fn post(self) {
        // SAFETY: as above.
        unsafe { libc::sem_post(self.0) };
    }
}

#[inline]
fn done(call: &str, code: i32) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("{call}: {code}")) }
}
