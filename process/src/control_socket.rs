//! The control socket: a socket pair of whole messages between parent and child.
//!
//! The child inherits its end as descriptor 0. Either end closes with its process, whatever kills the
//! process, so a death is an end of file at the other end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sys;

/// One end of the socket pair.
#[derive(Debug)]
pub(crate) struct ControlSocket(OwnedFd);

impl ControlSocket {
    /// The longest message.
    pub(crate) const LONGEST: usize = 16 * 1024;

    /// Makes a pair: the parent's end, and the descriptor that the child is to inherit.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        sys::socket_pair().map(|(ours, theirs)| (Self(ours), theirs))
    }

    /// Returns the end that this child has inherited, under another number than 0.
    pub(crate) fn inherited() -> io::Result<Self> {
        io::stdin().as_fd().try_clone_to_owned().map(Self)
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends one message.
    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        sys::send(self.as_fd(), message)
    }

    /// Waits for a message; an empty one means that the other end is closed.
    pub(crate) fn receive(&self) -> io::Result<Vec<u8>> {
        sys::receive(self.as_fd(), Self::LONGEST)
    }
}

impl AsFd for ControlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
