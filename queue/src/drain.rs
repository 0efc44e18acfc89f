//! Taking all messages at once.

use multiproc_robust::Deadline;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::GetError;
use crate::queue::Queue;
use multiproc_ring::Messages;
use multiproc_ring::Refusal;

impl<T: Serialize + DeserializeOwned + 'static> Queue<T> {
    /// Takes all messages that are in the queue, without waiting. A message that cannot be decoded is an
    /// error among the results. The result is empty if the queue is empty or closed.
    ///
    /// It takes the lock once for some thousand messages. It stops at as many as were there when it began, so
    /// it ends although producers go on. The messages are then in this process's memory: if it is killed,
    /// they are lost.
    ///
    /// ```
    /// use multiproc_queue::Queue;
    ///
    /// let queue = Queue::new(100)?;
    /// queue.put_many(["a", "b", "c"].map(String::from))?;
    /// let all: Result<Vec<_>, _> = queue.drain()?.into_iter().collect();
    /// assert_eq!(all?, ["a", "b", "c"]);
    /// assert!(queue.drain()?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`GetError`], if nothing was taken: `Busy`, `NoMemory`, `Broken`. A later error ends the call, which
    /// returns what it has taken.
    pub fn drain(&self) -> Result<Vec<Result<T, GetError>>, GetError> {
        let mut messages = Messages::new();
        self.drain_messages(&mut messages)?;
        Ok(messages.iter().map(|message| self.decode(message)).collect())
    }
}

impl Queue<[u8]> {
    /// Takes all messages that are in the queue, without waiting, and appends them to `messages`; as
    /// [`drain`](Self::drain).
    ///
    /// ```
    /// use multiproc_queue::{Messages, Queue};
    ///
    /// let queue: Queue<[u8]> = Queue::new(100)?;
    /// queue.put_bytes(b"one")?;
    /// queue.put_bytes(b"two")?;
    /// let mut messages = Messages::new();
    /// queue.drain_into(&mut messages)?;
    /// assert!(messages.iter().eq([b"one", b"two"]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`GetError`], if nothing was taken: `Busy`, `NoMemory`, `Broken`. A later error ends the call, which
    /// returns what it has taken.
    pub fn drain_into(&self, messages: &mut Messages) -> Result<(), GetError> {
        self.drain_messages(messages)
    }
}

impl<T: ?Sized + 'static> Queue<T> {
    fn drain_messages(&self, messages: &mut Messages) -> Result<(), GetError> {
        let before = messages.len();
        let mut most = self.len();
        while most > 0 {
            let so_far = messages.len();
            match self.view().get_many(messages, most, Deadline::NOW) {
                Ok(()) => most -= most.min(messages.len() - so_far),
                Err(Refusal::TimedOut | Refusal::Closed) => break,
                // The next call will report it.
                Err(_) if so_far > before => break,
                Err(refusal) => return Err(self.get_error(refusal)),
            }
        }
        Ok(())
    }
}
