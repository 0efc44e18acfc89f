//! [`SharedMemory`]: a block of bytes, and nothing else.
#![allow(unsafe_code, reason = "copies in and out of the block")]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::copy;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
#[cfg(feature = "shared_memory")]
use crate::os_block::OsBlock;
use crate::shared::{Object, Shared};
use multiproc_robust::RobustLock;

/// A block of raw bytes that processes share (Python's `SharedMemory`, without its leaks).
///
/// It has no lock and no structure: who may write when is for its users to settle, with a `Lock` beside it for instance. For a struct take
/// [`Value`](crate::Value), which is never seen half written.
///
/// A block that is made here begins as zeros, has all its memory from the beginning (a full file system is an error then, and no signal later),
/// and goes with its last user, by whatever death; nobody has to unlink it. Its first byte lies on a boundary of 64 bytes.
///
/// # When a process dies
///
/// A killed writer leaves the bytes that it had written so far. Of a run of eight bytes at an offset that 8 divides all or none have changed as long as
/// a write has at most 256 bytes; of longer writes any byte may be the last. Neighbours of what was written are never touched.
///
/// ```
/// use multiproc_shm::SharedMemory;
///
/// let block = SharedMemory::new(1 << 16)?;
/// let same = block.clone(); // or sent to another process: handles are arguments, results, messages
/// block.write_at(10, b"howdy")?;
/// let mut bytes = [0; 6];
/// same.read_at(9, &mut bytes)?;
/// assert_eq!(&bytes, b"\0howdy");
/// assert!(block.write_at(65_534, b"howdy").is_err()); // nothing was written
/// # Ok::<(), multiproc_shm::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SharedMemory {
    block: Block,
}

/// Who made it, and takes it away.
#[derive(Clone, Serialize, Deserialize)]
enum Block {
    Ours(Shared<MemoryBlock>),
    #[cfg(feature = "shared_memory")]
    Os(OsBlock),
}

/// The shared part of a [`SharedMemory`]: nothing but the bytes behind it, filled up to whole words.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct MemoryBlock {
    bytes: [AtomicU64; 0],
}

const _: () = assert!(size_of::<MemoryBlock>() == 0);

// SAFETY: `repr(C)`, words only; its size follows from the extents; no locks.
unsafe impl Object for MemoryBlock {
    const KIND: &'static str = "memory";
    const LAYOUT: u32 = 1;
    type Params = usize;

    fn extents(bytes: &usize) -> Result<[u64; 2], String> {
        if *bytes == 0 { Err("a block has at least one byte".to_owned()) } else { Ok([*bytes as u64, 0]) }
    }

    fn size(extents: [u64; 2]) -> Option<usize> {
        let [bytes, 0] = extents else { return None };
        usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)?.checked_next_multiple_of(copy::WORD)
    }

    unsafe fn init(&self, _tail: *const AtomicU64, _bytes: usize) {}

    fn locks(&self) -> [Option<&RobustLock>; 2] {
        [None, None]
    }
}

impl Handle for SharedMemory {
    type Object = MemoryBlock;

    fn from_shared(shared: Shared<MemoryBlock>) -> Self {
        Self { block: Block::Ours(shared) }
    }

    fn shared(&self) -> Option<&Shared<MemoryBlock>> {
        match &self.block {
            Block::Ours(shared) => Some(shared),
            #[cfg(feature = "shared_memory")]
            Block::Os(_) => None,
        }
    }
}

crate::verbs! {
    impl[] SharedMemory {};
    "block" "of `bytes` zero bytes"; new(bytes: usize) => bytes;
    /// [`len`](Self::len) returns its size.
    open;
    invalid "`bytes` is 0"; differs "it has another size";
}

impl SharedMemory {
    /// Attaches to a block that somebody else made under a POSIX name: Python's `SharedMemory(create=True, ...)`, or C's `shm_open`. The name is that of
    /// Python's `block.name`, with or without a leading slash. The length is what the kernel says now: the maker may have had it rounded up to pages.
    ///
    /// Its maker takes it away. This process never does, neither when the last handle is dropped nor by its death; and a handle in a message
    /// is the name alone, so the block must still be there when it arrives. A descriptor stays open with it.
    ///
    /// Such a block has not our promises. Its memory need not be there yet, and whoever may write to it may cut it short: a read or write **beyond its
    /// new end, or one for which the file system has no room, is SIGBUS**. The length that counts for [`read_at`](Self::read_at) and
    /// [`write_at`](Self::write_at) is that at the time of the attachment.
    ///
    /// # Errors
    ///
    /// [`Error`]: no such block, no right to read and write it, or it is empty; a name with a slash inside.
    #[cfg(feature = "shared_memory")]
    pub fn attach_os(id: &str) -> Result<Self, Error> {
        OsBlock::attach(id).map(|block| Self { block: Block::Os(block) })
    }

    /// How many bytes it has; never changes.
    pub fn len(&self) -> usize {
        match &self.block {
            // It was checked when it was found: what was asked for fits.
            Block::Ours(shared) => usize::try_from(shared.extents()[0]).unwrap_or(0),
            #[cfg(feature = "shared_memory")]
            Block::Os(block) => block.len(),
        }
    }

