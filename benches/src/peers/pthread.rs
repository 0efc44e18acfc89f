//! libc's mutex between processes that notices when its owner dies.

use std::mem::MaybeUninit;

use crate::os;

/// `PTHREAD_PROCESS_SHARED` and `PTHREAD_MUTEX_ROBUST`, in shared memory, never destroyed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RobustMutex(*mut libc::pthread_mutex_t);
// SAFETY: that is what it is for.
unsafe impl Send for RobustMutex {}

impl RobustMutex {
    pub(crate) fn shared() -> Result<Self, String> {
        let mutex: *mut libc::pthread_mutex_t = os::shared_bytes(size_of::<libc::pthread_mutex_t>()).cast();
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised before they are used, the mutex lies in mapped zeros.
        let results = unsafe {
            [
                libc::pthread_mutexattr_init(attributes),
                libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED),
                libc::pthread_mutexattr_setrobust(attributes, libc::PTHREAD_MUTEX_ROBUST),
                libc::pthread_mutex_init(mutex, attributes),
            ]
        };
        if results == [0; 4] { Ok(Self(mutex)) } else { Err("no robust mutex here".to_owned()) }
    }

    #[inline]
    pub(crate) fn lock(self) -> Result<(), String> {
        // SAFETY: initialised, and mapped for ever.
        match unsafe { libc::pthread_mutex_lock(self.0) } {
            0 => Ok(()),
            code => Err(format!("pthread_mutex_lock: {code}")),
        }
    }

    #[inline]
    pub(crate) fn unlock(self) {
        // SAFETY: as above; this thread has it.
        unsafe { libc::pthread_mutex_unlock(self.0) };
    }
}
