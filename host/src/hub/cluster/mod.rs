//! The cluster: gateways that find each other over NATS, know which uid is on which node, and send each other commands.
//!
//! All but the last row of the table is free of input and output. [`Node`] is a state machine: the host passes what
//! arrives and what time it is, and carries out each [`Output`]. So a simulator can run thousands of clusters with
//! every fault it can think of, and replay each run (`tests/`).
//!
//! | file | does |
//! | --- | --- |
//! | `id`, `clock` | names of nodes and uids; stamps that order logins, deadlines in another node's time |
//! | `frame/` | what nodes send each other, byte by byte |
//! | `members` | who lives, and who hears whom |
//! | `directory/` | which uid is on which node: own rows, batches, snapshots, the table of all others |
//! | `link/` | commands in order, answered once, never late |
//! | `confirm` | logins and departures that wait for the others |
//! | `peer`, `output` | all that belongs to one peer; what the host has to do |
//! | `node`, `commands`, `receive`, `time` | the node: what the host wants, commands, what arrives, what time brings |
//! | `handle`, `machine_clock`, `parcel`, `page` | the node as the rest of this gateway uses it |
//!
//! **A push by uid** goes to the node with the newest login ([`Node::push`]), in a numbered command with a deadline.
//! There [`Target::is_here`] compares stamps, and [`Node::answer`] sends the outcome back.
//!
//! **A login** takes its stamp and is noted under its shard's lock ([`Node::note_login`]), is announced in a batch
//! ([`Node::flush`]), and is confirmed by each peer after that peer has taken the same uid's lock ([`Output::Lock`]).
//! Then [`Output::LoginConfirmed`] lets the client have its reply: no node says `offline` of it any more.

pub mod clock;
mod commands;
mod config;
mod confirm;
mod directory;
pub mod frame;
pub mod handle;
pub mod id;
mod link;
pub mod machine_clock;
mod members;
mod node;
mod output;
pub mod page;
pub mod parcel;
mod peer;
pub mod questions;
mod receive;
pub mod secret;
#[cfg(test)]
mod tests;
mod time;

pub use self::config::{Config, REMEMBERED};
pub use self::directory::rows::{Place, Rows, Slot};
pub use self::frame::Target;
pub use self::node::Node;
pub use self::output::{
    Answer, Apply, Counts, Event, Fatal, Keys, Lock, Output, PeerStatus, Pushed, Refusal, Spread, Subject,
};
