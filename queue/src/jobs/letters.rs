//! [`DeadLetters`]: jobs that nobody got done.

use std::fmt;
use std::marker::PhantomData;

use multiproc_shm::Reading;
use serde::de::DeserializeOwned;

use super::JoinableQueue;
use super::job::Holder;
use super::typed::decode;
use crate::error::GetError;
use crate::jobs::lease::Letter;

/// The dead letters of a [`JoinableQueue`]: jobs that were handed out as often as they may be, and came back each time.
///
/// # When a process dies
///
/// Killed while a job becomes a dead letter, or a dead letter a job: it is one of the two. Killed in [`take`](Self::take), the letter stays, or was taken.
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

    /// How many there are, a snapshot.
    pub fn len(&self) -> usize {
        self.queue.view().letter_count()
    }

    /// Whether there are none, a snapshot.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies of all of them, from the oldest on; they stay. Nobody gets a job meanwhile.
    ///
    /// # Errors
    ///
    /// [`GetError`]: broken; no memory.
    pub fn list(&self) -> Result<Vec<DeadLetter<T>>, GetError> {
        let letters = self.queue.view().letters(usize::MAX).map_err(|refusal| self.queue.get_error(refusal))?;
        Ok(letters.into_iter().map(DeadLetter::new).collect())
    }

    /// Takes the oldest one out; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list).
    pub fn take(&self) -> Result<Option<DeadLetter<T>>, GetError> {
        let letter = self.queue.view().take_letter().map_err(|refusal| self.queue.get_error(refusal))?;
        Ok(letter.map(DeadLetter::new))
    }

    /// Makes them jobs again that nobody has had yet, from the oldest on, to be handed out before others: as many as there are, and as there is place for ([`MAX_LEASES`](super::MAX_LEASES) less what is out). How many became one.
    ///
    /// # Errors
    ///
    /// As [`list`](Self::list); those that became jobs before it, did.
    pub fn replay(&self) -> Result<usize, GetError> {
        let mut replayed = 0;
        // No more than there are now: what comes back meanwhile is for the next time.
        for _ in 0..self.len() {
            if !self.queue.view().revive_letter().map_err(|refusal| self.queue.get_error(refusal))? {
                break;
            }
            replayed += 1;
        }
        Ok(replayed)
    }
}

/// A job that nobody got done.
pub struct DeadLetter<T: ?Sized + 'static> {
    letter: Letter,
    message: PhantomData<fn() -> Box<T>>,
}

impl<T: ?Sized> DeadLetter<T> {
    fn new(letter: Letter) -> Self {
        Self { letter, message: PhantomData }
    }

    /// How often it was handed out.
    pub fn attempts(&self) -> u32 {
        self.letter.deliveries
    }

    /// Who had it last.
    pub fn last_holder(&self) -> Holder {
        Holder(self.letter.last)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.letter.message
    }

    /// The job.
    ///
    /// # Errors
    ///
    /// [`GetError::Decode`]: it is not a `T`; perhaps that is why nobody got it done.
    pub fn value(&self) -> Result<T, GetError>
    where
        T: Sized + DeserializeOwned,
    {
        // The tickets of handles in it stay out: it may be read again.
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
