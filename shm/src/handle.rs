//! [`Handle`]: a public type around a shared object.

use crate::error::{Error, ErrorKind};
use crate::shared::{Object, Shared};

/// A public type around a [`Shared`] object, which [`Options`](crate::Options) makes and finds.
pub trait Handle: Sized {
    /// The type of the object.
    type Object: Object;

    /// Makes a handle from the object.
    fn from_shared(shared: Shared<Self::Object>) -> Self;

    /// Returns the object. `None` for a block that Python or C made
    /// ([`SharedMemory::attach_os`](crate::SharedMemory)).
    fn shared(&self) -> Option<&Shared<Self::Object>>;

    /// Writes changes in an ordinary file to its disk, as [`Shared::sync`] does.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the object is not in an ordinary file, or if the disk fails.
    fn sync(&self) -> Result<(), Error> {
        let foreign = || {
            Error::new(ErrorKind::Unsupported, "sync", Self::Object::KIND).with_detail("it was not made here")
        };
        self.shared().ok_or_else(foreign)?.sync()
    }
}
