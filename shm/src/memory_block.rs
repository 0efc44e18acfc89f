//! [`SharedMemory`]: a block of bytes.
#![allow(unsafe_code, reason = "copies in and out of the block")]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use multiproc_robust::RobustLock;
use serde::{Deserialize, Serialize};

use crate::copy;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
#[cfg(feature = "shared_memory")]
use crate::os_block::OsBlock;
use crate::shared::{Object, Shared};

/// A block of raw bytes that processes share (Python's `SharedMemory`, without its leaks).
///
/// It has no lock and no structure. Its users decide when each of them may write, with a `Lock` beside it for
/// instance. For a struct use [`Value`](crate::Value), which is never seen half written.
///
/// A block that is made here begins as zeros. It has all its memory from the beginning: a full file system is
/// an error then, and no signal later. It disappears with its last user, also if that is killed, so unlinking
/// it is not necessary. Its first byte lies on a boundary of 64 bytes.
///
/// # When a process dies
///
/// A killed writer leaves the bytes that it had written so far. In a write of at most 256 bytes, eight bytes
/// at an offset that is a multiple of 8 change together. In a longer write any byte may be the last. Bytes
/// beside the written ones are never touched.
///
/// ```
/// use multiproc_shm::SharedMemory;
///
/// let block = SharedMemory::new(1 << 16)?;
/// let same = block.clone(); // or sent to another process, as an argument, a result, a message
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

/// The block, by its maker, which also removes it.
#[derive(Clone, Serialize, Deserialize)]
enum Block {
    Ours(Shared<MemoryBlock>),
    #[cfg(feature = "shared_memory")]
    Os(OsBlock),
}

/// The shared part of a [`SharedMemory`]: only the bytes behind it, padded to whole words.
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
    /// Attaches to a block that another program made under a POSIX name, by Python's
    /// `SharedMemory(create=True, ...)` or C's `shm_open`. The name is Python's `block.name`, with or without
    /// a leading slash.
    ///
    /// Its maker removes it. This process never does, neither when the last handle is dropped nor when it
    /// dies. A handle in a message is the name alone, so the block must still exist when the handle is
    /// received. A descriptor stays open as long as the handle.
    ///
    /// Such a block makes weaker promises. Its memory may not be reserved, and a process that may write to it
    /// may truncate it. A read or write **beyond the new end, or one for which the file system has no space,
    /// is SIGBUS**. [`read_at`](Self::read_at) and [`write_at`](Self::write_at) check against the length at
    /// the time of this call, which the kernel may have rounded up to pages.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if there is no such block, or if it is empty. Also if this user may not read and
    /// write it, or if the name has a slash inside.
    #[cfg(feature = "shared_memory")]
    pub fn attach_os(id: &str) -> Result<Self, Error> {
        OsBlock::attach(id).map(|block| Self { block: Block::Os(block) })
    }

    /// Returns its size in bytes, which never changes.
    pub fn len(&self) -> usize {
        match &self.block {
            // It was checked when the block was found.
            Block::Ours(shared) => usize::try_from(shared.extents()[0]).unwrap_or(0),
            #[cfg(feature = "shared_memory")]
            Block::Os(block) => block.len(),
        }
    }

    /// Returns false: a block has at least one byte.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Copies the bytes from `offset` on into `target`, until it is full. If another thread writes them
    /// meanwhile, some are old and some are new.
    ///
    /// # Errors
    ///
    /// Returns [`Invalid`](ErrorKind::Invalid) if a byte lies outside of the block. Then `target` is
    /// unchanged.
    pub fn read_at(&self, offset: usize, target: &mut [u8]) -> Result<(), Error> {
        let range = self.checked("read", offset, target.len())?;
        let (first, rest) = target.split_at_mut(to_the_next_word(&range));
        if !first.is_empty() {
            let at = range.start % copy::WORD;
            let word = self.word(range.start).load(Relaxed).to_le_bytes();
            first.copy_from_slice(&word[at..at + first.len()]);
        }
        if !rest.is_empty() {
            // SAFETY: from a whole word on, as many bytes as were checked. The words that contain them are
            // inside the block.
            unsafe { copy::load(self.word(range.start + first.len()), rest.as_mut_ptr(), rest.len()) };
        }
        Ok(())
    }

    /// Copies `source` into the block, from `offset` on.
    ///
    /// # Errors
    ///
    /// Returns [`Invalid`](ErrorKind::Invalid) if a byte would lie outside of the block. Then nothing is
    /// written.
    pub fn write_at(&self, offset: usize, source: &[u8]) -> Result<(), Error> {
        let range = self.checked("write", offset, source.len())?;
        let (first, rest) = source.split_at(to_the_next_word(&range));
        let (whole, last) = rest.split_at(rest.len() / copy::WORD * copy::WORD);
        self.patch(range.start, first);
        if !whole.is_empty() {
            // CRASH: the bytes that were copied are new, the others old. There is nothing to repair: only the
            // block's users know what they mean.
            // SAFETY: whole words inside the block, as checked.
            unsafe { copy::store(self.word(range.start + first.len()), whole) };
        }
        self.patch(range.end - last.len(), last);
        Ok(())
    }

    /// Returns a copy of all bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        // The whole block is never outside of the block.
        let _ = self.read_at(0, &mut bytes);
        bytes
    }

    /// Returns the address of the block in this process, for foreign code and for reading without a copy. Its
    /// `len` bytes stay there as long as this process has a handle to the block.
    ///
    /// Code that uses the pointer must satisfy Rust's rules for memory that other threads write. Either no
    /// thread of any process writes there meanwhile, which a `Lock` can ensure; or every access is atomic,
    /// volatile or outside of Rust. While a reference to the bytes lives, also a slice, no thread may write
    /// them. [`read_at`](Self::read_at) and [`write_at`](Self::write_at) have no such rule.
    pub fn as_ptr(&self) -> *const u8 {
        self.base().cast()
    }

    /// Returns the same address as [`as_ptr`](Self::as_ptr), for writing. The caller promises that no other
    /// thread reads there meanwhile, either.
    pub fn as_mut_ptr(&self) -> *mut u8 {
        self.base().cast_mut().cast()
    }

    /// Returns its name; `None` for an anonymous block. The name of a block from another program is Python's:
    /// it has no leading slash.
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

    /// The address of its first word. All words that hold its bytes are mapped, also the last one, which may
    /// be partly used.
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

    /// The word that contains the byte at `offset`.
    fn word(&self, offset: usize) -> &AtomicU64 {
        let word = self.base().wrapping_add(offset / copy::WORD);
        // SAFETY: the offset was checked, so this is a mapped and aligned word, which lives as long as this
        // handle.
        unsafe { &*word }
    }

    /// Writes a few bytes inside one word. The bytes beside them keep what other threads write at the same
    /// time.
    fn patch(&self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let at = offset % copy::WORD;
        let (mut mask, mut new) = ([0; copy::WORD], [0; copy::WORD]);
        mask[at..at + bytes.len()].fill(0xff);
        new[at..at + bytes.len()].copy_from_slice(bytes);
        let (mask, new) = (u64::from_le_bytes(mask), u64::from_le_bytes(new));
        // The closure never returns `None`, so this succeeds.
        let _ = self.word(offset).fetch_update(Relaxed, Relaxed, |word| Some(word & !mask | new));
    }
}

/// How many bytes of the range lie before its first whole word.
fn to_the_next_word(range: &Range<usize>) -> usize {
    (range.start.next_multiple_of(copy::WORD) - range.start).min(range.len())
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory")
            .field("object", &format_args!("{}", self.describe()))
            .field("bytes", &self.len())
            .finish()
    }
}
