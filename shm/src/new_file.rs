//! [`NewFile`]: a file that gets its name when it is complete.

use std::ffi::CStr;
use std::fs::File;
use std::io;

use crate::error::{Error, ErrorKind};
use crate::name::Name;
use crate::sys;

/// A new file, locked shared, that no other process uses. It has no name (`O_TMPFILE`); where the file system
/// needs one, it has a temporary name. Dropped without [`publish`](Self::publish), the file disappears.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    pub(crate) file: File,
    directory: &'a File,
    temporary: Option<Name>,
}

impl<'a> NewFile<'a> {
    /// Makes the file. `lock` keeps a sweep out between the time when a temporary name appears and the lock
    /// on the file.
    pub(crate) fn make<L>(
        directory: &'a File,
        shown: &str,
        lock: impl FnOnce() -> Result<L, Error>,
    ) -> Result<Self, Error> {
        let operation = "create";
        let failed = |error| Error::os(operation, shown, error);
        let (new, _lock) = match sys::open_unnamed(directory) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let name = Name::temporary(operation)?;
                let lock = lock()?;
                let file = sys::create_at(directory, name.as_c_str()).map_err(failed)?;
                (Self { file, directory, temporary: Some(name) }, Some(lock))
            }
            result => (Self { file: result.map_err(failed)?, directory, temporary: None }, None),
        };
        if sys::lock_file(&new.file, false).map_err(failed)? {
            Ok(new)
        } else {
            Err(Error::new(ErrorKind::Busy, operation, shown))
        }
    }

    /// Gives the file its name, in one step, unless the name is in use.
    pub(crate) fn publish(&mut self, name: &CStr) -> io::Result<()> {
        // CRASH: before this call the name does not exist. A temporary one may exist, which a sweep removes
        // in a namespace and which stays elsewhere. After this call the name means a complete object.
        match &self.temporary {
            None => sys::give_name(&self.file, self.directory, name)?,
            Some(temporary) => sys::rename_new(self.directory, temporary.as_c_str(), name)?,
        }
        self.temporary = None;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.temporary {
            let _ = sys::remove_at(self.directory, name.as_c_str());
        }
    }
}
