#![doc = include_str!("../README.md")]

// Each of these imports only from those above it.
mod header;
mod log;
mod payload;
mod words;

mod memory;
mod messages;
mod sink;
mod view;

mod counts;
mod presence;

mod look;

mod notify;

mod guard;

mod grow;

mod record;

mod shrink;
mod take;
mod wait;

mod get;
mod members;
mod put;
mod reserve;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;

pub use counts::Counters;
pub use guard::{ConsumerEnd, ConsumerGuard, ProducerEnd};
pub use header::{Cursor, record_words};
pub use log::{Log, PIECE, SPAN, Sizes, UNBOUNDED, UNLIMITED};
pub use memory::{Memory, RingObject};
pub use messages::Messages;
pub use payload::Payload;
pub use record::{Appended, Content};
pub use reserve::Reservation;
pub use sink::{Exact, Sink};
pub use take::Found;
pub use view::{Refusal, View};
pub use wait::{Wait, mark_dead_owners_now_and_then};
pub use words::{CLAIMS, MAX_MEMBERS, MAX_RESERVATIONS, Peer, Ring, SideTable};
