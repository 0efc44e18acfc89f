//! Objects in a namespace.

use super::{Options, Params, either};
use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::name::Name;
use crate::namespace::Namespace;
use crate::segment::{Expected, Plan, Segment};
use crate::shared::{Object, Shared, checked_extents};

/// In a namespace, by name.
impl Options {
    /// Makes an anonymous object, for handles in arguments and messages.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the parameters are invalid, or if there is no space.
    pub fn anonymous<H: Handle>(&self, params: Params<H>) -> Result<H, Error> {
        self.make::<H>(&self.chosen_namespace()?, None, params)?
            .ok_or_else(|| Error::new(ErrorKind::AlreadyExists, "create", H::Object::KIND))
    }

    /// Makes a named object. The name must not be in use.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or in use, if the parameters are invalid, or if there is no
    /// space.
    pub fn create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error> {
        let name = Name::chosen(name, "create")?;
        self.make::<H>(&self.chosen_namespace()?, Some(&name), params)?.ok_or_else(|| {
            Error::new(ErrorKind::AlreadyExists, "create", format_args!("{} {name}", H::Object::KIND))
        })
    }

    /// Finds an object, which must exist.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or not in use, or if the object is another one than expected.
    /// Then the error names both.
    pub fn open<H: Handle>(&self, name: &str) -> Result<H, Error> {
        let name = Name::chosen(name, "open")?;
        self.find::<H>(&self.chosen_namespace()?, &name, None)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "open", format_args!("{} {name}", H::Object::KIND))
        })
    }

    /// Finds an object, or makes it. If several processes do this at the same time, one makes the object and
    /// all get that one.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`](Self::open) and [`create`](Self::create), and
    /// [`Mismatch`](ErrorKind::Mismatch) if the object was made with other parameters.
    pub fn open_or_create<H: Handle>(&self, name: &str, params: Params<H>) -> Result<H, Error>
    where
        Params<H>: Clone,
    {
        let name = Name::chosen(name, "open")?;
        let namespace = self.chosen_namespace()?;
        let shown = format!("{} {name}", H::Object::KIND);
        let extents = checked_extents::<H::Object>(&params, &name.to_string())?;
        either(
            &shown,
            || self.find(&namespace, &name, Some(extents)),
            || self.make(&namespace, Some(&name), params.clone()),
        )
    }

    /// Removes a name at once. Existing handles keep the object.
    ///
    /// # Errors
    ///
    /// Returns [`Error`] if the name is bad or not in use.
    pub fn unlink(&self, name: &str) -> Result<(), Error> {
        let name = Name::chosen(name, "unlink")?;
        self.chosen_namespace()?.unlink(&name, "unlink")
    }

    fn chosen_namespace(&self) -> Result<Namespace, Error> {
        self.namespace.clone().map_or_else(Namespace::current, Ok)
    }

    /// Mode and group of an object in this namespace.
    fn access(&self, namespace: &Namespace, operation: &'static str) -> Result<Access, Error> {
        let default = namespace.access();
        let access = Access { mode: self.mode.unwrap_or(default.mode), group: self.group.or(default.group) };
        if access.group == default.group && [0o600, default.mode].contains(&access.mode) {
            return Ok(access);
        }
        let allowed = match default.group {
            None => "objects in it are 0600; others share one that `Namespace::shared` made".to_owned(),
            Some(group) => format!("objects in it are 0600 or 0660, and group {group}'s"),
        };
        Err(Error::new(ErrorKind::Invalid, operation, namespace.path().display()).with_detail(allowed))
    }

    fn make<H: Handle>(
        &self,
        namespace: &Namespace,
        name: Option<&Name>,
        params: Params<H>,
    ) -> Result<Option<H>, Error> {
        let shown =
            name.map_or_else(|| H::Object::KIND.to_owned(), |name| format!("{} {name}", H::Object::KIND));
        let extents = checked_extents::<H::Object>(&params, &shown)?;
        let element = H::Object::element();
        let plan = Plan {
            persistent: self.persistent,
            access: self.access(namespace, "create")?,
            huge_pages: self.huge_pages,
            ..Shared::<H::Object>::plan(&element, extents, &shown)?
        };
        let made = Segment::create(
            namespace,
            name,
            plan,
            Shared::<H::Object>::HELD_HERE,
            Shared::<H::Object>::fill(params),
        )?;
        made.map(|segment| self.finished(Shared::new(segment))).transpose()
    }

    fn find<H: Handle>(
        &self,
        namespace: &Namespace,
        name: &Name,
        extents: Option<[u64; 2]>,
    ) -> Result<Option<H>, Error> {
        let element = H::Object::element();
        let shown = format!("{} {name}", H::Object::KIND);
        let expected = Expected { extents, ..Shared::<H::Object>::expected(&element, &shown)? };
        let access = self.access(namespace, "open")?;
        let found = Segment::open(namespace, name, access, expected, Shared::<H::Object>::HELD_HERE)?;
        found.map(|segment| self.finished(Shared::new(segment))).transpose()
    }
}
