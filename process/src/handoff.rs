//! The messages between parent and child, and the channel of each.
//!
//! | step | from | channel | message |
//! |---|---|---|---|
//! | 1 | parent | control socket | [`Call`]: the function, its image, the rendezvous directory |
//! | 2 | child | control socket | [`Reply::Ready`]: the path of its one-shot server; or [`Reply::Refused`] |
//! | 3 | parent | control socket | [`GO`], after it has connected to that server |
//! | 4 | parent | ipc-channel | [`Launch`]: the arguments, and the sender for the result |
//! | 5 | child | control socket | [`Reply::Running`], once it has the arguments; or [`Reply::Refused`] |
//! | 6 | child | ipc-channel | [`Outcome`]: a value or a panic; nothing if it exits or dies |
//!
//! # Why the child is the server, and not the parent
//!
//! ipc-channel makes no channel from a descriptor, so the two connect by its `IpcOneShotServer`, whose
//! `accept` has no time-out. A parent that accepts would wait for ever if the child died before it connected.
//! Here the parent only connects, which never waits. The child accepts only after [`GO`], when the connection
//! is in the queue already. So parent and child wait for each other on the control socket only, where a death
//! is an end of file.
//!
//! # Why no message is larger than a socket buffer
//!
//! ipc-channel cuts a larger message into pieces, sends them through a second channel, and holds *both* ends
//! of that channel meanwhile. If the receiver dies half-way, the sender waits for ever. So [`Payload`] puts
//! large values into shared memory, and the message itself always fits into the empty buffer of its socket. A
//! child may send its result and exit before the parent reads it.

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

/// The environment variable that marks a process as a child. Its value is a [`Marker`].
pub(crate) const MARKER: &str = "MULTIPROC_CHILD";

/// The message after which the child accepts at its server.
pub(crate) const GO: &[u8] = b"go";

/// What a child inherits through the environment: little, because a child that does not call `init` passes it
/// on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) parent: u32,
    /// In a test program: the descriptor with the real standard output.
    pub(crate) stdout: Option<i32>,
}

/// The parent's first message.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    /// An [`Entry`](crate::child::Entry): it decodes the arguments, calls the function and sends the result.
    pub(crate) entry: FunctionName,
    /// The function itself, of the type that `entry` knows.
    pub(crate) function: FunctionName,
    /// The rendezvous directory: a scratch directory of the namespace, for the one-shot server.
    pub(crate) rendezvous: Vec<u8>,
}

/// The child's replies.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// The server's path below the rendezvous directory.
    Ready { server: String },
    /// The function is about to be called.
    Running,
    /// The function is not going to be called.
    Refused { arguments: bool, message: String },
}

/// The arguments, and the settings for the child.
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
    /// The function returned a value that does not serialise.
    Unsendable(String),
}

/// A value that is encoded on its own, so that its size is known before it is sent.
pub(crate) struct Payload<T>(pub(crate) T);

/// A payload's bytes: inside the message if they are few.
#[derive(Serialize, Deserialize)]
enum Bytes {
    Here(Vec<u8>),
    InMemory(IpcSharedMemory),
}

/// Well below the smallest default size of a socket buffer.
const SMALL: usize = 16 * 1024;

impl<T: Serialize> Serialize for Payload<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // This runs within ipc-channel's `send`: handles, senders and receivers inside the value use its
        // thread-local lists.
        let bytes = postcard::to_stdvec(&self.0).map_err(|error| S::Error::custom(remember(&error)))?;
        let small = bytes.len() <= SMALL;
        let bytes =
            if small { Bytes::Here(bytes) } else { Bytes::InMemory(IpcSharedMemory::from_bytes(&bytes)) };
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
    /// Why the last payload failed: ipc-channel's error does not hold the reason.
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn remember(error: &postcard::Error) -> String {
    let text = error.to_string();
    FAILURE.set(Some(text.clone()));
    text
}

/// Returns serde's message for a message that could not be encoded or decoded.
pub(crate) fn describe(error: &SerDeError) -> String {
    FAILURE.take().unwrap_or_else(|| error.source().unwrap_or(error).to_string())
}

/// Why a message was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// A value does not serialise.
    Encoding(String),
    /// The receiver has disconnected, or the kernel has no room.
    Os(io::Error),
}

/// Sends one message; the handles in it are in transit until it is sent.
pub(crate) fn send<T: Serialize>(sender: &IpcSender<T>, message: T) -> Result<(), SendError> {
    // This needs two descriptors, as many as a large payload: without them ipc-channel would panic there.
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

/// Runs [`forget_stale_channels`] after an error, and after a panic in a value's `Serialize`.
struct StaleAfterFailure(PhantomData<*const ()>);

impl Drop for StaleAfterFailure {
    fn drop(&mut self) {
        // If this fails, the next `send` of this thread does it, or fails before it sends.
        let _ = forget_stale_channels();
    }
}

/// Sends an empty message to this thread itself, which empties ipc-channel's thread-local list of channels.
///
/// After a `send` whose message did not serialise, that list still holds the channels of the message. The
/// next message of this thread would carry them to its receiver.
fn forget_stale_channels() -> io::Result<()> {
    let (sender, _receiver) = ipc::channel::<()>()?;
    sender.send(()).map_err(io::Error::other)
}

impl Marker {
    /// `VERSION:PARENT`, and `:DESCRIPTOR` in a test program.
    pub(crate) fn to_text(self) -> String {
        let stdout = self.stdout.map_or_else(String::new, |fd| format!(":{fd}"));
        format!("{}:{}{stdout}", env!("CARGO_PKG_VERSION"), self.parent)
    }

    /// Returns `None` if the text was not written by this version of this crate.
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
    fn marker_survives_the_environment() {
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
        send(&sender, Payload(vec![7; 8 << 20])).expect("no reader is needed");
        assert_eq!(receiver.recv().expect("it is there").0, vec![7; 8 << 20]);
    }

    #[test]
    fn failed_message_leaves_no_channel_behind() {
        let (sender, receiver) = ipc::channel::<()>().expect("there are descriptors");
        let (carrier, _end) = ipc::channel::<(IpcSender<()>, Fails)>().expect("there are descriptors");
        let error = send(&carrier, (sender, Fails)).expect_err("it fails on purpose");
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
