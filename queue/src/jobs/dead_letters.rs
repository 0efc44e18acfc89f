//! [`DeadLetters`]: jobs that were leased too often without being done.

use std::fmt;
use std::marker::PhantomData;

use multiproc_shm::Reading;
use serde::de::DeserializeOwned;

use super::JoinableQueue;
use super::job::Holder;
use super::typed::decode;
use crate::error::GetError;
use crate::jobs::lease::Letter;

/// The dead letters of a [`JoinableQueue`]: jobs that were leased as often as allowed without being done.
///
/// # When a process dies
///
/// While a job becomes a dead letter, or a dead letter a job: it is one of the two. In [`take`](Self::take):
/// the dead letter stays, or was taken.
///
/// ```
/// use multiproc_queue::{JobLimits, JoinableQueue};
///
/// let queue = JoinableQueue::new(JobLimits::from(16).max_deliveries(2))?;
/// queue.put("poison".to_string())?;
/// for _ in 0..2 {
///     queue.get()?.retry();
/// }
/// assert!(queue.try_get().is_err());
/// let letters = queue.dead_letters().list()?;
/// assert_eq!((letters[0].value()?.as_str(), letters[0].attempts()), ("poison", 2));
///
/// queue.dead_letters().replay()?;
/// assert_eq!(queue.get()?.into_inner(), "poison");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DeadLetters<'a, T: ?Sized + 'static> {
    queue: &'a JoinableQueue<T>,
}

impl<'a, T: ?Sized + 'static> DeadLetters<'a, T> {
    pub(super) fn of(queue: &'a JoinableQueue<T>) -> Self {
        Self { queue }
    }

    /// Returns how many there are: a snapshot.
    pub fn len(&self) -> usize {
        self.queue.view().letter_count()
    }

    /// Returns whether there are none: a snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns copies of all dead letters, the oldest first. Consumers wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`GetError`]: `Broken`, `NoMemory`.
    pub fn list(&self) -> Result<Vec<DeadLetter<T>>, GetError> {
        let letters =
            self.queue.view().letters(usize::MAX).map_err(|refusal| self.queue.get_error(refusal))?;
        Ok(letters.into_iter().map(DeadLetter::new).collect())
    }

    /// Takes the oldest dead letter; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub fn take(&self) -> Result<Option<DeadLetter<T>>, GetError> {
        let letter = self.queue.view().take_letter().map_err(|refusal| self.queue.get_error(refusal))?;
        Ok(letter.map(DeadLetter::new))
    }

    /// Makes the dead letters jobs again, the oldest first, to be leased before others, with no deliveries
    /// counted. Stops when no lease is free ([`MAX_LEASES`](super::MAX_LEASES)). Returns how many became
    /// jobs.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list). Dead letters that became jobs before the error stay jobs.
    pub fn replay(&self) -> Result<usize, GetError> {
        let mut replayed = 0;
        // No more than there are now: what becomes a dead letter meanwhile is for the next call.
        for _ in 0..self.len() {
            if !self.queue.view().replay_letter().map_err(|refusal| self.queue.get_error(refusal))? {
                break;
            }
            replayed += 1;
        }
        Ok(replayed)
    }
}

/// A job that was leased too often without being done.
pub struct DeadLetter<T: ?Sized + 'static> {
    letter: Letter,
    message: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> DeadLetter<T> {
    fn new(letter: Letter) -> Self {
        Self { letter, message: PhantomData }
    }

    /// Returns how often the job was leased.
    pub fn attempts(&self) -> u32 {
        self.letter.deliveries
    }

    /// Returns its last holder.
    pub fn last_holder(&self) -> Holder {
        Holder(self.letter.last)
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.letter.message
    }

    /// Decodes the job.
    ///
    /// # Errors
    ///
    /// [`GetError::Decode`]: it is not a `T`, which may be the reason why no consumer got it done.
    pub fn value(&self) -> Result<T, GetError>
    where
        T: Sized + DeserializeOwned,
    {
        // The in-flight references of handles in it stay: it may be read again.
        let _reading = Reading::begin();
        decode(&self.letter.message, || "a dead letter".to_owned())
    }
}

impl<T: ?Sized> fmt::Debug for DeadLetter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadLetter")
            .field("attempts", &self.attempts())
            .field("last_holder", &self.last_holder())
            .field("bytes", &self.letter.message.len())
            .finish()
    }
}
