//! Links: one ordered stream of commands for each pair of incarnations. [`outgoing`] numbers commands and waits for
//! their answers, [`incoming`] takes only increasing numbers.

pub(super) mod incoming;
pub(super) mod outgoing;
#[cfg(test)]
mod tests;
