//! Which uid is on which node. Each node announces its own rows ([`own`]), keeps those of its peers in one table
//! ([`rows`]), and follows the batches of each peer ([`replica`]).

pub(super) mod own;
pub(super) mod replica;
pub(super) mod rows;
#[cfg(test)]
mod tests;
