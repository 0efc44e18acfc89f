//! `verbs!`: the functions that every type of named objects has, written once.

/// Writes `new`, `create`, `open`, `open_or_create` and `unlink` of a handle type; and `name`, `Handle` and
/// `Clone`.
///
/// ```text
/// multiproc_shm::verbs! {
///     impl[T: Pod] Array<T> { shared: ArrayBlock<T> }; // struct Array<T> { shared: Shared<ArrayBlock<T>> }
///     "array" "of `length` zeros"; new(length: usize) => length; // `=>`: `Params` of the block
///     /// Its length is what its maker chose.
///     open;
///     invalid "`length` is too large"; other "its elements are of another type";
///     differs "it has another length";
/// }
/// ```
///
/// All after the second line is optional. `invalid`, `other` and `differs` are reasons to fail beside the
/// general ones: when an object is made, when it is found, when `open_or_create` finds it. Doc comments
/// before `new` and `open;` are added to those of the two functions. With empty braces, `name`, `Handle` and
/// `Clone` are left out.
#[doc(hidden)]
#[macro_export]
macro_rules! verbs {
    (
        impl[$($generics:tt)*] $type:ty { $($shared:tt)* };
        $what:literal $($made:literal)?;
        $(#[$new:meta])*
        new($($parameter:ident: $kind:ty),*) => $params:expr;
        $($(#[$open:meta])+ open;)?
        $(invalid $invalid:literal;)?
        $(other $other:literal;)?
        $(differs $differs:literal;)?
    ) => {
        impl<$($generics)*> $type {
            #[doc = concat!(
                "Makes an anonymous ", $what $(, " ", $made)?, ", for handles in arguments and messages."
            )]
            $(#[$new])*
            ///
            /// # Errors
            ///
            #[doc = concat!(
                "Returns [`Error`](crate::Error) if ", $($invalid, ", or if ",)? "there is no space."
            )]
            pub fn new($($parameter: $kind),*) -> Result<Self, $crate::Error> {
                $crate::Options::new().anonymous($params)
            }

            #[doc = concat!("Makes a named ", $what $(, " ", $made)?, ". The name must not be in use.")]
            ///
            /// # Errors
            ///
            #[doc = concat!(
                "Returns [`Error`](crate::Error) if the name is bad or in use, ",
                $("if ", $invalid, ", ",)? "or if there is no space."
            )]
            pub fn create(name: &str $(, $parameter: $kind)*) -> Result<Self, $crate::Error> {
                $crate::Options::new().create(name, $params)
            }

            #[doc = concat!("Finds a named ", $what, ", which must exist.")]
            $($(#[$open])+)?
            ///
            /// # Errors
            ///
            #[doc = concat!(
                "Returns [`Error`](crate::Error) if the name is bad or not in use, ",
                "or if the object is of another kind", $(", or if ", $other,)? "."
            )]
            pub fn open(name: &str) -> Result<Self, $crate::Error> {
                $crate::Options::new().open(name)
            }

            #[doc = concat!("Finds a named ", $what, ", or makes one" $(, " ", $made)?, ".")]
            ///
            /// If several processes do this at the same time, one makes the object and all get that one.
            ///
            /// # Errors
            ///
            #[doc = concat!(
                "Returns [`Error`](crate::Error) if the name is bad, if the object is of another kind, ",
                $("if ", $other, ", ",)? $("if ", $differs, ", ",)? $("if ", $invalid, ", ",)?
                "or if there is no space."
            )]
            pub fn open_or_create(name: &str $(, $parameter: $kind)*) -> Result<Self, $crate::Error> {
                $crate::Options::new().open_or_create(name, $params)
            }

            #[doc = concat!("Removes a name at once. Existing handles keep the ", $what, ".")]
            ///
            /// # Errors
            ///
            /// Returns [`Error`](crate::Error) if the name is bad or not in use.
            pub fn unlink(name: &str) -> Result<(), $crate::Error> {
                $crate::Options::new().unlink(name)
            }
        }

        $crate::verbs!(@handle [$($generics)*] $type, { $($shared)* });
    };
    (@handle [$($generics:tt)*] $type:ty, {}) => {};
    (@handle [$($generics:tt)*] $type:ty, { shared: $block:ty }) => {
        impl<$($generics)*> $type {
            /// Returns its name; `None` for an anonymous object.
            pub fn name(&self) -> Option<&str> {
                self.shared.name()
            }
        }

        impl<$($generics)*> $crate::Handle for $type {
            type Object = $block;

            fn from_shared(shared: $crate::Shared<$block>) -> Self {
                Self { shared }
            }

            fn shared(&self) -> Option<&$crate::Shared<$block>> {
                Some(&self.shared)
            }
        }

        impl<$($generics)*> Clone for $type {
            fn clone(&self) -> Self {
                Self { shared: self.shared.clone() }
            }
        }
    };
}
