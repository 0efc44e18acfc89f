//! The verbs that a [`Queue`](crate::Queue) and a [`JoinableQueue`](crate::JoinableQueue) have like every other type: make, find, take the name away.

/// `verbs!(Type, Block, "what it is called", parameter: what it is made from)`.
macro_rules! verbs {
    ($type:ident, $block:ident, $what:literal, $parameter:ident: $limits:ty) => {
        impl<T: ?Sized + 'static> $type<T> {
            /// Makes one without a name, for handles in arguments and messages.
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): a ", stringify!($parameter), " that cannot be; no space.")]
            pub fn new($parameter: impl Into<$limits>) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().anonymous($parameter.into())
            }

            #[doc = concat!("Makes a named ", $what, ", which must not exist.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): the name is bad or in use; a ", stringify!($parameter), " that cannot be; no space.")]
            pub fn create(name: &str, $parameter: impl Into<$limits>) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().create(name, $parameter.into())
            }

            #[doc = concat!("Finds a named ", $what, ", which must exist.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): nobody uses the name; it is no ", $what, ", or one of other messages.")]
            pub fn open(name: &str) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().open(name)
            }

            #[doc = concat!("Finds a named ", $what, ", or makes it.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): the name is bad; it is no ", $what, ", or one of other messages or ", stringify!($parameter), "; no space.")]
            pub fn open_or_create(name: &str, $parameter: impl Into<$limits>) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().open_or_create(name, $parameter.into())
            }

            /// Takes a name away at once; those who have handles keep the queue.
            ///
            /// # Errors
            ///
            /// [`Error`](crate::Error): the name is bad or not in use.
            pub fn unlink(name: &str) -> Result<(), multiproc_shm::Error> {
                multiproc_shm::Options::new().unlink(name)
            }

            /// Its name; `None` for an anonymous one.
            pub fn name(&self) -> Option<&str> {
                self.shared.name()
            }
        }

        impl<T: ?Sized + 'static> multiproc_shm::Handle for $type<T> {
            type Object = $block<T>;

            fn from_shared(shared: multiproc_shm::Shared<$block<T>>) -> Self {
                Self { shared }
            }

            fn shared(&self) -> Option<&multiproc_shm::Shared<$block<T>>> {
                Some(&self.shared)
            }
        }

        impl<T: ?Sized + 'static> Clone for $type<T> {
            fn clone(&self) -> Self {
                Self { shared: self.shared.clone() }
            }
        }
    };
}

pub(crate) use verbs;
