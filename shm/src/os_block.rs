//! [`OsBlock`]: memory that Python or C made under a POSIX name, and removes.
#![allow(unsafe_code, reason = "a mapping that threads share")]

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared_memory::{Shmem, ShmemConf, ShmemError};

use crate::error::{Error, ErrorKind};

/// A mapped block that Python or C made.
#[derive(Clone)]
pub(crate) struct OsBlock {
    mapping: Arc<Mapping>,
}

/// `Shmem` unlinks only what it has made. This one was opened, so it never does.
struct Mapping(Shmem);

// SAFETY: a pointer, a descriptor and a name. None of them belongs to a thread, and none changes after the
// opening.
unsafe impl Send for Mapping {}
// SAFETY: as above; the bytes are only accessed as atomics or through `copy`.
unsafe impl Sync for Mapping {}

/// Bytes of the longest file name.
const LONGEST: usize = 255;

impl OsBlock {
    pub(crate) fn attach(id: &str) -> Result<Self, Error> {
        let operation = "attach";
        let name = id.strip_prefix('/').unwrap_or(id);
        let plain = !name.contains(['/', '\0'])
            && !name.is_empty()
            && name.len() <= LONGEST
            && name != "."
            && name != "..";
        if !plain {
            let shown: String = id.chars().take(LONGEST).collect();
            return Err(Error::new(ErrorKind::BadName, operation, format_args!("OS memory {shown:?}"))
                .with_detail("it is one file name, with or without a slash before it"));
        }
        let shown = format!("OS memory {name:?}");
        match ShmemConf::new().os_id(format!("/{name}")).open() {
            Ok(mapping) => Ok(Self { mapping: Arc::new(Mapping(mapping)) }),
            Err(ShmemError::MapOpenFailed(code)) => {
                let error = io::Error::from_raw_os_error(code.cast_signed());
                // The name is valid. So the block has no bytes, or it is a directory, for which glibc's
                // `shm_open` fails in this way.
                if error.kind() == io::ErrorKind::InvalidInput {
                    return Err(Error::new(ErrorKind::Invalid, operation, shown)
                        .with_detail("it has no bytes (yet), or is no block"));
                }
                Err(Error::os(operation, shown, error))
            }
            Err(other) => Err(Error::new(ErrorKind::Os, operation, shown).with_detail(other)),
        }
    }

    /// The bytes that it had when it was attached.
    pub(crate) fn len(&self) -> usize {
        self.mapping.0.len()
    }

    /// The address of its first word, which is at the beginning of a page. Its last page is mapped as a
    /// whole.
    pub(crate) fn base(&self) -> *const AtomicU64 {
        self.mapping.0.as_ptr().cast_const().cast()
    }

    /// Its name without the slash.
    pub(crate) fn id(&self) -> &str {
        let id = self.mapping.0.get_os_id();
        id.strip_prefix('/').unwrap_or(id)
    }

    pub(crate) fn describe(&self) -> String {
        format!("OS memory {:?}", self.id())
    }
}

impl fmt::Debug for OsBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Serialize for OsBlock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.id().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OsBlock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::attach(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
