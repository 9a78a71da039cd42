//! What the HTTP listeners share: their start and end, connections within bounds, who may ask at all, queries, bodies,
//! tokens, and the answer to a request that fails.

pub(super) mod body;
pub(super) mod bounded;
pub(super) mod closing;
pub(super) mod origin;
pub(super) mod problem;
pub(super) mod query;
pub(super) mod server;
mod strangers;
pub mod token;
