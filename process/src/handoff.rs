//! What parent and child say to each other, and on which line.
//!
//! | step | from | on | says |
//! |---|---|---|---|
//! | 1 | parent | the handshake socket | [`Call`]: which function, in which image, and where to meet |
//! | 2 | child | the handshake socket | [`Reply::Ready`]: the place of its one-shot server; or [`Reply::Refused`] |
//! | 3 | parent | the handshake socket | [`GO`], after it has connected to that server |
//! | 4 | parent | ipc-channel | [`Launch`]: the arguments, and the sender for the result |
//! | 5 | child | the handshake socket | [`Reply::Running`], once it has the arguments; or [`Reply::Refused`] |
//! | 6 | child | ipc-channel | [`Outcome`]: a value or a panic; nothing if it exits or dies |
//!
//! The handshake socket is one end of a socket pair, inherited as descriptor 0: it closes with either process, whatever kills it.
//!
//! # Why the child is the server, and not the parent
//!
//! ipc-channel makes no channel from a descriptor, so the two must meet at its `IpcOneShotServer`, and `accept` has no time-out. A
//! parent that accepts would wait for ever for a child that died on the way. Here the parent only connects, which never waits; and the
//! child accepts only after [`GO`], when the connection is in the queue already. So neither waits for the other except on the handshake
//! socket, where a death is an end of file.
//!
//! # Why no message is larger than a socket buffer
//!
//! ipc-channel cuts a larger message into pieces and sends them through a second channel of which it holds *both* ends meanwhile: when
//! the receiver dies half-way, the sender waits for ever. So [`Payload`] puts what is large into shared memory, and the message itself
//! always fits into the empty buffer of its socket. A child may leave its result and exit; nobody needs to drain anything.

use std::cell::RefCell;
use std::error::Error as _;
use std::io;
use std::marker::PhantomData;

use ipc_channel::ipc::{self, IpcSender, IpcSharedMemory};
use ipc_channel::{IpcError, SerDeError};
use multiproc_shm::Transit;
use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::image::FunctionName;
use crate::sys;

/// The environment variable that tells a program that it is a child. Its value is a [`Marker`].
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";

/// The byte that sends the child to its server.
pub(crate) const GO: &[u8] = b"go";

/// The longest message on the handshake socket.
pub(crate) const LONGEST: usize = 16 * 1024;

/// What is inherited through the environment: little, because a child that forgot `init` passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) parent: u32,
    /// In a test program: the descriptor with the real standard output.
    pub(crate) stdout: Option<i32>,
}

/// The parent's first words.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// An [`Entry`](crate::child::Entry): what decodes the arguments, calls the function and sends its result.
    pub(crate) entry: FunctionName,
    /// The function itself, of the type that `entry` knows.
    pub(crate) function: FunctionName,
    /// The directory for the one-shot server.
    pub(crate) meeting_place: Vec<u8>,
}

/// The child's answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The server's path below the meeting place.
    Ready { server: String },
    /// The function is about to be called.
    Running,
    /// It is not.
    Refused { arguments: bool, message: String },
}

/// The arguments, and what else the child should know.
#[derive(Serialize, Deserialize)]
#[serde(bound = "A: Serialize + DeserializeOwned, R: Serialize + DeserializeOwned")]
pub(crate) struct Launch<A, R> {
    pub(crate) name: Option<String>,
    pub(crate) daemon: bool,
    pub(crate) outcome: IpcSender<Outcome<R>>,
    pub(crate) arguments: Payload<A>,
}

/// How the function ended.
#[derive(Serialize, Deserialize)]
#[serde(bound = "R: Serialize + DeserializeOwned")]
pub(crate) enum Outcome<R> {
    Value(Payload<R>),
    Panic {
        message: String,
        location: Option<String>,
    },
    /// It returned a value that does not serialise.
    Unsendable(String),
}

/// A value that is encoded on its own, so that its size is known before it goes on the way.
pub(crate) struct Payload<T>(pub(crate) T);

/// A payload's bytes. What is small rides in the message.
#[derive(Serialize, Deserialize)]
enum Bytes {
    Here(Vec<u8>),
    InMemory(IpcSharedMemory),
}

/// Well below the smallest default size of a socket buffer that anybody runs with.
const SMALL: usize = 16 * 1024;

impl<T: Serialize> Serialize for Payload<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Handles, senders and receivers inside see the same thread-local lists as in any ipc-channel message: we are within its `send`.
        let bytes = postcard::to_stdvec(&self.0).map_err(|error| S::Error::custom(remember(&error)))?;
        let bytes = if bytes.len() <= SMALL { Bytes::Here(bytes) } else { Bytes::InMemory(IpcSharedMemory::from_bytes(&bytes)) };
        bytes.serialize(serializer)
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Payload<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = match Bytes::deserialize(deserializer)? {
            Bytes::Here(bytes) => postcard::from_bytes(&bytes),
            Bytes::InMemory(memory) => postcard::from_bytes(&memory),
        };
        value.map(Payload).map_err(|error| D::Error::custom(remember(&error)))
    }
}

