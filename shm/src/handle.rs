//! [`Handle`]: what the verbs make.

use crate::error::{Error, ErrorKind};
use crate::shared::{Object, Shared};

/// A public type around a [`Shared`] object, so that [`Options`](crate::Options) can make it.
pub trait Handle: Sized {
    /// What it is a handle to.
    type Object: Object;

    /// Wraps the object.
    fn from_shared(shared: Shared<Self::Object>) -> Self;

    /// The object: where it is, how large. `None` for a block of somebody else's ([`SharedMemory`](crate::SharedMemory)).
    fn shared(&self) -> Option<&Shared<Self::Object>>;

    /// Writes what has changed in an ordinary file to its disk: [`Shared::sync`].
    ///
    /// # Errors
    ///
    /// [`Error`]: it is in no file, or the disk fails.
    fn sync(&self) -> Result<(), Error> {
        let nowhere =
            || Error::new(ErrorKind::Unsupported, "sync", Self::Object::KIND).with_detail("it is somebody else's block");
        self.shared().ok_or_else(nowhere)?.sync()
    }
}
