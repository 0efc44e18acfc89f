//! Several byte messages in one vector: [`Messages`].

/// Byte messages one behind the other, put or got with the lock taken once. Used again and again, it
/// allocates nothing.
///
/// ```
/// use multiproc_ring::Messages;
///
/// let mut messages = Messages::new();
/// messages.push(b"one");
/// messages.push(b"two");
/// assert!(messages.iter().eq([b"one", b"two"]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Messages {
    /// Returns an empty set of messages.
    pub const fn new() -> Self {
        Self { bytes: Vec::new(), ends: Vec::new() }
    }

    /// Returns an empty set with room for this many bytes in all: as many as a `get_many_into` takes at a
    /// time.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::new() }
    }

    /// Appends a message.
    pub fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.end_one();
    }

    /// Returns how many messages are in it.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the message with this number, from 0 on.
    pub fn get(&self, number: usize) -> Option<&[u8]> {
        let end = *self.ends.get(number)?;
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..end)
    }

    /// Returns the messages in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let message = &self.bytes[start..*end];
            start = *end;
            message
        })
    }

    /// Removes all messages, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Returns the bytes, to append the next message.
    #[doc(hidden)]
    pub fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Ends a message: what was appended to the bytes since the last call.
    #[doc(hidden)]
    pub fn end_one(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Makes room for `more` messages and for some bytes, so that [`end_one`](Self::end_one) allocates
    /// nothing.
    pub(crate) fn reserve(&mut self, more: usize) {
        const SOME: usize = 64 << 10;
        const AT_ONCE: usize = 1 << 16;
        self.ends.reserve(more.min(AT_ONCE));
        if self.bytes.capacity() == self.bytes.len() {
            self.bytes.reserve(SOME);
        }
    }
}