thread_local! {
    /// Why the last payload failed: ipc-channel's error does not carry it.
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn remember(error: &postcard::Error) -> String {
    let text = error.to_string();
    FAILURE.set(Some(text.clone()));
    text
}

/// What serde said when a message could not be encoded or decoded.
pub(crate) fn describe(error: &SerDeError) -> String {
    FAILURE.take().unwrap_or_else(|| error.source().unwrap_or(error).to_string())
}

/// Why a message did not go out.
#[derive(Debug)]
pub(crate) enum SendError {
    /// A value does not serialise.
    Encoding(String),
    /// The other side is gone, or the kernel has no room.
    Os(io::Error),
}

/// Sends one message; the handles in it are in transit until it is out.
pub(crate) fn send<T: Serialize>(sender: &IpcSender<T>, message: T) -> Result<(), SendError> {
    // Where this gets its two descriptors, so does a large payload; ipc-channel would panic without.
    forget_stale_channels().map_err(SendError::Os)?;
    let clean_up = StaleAfterFailure(PhantomData);
    let transit = Transit::begin();
    match sys::without_sigpipe(|| sender.send(message)) {
        Ok(()) => {
            transit.sent();
            std::mem::forget(clean_up);
            Ok(())
        }
        Err(IpcError::SerializationError(error)) => Err(SendError::Encoding(describe(&error))),
        Err(IpcError::Io(error)) => Err(SendError::Os(error)),
        Err(IpcError::Disconnected) => Err(SendError::Os(io::Error::from(io::ErrorKind::BrokenPipe))),
    }
}

/// Runs [`forget_stale_channels`] after an error and after a panic in somebody's `Serialize`.
struct StaleAfterFailure(PhantomData<*const ()>);

impl Drop for StaleAfterFailure {
    fn drop(&mut self) {
        // What it leaves, the next `send` of this thread takes away, or does not send.
        let _ = forget_stale_channels();
    }
}

/// After a `send` whose message did not serialise, ipc-channel keeps the channels it had met in a thread-local list, and the next message
/// of this thread would carry them to whomever it is for. A message to nobody takes them away.
fn forget_stale_channels() -> io::Result<()> {
    let (nobody, _receiver) = ipc::channel::<()>()?;
    nobody.send(()).map_err(io::Error::other)
}

impl Marker {
    /// `VERSION:PARENT`, and `:DESCRIPTOR` in a test program.
    pub(crate) fn to_text(self) -> String {
        let stdout = self.stdout.map_or_else(String::new, |fd| format!(":{fd}"));
        format!("{}:{}{stdout}", env!("CARGO_PKG_VERSION"), self.parent)
    }

    /// `None` when another version of this crate wrote it, or somebody by hand.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        if parts.next()? != env!("CARGO_PKG_VERSION") {
            return None;
        }
        let parent = parts.next()?.parse().ok()?;
        let stdout = parts.next().map(str::parse).transpose().ok()?;
        Some(Self { parent, stdout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_survives_the_environment() {
        for marker in [Marker { parent: 7, stdout: None }, Marker { parent: 7, stdout: Some(3) }] {
            assert_eq!(Marker::from_text(&marker.to_text()), Some(marker));
        }
        for text in ["", "1", "0.0.0:7", "yes"] {
            assert_eq!(Marker::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn large_payloads_do_not_wait_for_a_reader() {
        let (sender, receiver) = ipc::channel::<Payload<Vec<u8>>>().expect("there are descriptors");
        send(&sender, Payload(vec![7; 8 << 20])).expect("nobody needs to read meanwhile");
        assert_eq!(receiver.recv().expect("it is there").0, vec![7; 8 << 20]);
    }

    #[test]
    fn a_message_that_failed_leaves_no_channel_behind() {
        let (sender, receiver) = ipc::channel::<()>().expect("there are descriptors");
        let (line, _end) = ipc::channel::<(IpcSender<()>, Fails)>().expect("there are descriptors");
        let error = send(&line, (sender, Fails)).expect_err("it fails on purpose");
        assert!(matches!(&error, SendError::Encoding(why) if !why.is_empty()), "{error:?}");
        // The failed message held the only sender.
        assert!(matches!(receiver.recv(), Err(IpcError::Disconnected)));
    }

    struct Fails;

    impl Serialize for Fails {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(S::Error::custom("on purpose"))
        }
    }

    impl<'de> Deserialize<'de> for Fails {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(D::Error::custom("on purpose"))
        }
    }
}
