//! The program's own image: the name of a function that is valid in every process of the program, and the way
//! back.
//!
//! The child is another process of the same file, loaded at another address. A function travels as its offset
//! from where the image begins; that means something only in the same image, so the image's [`Identity`]
//! travels along.
//!
//! # What this module guarantees
//!
//! [`Image::function`] makes a function pointer only of a [`FunctionName`] that is whole, was made in this
//! image for a function of the same type name, and lies in the image's code. Names are made of functions
//! only, so that function lies there. The guarantee covers mistakes (another build, another loader, a damaged
//! message), not a parent that forges names: a process that may start this one may as well trace it.
#![allow(unsafe_code, reason = "an offset that has been checked becomes a function pointer again")]

use std::any;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::mem;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::error::SpawnError;
use crate::sys;

/// The file of this program, whatever has been done to its name since it was started.
pub(crate) const EXECUTABLE: &str = "/proc/self/exe";

/// The main program as it lies in memory.
#[derive(Debug)]
pub(crate) struct Image {
    identity: Identity,
    base: usize,
    executable: Vec<Range<usize>>,
    constant: Vec<Range<usize>>,
}

/// Identifies a program's file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Identity {
    /// The linker's hash over the whole of the file.
    BuildId(Vec<u8>),
    /// Used where the linker left no build-id. A file cannot be written to while it runs, so these identify
    /// it as well.
    File { device: u64, inode: u64, size: u64, seconds: i64, nanoseconds: i64 },
}

/// A function of one image, as it is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FunctionName {
    identity: Identity,
    /// The distance from the beginning of the image.
    offset: u64,
    /// A hash of the name of the function's type.
    types: u64,
    /// A hash of all of the above.
    seal: u64,
}

impl Image {
    /// Returns the image of this process, which is read once.
    pub(crate) fn of_this_process() -> Result<&'static Self, SpawnError> {
        static IMAGE: OnceLock<Image> = OnceLock::new();
        if let Some(image) = IMAGE.get() {
            return Ok(image);
        }
        let image = Self::read(Path::new(EXECUTABLE))?;
        Ok(IMAGE.get_or_init(|| image))
    }

    /// `executable` is [`EXECUTABLE`], except in tests.
    fn read(executable: &Path) -> Result<Self, SpawnError> {
        let no_proc = |source| SpawnError::NoProc { path: executable.into(), source };
        let file = fs::metadata(executable).map_err(no_proc)?;
        let raw = sys::main_image().ok_or_else(|| no_proc(io::Error::from(io::ErrorKind::NotFound)))?;
        let identity = raw.build_id.map_or_else(
            || Identity::File {
                device: file.dev(),
                inode: file.ino(),
                size: file.size(),
                seconds: file.mtime(),
                nanoseconds: file.mtime_nsec(),
            },
            Identity::BuildId,
        );
        Ok(Self { identity, base: raw.base, executable: raw.executable, constant: raw.constant })
    }

    /// Returns the name of a function; `None` if it is not in the code of the main program.
    pub(crate) fn name<F: Copy>(&self, function: F) -> Option<FunctionName> {
        const { assert!(size_of::<F>() == size_of::<usize>()) };
        // SAFETY: the sizes are equal, and any address is a valid usize.
        let address = unsafe { mem::transmute_copy::<F, usize>(&function) };
        if !self.is_code(address) {
            return None;
        }
        let (offset, types) = (address.wrapping_sub(self.base) as u64, hash(any::type_name::<F>()));
        let seal = hash((&self.identity, offset, types));
        Some(FunctionName { identity: self.identity.clone(), offset, types, seal })
    }

    /// Returns the function of a name, or why the name is refused.
    pub(crate) fn function<F: Copy>(&self, name: &FunctionName) -> Result<F, &'static str> {
        const { assert!(size_of::<F>() == size_of::<*const ()>()) };
        if name.identity != self.identity {
            return Err("this process runs another build of the program");
        }
        if name.seal != hash((&name.identity, name.offset, name.types)) {
            return Err("the name of the function arrived damaged");
        }
        if name.types != hash(any::type_name::<F>()) {
            return Err("the function has another type in this process");
        }
        let address = usize::try_from(name.offset).map_or(0, |offset| self.base.wrapping_add(offset));
        if !self.is_code(address) {
            return Err("there is no code at the place of the function");
        }
        let code = ptr::with_exposed_provenance::<()>(address);
        // SAFETY: `Image::name` made this offset from a function of this type in this image.
        Ok(unsafe { mem::transmute_copy::<*const (), F>(&code) })
    }

    fn is_code(&self, address: usize) -> bool {
        self.executable.iter().any(|range| range.contains(&address))
    }

    /// Returns the text after `mark` in the constants of the main program, up to the next byte `end`.
    pub(crate) fn text_after(&self, mark: &[u8], end: u8) -> Option<&'static str> {
        let text = self.constant.iter().find_map(|range| sys::find(range, mark))?;
        let length = text.iter().position(|&byte| byte == end)?;
        std::str::from_utf8(&text[..length]).ok()
    }
}

/// Hashes to the same number in every process of one image.
fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// Returns the name under which this program was started.
pub(crate) fn first_argument() -> OsString {
    std::env::args_os().next().unwrap_or_else(|| EXECUTABLE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Doubles = fn(u32) -> u32;

    fn double(number: u32) -> u32 {
        number * 2
    }

    fn here() -> (&'static Image, FunctionName) {
        let image = Image::of_this_process().expect("there is /proc");
        (image, image.name(double as Doubles).expect("it is in the main program"))
    }

    #[test]
    fn function_of_a_name_is_the_named_function() {
        let (image, name) = here();
        assert_eq!(image.function::<Doubles>(&name).expect("nothing differs")(21), 42);
    }

    #[test]
    fn only_code_has_a_name() {
        let (image, _) = here();
        assert_eq!(image.name(0_usize), None);
        assert_eq!(image.name(ptr::from_ref(image)), None);
        assert_eq!(image.name("a constant".as_ptr()), None);
        assert_eq!(image.name(sys::tests::a_function_of_the_c_library()), None);
    }

    #[test]
    fn name_that_differs_is_refused() {
        let (image, name) = here();
        let refused = |name: &FunctionName| image.function::<Doubles>(name).err();
        let other_build = FunctionName { identity: Identity::BuildId(vec![1, 2, 3]), ..name.clone() };
        assert!(refused(&other_build).is_some_and(|why| why.contains("build")));
        assert!(image.function::<fn(u64) -> u64>(&name).is_err_and(|why| why.contains("type")));
        let damaged = FunctionName { offset: name.offset + 1, ..name.clone() };
        assert!(refused(&damaged).is_some_and(|why| why.contains("damaged")));
        let mut elsewhere = FunctionName { offset: u64::MAX / 2, ..name };
        elsewhere.seal = hash((&elsewhere.identity, elsewhere.offset, elsewhere.types));
        assert!(refused(&elsewhere).is_some_and(|why| why.contains("no code")));
    }

    #[test]
    fn without_proc_there_is_no_image() {
        let error = Image::read(Path::new("/proc/none/exe")).expect_err("there is no such process");
        assert!(matches!(error, SpawnError::NoProc { .. }), "{error:?}");
        assert!(error.to_string().contains("/proc/none/exe"), "{error}");
    }
}
