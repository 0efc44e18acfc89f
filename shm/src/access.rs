//! Mode and owner of a directory or a file: given to a new one, checked on one that was found.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use crate::sys;

/// The mode of a file, and its group. Without a group only the owner may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
}

impl Access {
    /// For the owner alone.
    pub(crate) const PRIVATE: Self = Self { mode: 0o600, group: None };

    /// For the owner and a group.
    pub(crate) fn of_group(group: u32) -> Self {
        Self { mode: 0o660, group: Some(group) }
    }

    /// Sets group and mode of a new file that no other process knows yet, whatever the umask is.
    pub(crate) fn give(self, file: &File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if let Some(group) = self.group.filter(|group| *group != metadata.gid()) {
            fchown(file, None, Some(group))?;
        }
        if metadata.mode() & ALL_BITS != self.mode {
            file.set_permissions(Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }

    /// Checks a file in a namespace; the error describes the file. In a group's namespace any member may own
    /// it.
    pub(crate) fn admits(self, metadata: &Metadata) -> Result<(), String> {
        let owned = match self.group {
            None => metadata.uid() == sys::effective_user(),
            Some(group) => metadata.gid() == group,
        };
        let open = metadata.mode() & 0o077 & !self.mode;
        if owned && open == 0 { Ok(()) } else { Err(describe(metadata)) }
    }

    /// Checks an ordinary file, chosen by its path. It must belong to this user, to root, or to the stated
    /// group. Others may be able to read it, but neither to write nor to truncate it.
    pub(crate) fn admits_file(self, metadata: &Metadata) -> Result<(), String> {
        let owned = match self.group {
            None => [0, sys::effective_user()].contains(&metadata.uid()),
            Some(group) => metadata.gid() == group,
        };
        let open = metadata.mode() & 0o022 & !self.mode;
        if owned && open == 0 { Ok(()) } else { Err(describe(metadata)) }
    }
}

/// The bits of a mode that can be set.
const ALL_BITS: u32 = 0o7777;

/// Owner, group and mode, for an error.
pub(crate) fn describe(metadata: &Metadata) -> String {
    format!(
        "it belongs to user {} and group {}, mode {:o}; this is user {}",
        metadata.uid(),
        metadata.gid(),
        metadata.mode() & ALL_BITS,
        sys::effective_user()
    )
}
