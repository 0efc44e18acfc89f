//! What a spawned process knows about itself.

use std::sync::OnceLock;

/// Set in a child before its function is called.
#[derive(Debug)]
pub(crate) struct ThisProcess {
    pub(crate) parent: u32,
    pub(crate) name: Option<String>,
}

pub(crate) static THIS_PROCESS: OnceLock<ThisProcess> = OnceLock::new();

/// Returns the id of the process that spawned this one; `None` in a program that
/// [`Process::spawn`](crate::Process::spawn) did not start. The parent may have ended since.
///
/// ```
/// assert_eq!(multiproc_process::parent_pid(), None);
/// ```
pub fn parent_pid() -> Option<u32> {
    THIS_PROCESS.get().map(|this| this.parent)
}

/// Returns the name that [`Builder::name`](crate::Builder::name) gave this process; `None` in a process that
/// has no name or was not spawned.
///
/// ```
/// assert_eq!(multiproc_process::name(), None);
/// ```
pub fn name() -> Option<&'static str> {
    THIS_PROCESS.get().and_then(|this| this.name.as_deref())
}
