//! The life of a WebSocket: handshake → greet → authenticate → route… → close. Each connection has one task, from its
//! first byte to its last.

mod acceptor;
mod admission;
mod arrivals;
mod connection;
mod context;
mod end;
mod entrance;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod handshake;
mod inbox;
mod login;
mod meter;
mod origin;
mod rejection;
mod report;
mod session;
mod socket;
#[cfg(test)]
pub(crate) mod tests;
mod tls_turns;
mod traffic;
mod upgrade;
mod wire;

pub(crate) use self::acceptor::Acceptor;
pub use self::admission::Admission;
pub use self::context::Context;
pub use self::entrance::Entrance;
pub use self::inbox::InboxBudget;
pub use self::rejection::Rejections;
pub use self::tls_turns::TlsTurns;
