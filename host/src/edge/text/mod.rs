//! The text port: a TCP connection for each internal sender. Each line gets an answer, in order. Many lines may arrive
//! in one read; their answers leave in one write.

mod acceptor;
mod answers;
mod context;
mod conversation;
mod foreign;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lines;

pub(crate) use self::acceptor::Acceptor;
pub use self::context::Context;
pub(in crate::edge) use self::conversation::push_line;
