//! Who may reach a directory or a file, and whose it may be: what is given to a new one, and asked of one that was found.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use crate::sys;

/// The mode of a file, and the group that it is given to. Without a group it is its owner's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) mode: u32,
    pub(crate) group: Option<u32>,
}

impl Access {
    /// For its owner alone.
    pub(crate) const PRIVATE: Self = Self { mode: 0o600, group: None };

    /// For its owner and a group.
    pub(crate) fn of_group(group: u32) -> Self {
        Self { mode: 0o660, group: Some(group) }
    }

    /// Gives it to a new file that nobody else knows yet, whatever the umask was.
    pub(crate) fn give(self, file: &File) -> io::Result<()> {
        let facts = file.metadata()?;
        if let Some(group) = self.group.filter(|group| *group != facts.gid()) {
            fchown(file, None, Some(group))?;
        }
        if facts.mode() & ALL_BITS != self.mode {
            file.set_permissions(Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }

    /// Whether a file in a namespace is as this says; if not, what it is. In a group's namespace its owner may be any member.
    pub(crate) fn admits(self, facts: &Metadata) -> Result<(), String> {
        let owned = match self.group {
            None => facts.uid() == sys::effective_user(),
            Some(group) => facts.gid() == group,
        };
        let open = facts.mode() & 0o077 & !self.mode;
        if owned && open == 0 { Ok(()) } else { Err(describe(facts)) }
    }

    /// The same for a file that somebody chose by its path: it may be this user's or root's, or the stated group's. Who else may read it is its owner's
    /// affair; who else could write to it, or cut it short, is not.
    pub(crate) fn admits_file(self, facts: &Metadata) -> Result<(), String> {
        let owned = match self.group {
            None => [0, sys::effective_user()].contains(&facts.uid()),
            Some(group) => facts.gid() == group,
        };
        let open = facts.mode() & 0o022 & !self.mode;
        if owned && open == 0 { Ok(()) } else { Err(describe(facts)) }
    }
}

/// The bits of a mode that can be given.
const ALL_BITS: u32 = 0o7777;

/// Whose it is, for an error.
pub(crate) fn describe(facts: &Metadata) -> String {
    format!(
        "it belongs to user {} and group {}, mode {:o}; this is user {}",
        facts.uid(),
        facts.gid(),
        facts.mode() & ALL_BITS,
        sys::effective_user()
    )
}
