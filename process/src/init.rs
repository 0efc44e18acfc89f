//! The first line of `main`, and what a process knows about itself.

use std::env;
use std::hint;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::child;
use crate::error::SpawnError;
use crate::handoff::{MARKER, Marker};
use crate::image::Image;
use crate::sys;

/// Makes this program able to start processes, and to be one: call it as the first line of `main`.
///
/// In a program that somebody started it returns at once. In a child that [`Process::spawn`](crate::Process::spawn) started it does not
/// return: it runs the function and exits. Whatever `main` does before this line is therefore done again in each child; and since the
/// child changes its environment here, there must be no other threads yet.
///
/// Tests have no `main` of their own: see [`test_support!`](crate::test_support).
///
/// ```
/// use multiproc_process::{Exit, Process};
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     multiproc_process::init();
///
///     let child = Process::spawn(|number: u64| number * 2, 21)?;
///     assert_eq!(child.join()?, Exit::Value(42));
///     Ok(())
/// }
/// ```
pub fn init() {
    INITIALISED.store(true, Ordering::Relaxed);
    become_child_if_marked();
}

/// The process that spawned this one; `None` in a program that somebody started. It may have ended since.
///
/// ```
/// assert_eq!(multiproc_process::parent_pid(), None);
/// ```
pub fn parent_pid() -> Option<u32> {
    MYSELF.get().map(|myself| myself.parent)
}

/// What [`Builder::name`](crate::Builder::name) called this process; `None` in one without a name, or that was not spawned.
///
/// ```
/// assert_eq!(multiproc_process::name(), None);
/// ```
pub fn name() -> Option<&'static str> {
    MYSELF.get().and_then(|myself| myself.name.as_deref())
}

/// The body of the test that [`test_support!`](crate::test_support) defines. It needs the mark only to be part of the program.
#[doc(hidden)]
pub fn __child_entry(mark: &'static str) {
    hint::black_box(mark);
    become_child_if_marked();
}

/// Lets the tests of a crate start processes: libtest brings its own `main`, which knows nothing of [`init`].
///
/// Write it once in each test program, anywhere outside of a function: at the top of `tests/*.rs`, or in a `#[cfg(test)] mod tests`. It
/// defines a test, `multiproc_child_entry`, which passes when it is run; a child is the test program again with this test alone, which
/// then does what [`init`] does. Works under `cargo test` and `cargo nextest`. The function runs on libtest's thread for that test, with
/// the smaller stack of such a thread.
///
/// ```test_harness
/// multiproc_process::test_support!();
///
/// #[test]
/// fn doubles() -> Result<(), Box<dyn std::error::Error>> {
///     let child = multiproc_process::Process::spawn(|number: u64| number * 2, 21)?;
///     assert_eq!(child.join()?, multiproc_process::Exit::Value(42));
///     Ok(())
/// }
/// ```
#[macro_export]
macro_rules! test_support {
    () => {
        /// Where the children of this program's tests begin; in the program itself it does nothing.
        #[cfg(test)]
        #[test]
        fn multiproc_child_entry() {
            static MARK: &str =
                concat!("\u{1}multiproc: children begin at \u{1}", module_path!(), "::multiproc_child_entry\u{2}");
            $crate::__child_entry(MARK);
        }
    };
}

/// How this program can be started again as a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryPoint {
    /// By its `main`.
    Main,
    /// By libtest, with this test.
    Test(&'static str),
}

impl EntryPoint {
    /// # Errors
    ///
    /// [`SpawnError::NotInitialised`] when there is none.
    pub(crate) fn of(image: &Image, function: &'static str) -> Result<Self, SpawnError> {
        static TEST: OnceLock<Option<&str>> = OnceLock::new();
        // A child that passed by `init` must not start children that do the same.
        if env::var_os(MARKER).is_some() {
            return Err(SpawnError::NotInitialised { function });
        }
        if INITIALISED.load(Ordering::Relaxed) {
            return Ok(Self::Main);
        }
        TEST.get_or_init(|| test_entry(image)).map(Self::Test).ok_or(SpawnError::NotInitialised { function })
    }
}

/// The name of the test that [`test_support!`] has defined. Nothing runs before the first test, so the macro cannot announce itself; but it
/// has put a mark into the program.
fn test_entry(image: &Image) -> Option<&'static str> {
    let mark = hint::black_box(INVERTED_MARK).map(|byte| !byte);
    let path = image.text_after(&mark, END_OF_PATH)?;
    // libtest leaves the name of the crate away.
    path.split_once("::").map(|(_, path)| path)
}

/// What [`test_support!`] writes before the path, byte by byte inverted: as it is, it must not be in this code, which would find itself.
const INVERTED_MARK: [u8; 31] = inverted(b"\x01multiproc: children begin at \x01");
/// What it writes after the path.
const END_OF_PATH: u8 = 2;

const fn inverted<const LENGTH: usize>(text: &[u8; LENGTH]) -> [u8; LENGTH] {
    let mut inverted = *text;
    let mut at = 0;
    while at < LENGTH {
        inverted[at] = !inverted[at];
        at += 1;
    }
    inverted
}

/// Known in a child from the moment on in which the function is called.
#[derive(Debug)]
pub(crate) struct Myself {
    pub(crate) parent: u32,
    pub(crate) name: Option<String>,
}

pub(crate) static MYSELF: OnceLock<Myself> = OnceLock::new();
static INITIALISED: AtomicBool = AtomicBool::new(false);

fn become_child_if_marked() {
    let Some(text) = env::var_os(MARKER) else { return };
    sys::remove_variable(MARKER);
    let marker = text.to_str().and_then(Marker::from_text);
    // Without the socket the variable was inherited from a child that passed by `init`: this is an ordinary program.
    if let Some(marker) = marker.filter(|_| sys::is_handshake_socket(io::stdin().as_fd())) {
        child::live(marker);
    }
}

#[cfg(test)]
mod tests {
    // Not at the top of the crate, so that the path matters.
    crate::test_support!();

    #[test]
    fn children_of_tests_begin_in_any_module() -> Result<(), Box<dyn std::error::Error>> {
        let child = crate::Process::spawn(|()| std::env::args().nth(2), ())?;
        assert_eq!(child.join()?.value().flatten().as_deref(), Some("init::tests::multiproc_child_entry"));
        Ok(())
    }
}
