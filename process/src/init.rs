//! [`init`], the first line of `main`, and its replacement in tests.

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

/// Makes this program able to start processes and to run as a child: call it as the first line of `main`.
///
/// In a child that [`Process::spawn`](crate::Process::spawn) started it does not return: it runs the function
/// and exits. In every other process it returns at once. Each child therefore repeats what `main` does before
/// this line. There must be no other threads yet, since the child changes its environment here.
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

/// The body of the test that [`test_support!`](crate::test_support) defines. The argument only keeps the mark
/// in the program.
#[doc(hidden)]
pub fn __child_entry(mark: &'static str) {
    hint::black_box(mark);
    become_child_if_marked();
}

/// Lets the tests of a crate start processes: libtest's `main` does not call [`init`].
///
/// Write it once in each test program, anywhere outside of a function: at the top of `tests/*.rs`, or in a
/// `#[cfg(test)] mod tests`. It defines a test, `multiproc_child_entry`, which passes when it is run. A child
/// is the test program started again with this test alone, which then does what [`init`] does. Works under
/// `cargo test` and `cargo nextest`. The function runs on libtest's thread for that test, whose stack is
/// smaller than the main thread's.
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
        /// The entry point of the children that this program's tests start. In the test program itself it
        /// does nothing.
        #[cfg(test)]
        #[test]
        fn multiproc_child_entry() {
            static MARK: &str = concat!(
                "\u{1}multiproc: children begin at \u{1}",
                module_path!(),
                "::multiproc_child_entry\u{2}"
            );
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
    /// Returns [`SpawnError::NotInitialised`] if there is none.
    pub(crate) fn of(image: &Image, function: &'static str) -> Result<Self, SpawnError> {
        static TEST: OnceLock<Option<&str>> = OnceLock::new();
        // A child that does not call `init` must not start children that do not call it either.
        if env::var_os(MARKER).is_some() {
            return Err(SpawnError::NotInitialised { function });
        }
        if INITIALISED.load(Ordering::Relaxed) {
            return Ok(Self::Main);
        }
        TEST.get_or_init(|| test_entry(image)).map(Self::Test).ok_or(SpawnError::NotInitialised { function })
    }
}

/// Returns the name of the test that [`test_support!`] has defined. No code runs before the first test, so
/// the macro cannot register the test; it has put a mark into the program instead.
fn test_entry(image: &Image) -> Option<&'static str> {
    let mark = hint::black_box(INVERTED_MARK).map(|byte| !byte);
    let path = image.text_after(&mark, END_OF_PATH)?;
    // libtest omits the name of the crate.
    path.split_once("::").map(|(_, path)| path)
}

/// The mark that [`test_support!`] writes before the path, with every byte inverted. This code must not hold
/// the mark as it is, or the search would find it here.
const INVERTED_MARK: [u8; 31] = inverted(b"\x01multiproc: children begin at \x01");
/// The byte that [`test_support!`] writes after the path.
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

static INITIALISED: AtomicBool = AtomicBool::new(false);

fn become_child_if_marked() {
    let Some(text) = env::var_os(MARKER) else { return };
    sys::remove_variable(MARKER);
    let marker = text.to_str().and_then(Marker::from_text);
    // Without the socket the variable was inherited from a child that does not call `init`: this is an
    // ordinary program.
    if let Some(marker) = marker.filter(|_| sys::is_control_socket(io::stdin().as_fd())) {
        child::run_and_exit(marker);
    }
}

#[cfg(test)]
mod tests {
    // In a module, not at the top of the crate: the path of the test matters.
    crate::test_support!();

    #[test]
    fn test_support_works_in_any_module() -> Result<(), Box<dyn std::error::Error>> {
        let child = crate::Process::spawn(|()| std::env::args().nth(2), ())?;
        assert_eq!(child.join()?.value().flatten().as_deref(), Some("init::tests::multiproc_child_entry"));
        Ok(())
    }
}
