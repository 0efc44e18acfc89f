//! The verbs that all types have: make, find, take the name away.

/// `verbs!(Type, Block, "what it is called")`, and, of a type that is made with numbers: `(parameter: type, …), "what may be wrong with them"`.
macro_rules! verbs {
    ($type:ident, $block:ident, $what:literal) => {
        verbs!(@all $type, $block, $what, (), "");
    };
    ($type:ident, $block:ident, $what:literal, ($($parameter:ident: $kind:ty),+), $wrong:literal) => {
        verbs!(@all $type, $block, $what, ($($parameter: $kind),+), $wrong);
    };
    (@all $type:ident, $block:ident, $what:literal, ($($parameter:ident: $kind:ty),*), $wrong:literal) => {
        impl $type {
            /// Makes one without a name, for handles in arguments and messages.
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): ", $wrong, "no space.")]
            pub fn new($($parameter: $kind),*) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().anonymous(($($parameter),*))
            }

            #[doc = concat!("Makes a named ", $what, ", which must not exist.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): the name is bad or in use; ", $wrong, "no space.")]
            pub fn create(name: &str $(, $parameter: $kind)*) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().create(name, ($($parameter),*))
            }

            #[doc = concat!("Finds a named ", $what, ", which must exist.")]
            ///
            /// # Errors
            ///
            #[doc = concat!("[`Error`](crate::Error): nobody uses the name, or it is no ", $what, ".")]
            pub fn open(name: &str) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().open(name)
            }

            #[doc = concat!("Finds a named ", $what, ", or makes it.")]
            ///
            /// # Errors
            ///
            #[doc = concat!(
                "[`Error`](crate::Error): the name is bad; it is no ", $what, ", or one that was made with other numbers; ", $wrong, "no space."
            )]
            pub fn open_or_create(name: &str $(, $parameter: $kind)*) -> Result<Self, multiproc_shm::Error> {
                multiproc_shm::Options::new().open_or_create(name, ($($parameter),*))
            }

            /// Takes a name away at once; those who have handles keep what it was the name of.
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

        impl multiproc_shm::Handle for $type {
            type Object = $block;

            fn from_shared(shared: multiproc_shm::Shared<$block>) -> Self {
                Self { shared }
            }

            fn shared(&self) -> Option<&multiproc_shm::Shared<$block>> {
                Some(&self.shared)
            }
        }
    };
}

pub(crate) use verbs;
