//! [`Shared`] in messages: its serde form, and how a receiver attaches to the object.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::header::InFlightReference;
use crate::name::Name;
use crate::namespace::{Namespace, Sharing};
use crate::segment::{Address, Expected, Segment};
use crate::shared::{Object, Shared};
use crate::transit;

/// Where the object of a handle in a message lives.
#[derive(Serialize, Deserialize)]
enum WireLocation {
    /// The default namespace of the receiver.
    Default,
    Directory(PathBuf),
    /// A directory that a group shares: group, owner of the directory.
    Shared(PathBuf, u32, u32),
    /// An ordinary file: path, mode, group.
    File(PathBuf, u32, Option<u32>),
}

/// A handle in a message. The reference is its index and id in the object's header.
#[derive(Serialize, Deserialize)]
struct Wire {
    location: WireLocation,
    name: String,
    generation: [u64; 2],
    reference: (u8, u64),
}

impl<T: Object> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let generation = self.segment().header.generation;
        let wire = match &self.segment().address {
            Address::Name(namespace, name) => {
                let path = || namespace.path().to_owned();
                let location = match namespace.sharing() {
                    Some(Sharing { group, owner }) => WireLocation::Shared(path(), group, owner),
                    None if namespace.is_default() => WireLocation::Default,
                    None => WireLocation::Directory(path()),
                };
                let reference = transit::reference_for(self.segment()).to_wire();
                Wire { location, name: name.as_str().to_owned(), generation, reference }
            }
            Address::File(path, access) => {
                let location = WireLocation::File(path.clone(), access.mode, access.group);
                Wire {
                    location,
                    name: String::new(),
                    generation,
                    reference: InFlightReference::NONE.to_wire(),
                }
            }
            Address::Memory => {
                let problem = format!(
                    "the {} was placed in memory: others attach to it there, by a region of their own",
                    T::KIND
                );
                return Err(serde::ser::Error::custom(problem));
            }
        };
        wire.serialize(serializer)
    }
}

impl<'de, T: Object> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        let shared: Self =
            attach(wire.location, &wire.name, wire.generation).map_err(serde::de::Error::custom)?;
        transit::received(shared.segment(), InFlightReference::from_wire(wire.reference));
        Ok(shared)
    }
}

/// Attaches to the object of a handle in a message.
fn attach<T: Object>(location: WireLocation, name: &str, generation: [u64; 2]) -> Result<Shared<T>, Error> {
    let element = T::element();
    let expected = Expected { generation: Some(generation), ..Shared::<T>::expected(&element, name)? };
    let namespace = match location {
        WireLocation::Default => Namespace::current()?,
        WireLocation::Directory(path) => Namespace::existing(path, None)?,
        WireLocation::Shared(path, group, owner) => {
            Namespace::existing(path, Some(Sharing { group, owner }))?
        }
        WireLocation::File(path, mode, group) => {
            let access = Access { mode, group };
            let found =
                Segment::open_file(&path, access, expected, Shared::<T>::HELD_HERE, Shared::<T>::repair)?;
            let stale =
                || Error::new(ErrorKind::Stale, "open", format_args!("{} {}", T::KIND, path.display()));
            return found.map(Shared::new).ok_or_else(stale);
        }
    };
    let name = Name::existing(name, "open")?;
    let found = Segment::open(&namespace, &name, namespace.access(), expected, Shared::<T>::HELD_HERE)?;
    found
        .map(Shared::new)
        .ok_or_else(|| Error::new(ErrorKind::Stale, "open", format_args!("{} {name}", T::KIND)))
}