    /// Never: a block has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Copies the bytes from `offset` on into `target`, as many as fit in there. If somebody writes them meanwhile, some are old and some are new.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid): some of them lie outside of the block; `target` is as it was.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let range = self.checked("read", offset, target.len())?;
        let (first, rest) = target.split_at_mut(to_the_next_word(&range));
        if !first.is_empty() {
            let at = range.start % copy::WORD;
            let word = self.word(range.start).load(Relaxed).to_le_bytes();
            first.copy_from_slice(&word[at..at + first.len()]);
        }
        if !rest.is_empty() {
            // SAFETY: from a whole word on, as many bytes as were checked, and the words that they are part of are inside the block.
            unsafe { copy::load(self.word(range.start + first.len()), rest.as_mut_ptr(), rest.len()) };
        }
        Ok(())
    }

    /// Copies `source` into the block, from `offset` on.
    ///
    /// # Errors
    ///
    /// [`Invalid`](ErrorKind::Invalid): some bytes would lie outside of the block; nothing was written.
    pub fn write_at(&self, offset: usize, source: &[u8]) -> Result<(), Error> {
        let range = self.checked("write", offset, source.len())?;
        let (first, rest) = source.split_at(to_the_next_word(&range));
        let (whole, last) = rest.split_at(rest.len() / copy::WORD * copy::WORD);
        self.patch(range.start, first);
        if !whole.is_empty() {
            // CRASH: what was copied is new, the rest is old. There is nothing to repair: the block's users know what it means.
            // SAFETY: whole words inside the block, as checked.
            unsafe { copy::store(self.word(range.start + first.len()), whole) };
        }
        self.patch(range.end - last.len(), last);
        Ok(())
    }

    /// A copy of all its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        // All of it is never outside.
        let _ = self.read_at(0, &mut bytes);
        bytes
    }

    /// Where the block begins in this process, for foreign code and for what is to be read without a copy: `len` bytes, which stay there as long as a
    /// handle to the block lives in this process.
    ///
    /// Whoever follows the pointer promises what Rust asks of memory that others write: either nobody in any process writes there meanwhile
    /// (a `Lock` of theirs sees to it), or every access is atomic, volatile or outside of Rust. A reference, even a slice, is a claim
    /// that nobody writes as long as it lives. [`read_at`](Self::read_at) and [`write_at`](Self::write_at) need no such promise.
    pub fn as_ptr(&self) -> *const u8 {
        self.base().cast()
    }

    /// As [`as_ptr`](Self::as_ptr), for writing; that nobody else reads there meanwhile, either, is the caller's promise.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.base().cast_mut().cast()
    }

    /// Its name; `None` for an anonymous one. That of a block from elsewhere is what Python calls it: no slash before it.
    pub fn name(&self) -> Option<&str> {
        match &self.block {
            Block::Ours(shared) => shared.name(),
            #[cfg(feature = "shared_memory")]
            Block::Os(block) => Some(block.id()),
        }
    }

    fn describe(&self) -> String {
        match &self.block {
            Block::Ours(shared) => shared.describe(),
            #[cfg(feature = "shared_memory")]
            Block::Os(block) => block.describe(),
        }
    }

    /// Its first word. Of either sort the words that hold its bytes are mapped, also the last and partly used one.
    fn base(&self) -> *const AtomicU64 {
        match &self.block {
            Block::Ours(shared) => shared.tail(),
            #[cfg(feature = "shared_memory")]
            Block::Os(block) => block.base(),
        }
    }

    fn checked(&self, operation: &'static str, offset: usize, length: usize) -> Result<Range<usize>, Error> {
        match offset.checked_add(length).filter(|end| *end <= self.len()) {
            Some(end) => Ok(offset..end),
            None => Err(Error::new(ErrorKind::Invalid, operation, self.describe())
                .with_detail(format_args!("{length} bytes at {offset} lie outside of its {}", self.len()))),
        }
    }

    /// The word that the byte at `offset` is part of.
    fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.base().wrapping_add(offset / copy::WORD);
        // SAFETY: the offset was checked, so this is a mapped and aligned word, which lives as long as this handle.
        unsafe { &*word }
    }

    /// Writes a few bytes inside one word, and leaves those beside them alone, whoever writes them at the same time.
    fn patch(&self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = offset % copy::WORD;
        let (mut mask, mut new) = ([0; copy::WORD], [0; copy::WORD]);
        mask[at..at + bytes.len()].fill(0xff);
        new[at..at + bytes.len()].copy_from_slice(bytes);
        let (mask, new) = (u64::from_le_bytes(mask), u64::from_le_bytes(new));
        // Fails only if the word has changed meanwhile: then somebody else has got on.
        let _ = self.word(offset).fetch_update(Relaxed, Relaxed, |word| Some(word & !mask | new));
    }
}

/// How many bytes of the range come before its first whole word.
fn to_the_next_word(range: &Range<usize>) -> usize {
    (range.start.next_multiple_of(copy::WORD) - range.start).min(range.len())
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("object", &format_args!("{}", self.describe())).field("bytes", &self.len()).finish()
    }
}
