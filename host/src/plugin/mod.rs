//! The WebAssembly runtime: loads plugins, calls them within their limits, and swaps them while calls run. It knows the
//! contract of `wit/` and nothing of sockets. No other wing names `wasmtime`.
//!
//! A [`Slot`] is the place of one plugin. In a slot, one [`Generation`] is live: a compiled component with its settings
//! and instances. A call takes an instance (a fresh instance, or an idle instance of the generation), runs in it until
//! the deadline at most, and gives it back if nothing went wrong. [`FileWatchers`] watch for new components and
//! settings. A component becomes a generation after it is compiled, linked and compared with the contract, and after
//! its `lifecycle.check` has accepted. The generation then gets traffic step by step: in shadow, as a canary, on
//! probation, live.
//!
//! The four inner wings, from the top down. Each inner wing imports only from inner wings below it.
//!
//! | inner wing | what it does |
//! | --- | --- |
//! | `deploy` | brings new code and settings in, and takes them out |
//! | `slot` | decides which generation serves which connection, counts how each performs, remembers the outcome |
//! | `runtime` | runs one call of one component within its limits |
//! | `compile` | compiles components to machine code, in a process of its own |
//!
//! Below the inner wings are the contract as Rust types (`contract`), the configuration of the engine (`engine`), the
//! identity of a generation (`identity`), the status that operators see (`status`), the cleaning of untrusted text
//! (`text`), and work that blocks (`blocking`).

mod blocking;
mod compile;
mod contract;
mod deploy;
mod engine;
mod identity;
mod runtime;
mod slot;
pub mod status;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod text;

pub use self::compile::child::{COMMAND as COMPILE, run as compile};
pub use self::compile::encoding::Encoding;
#[cfg(any(test, fuzzing))]
pub(crate) use self::compile::fuzz;
pub use self::contract::Roles;
pub(crate) use self::contract::{authenticator, publications, router, types};
pub use self::deploy::source::read as read_component;
pub use self::deploy::watch::FileWatchers;
pub use self::identity::Digest;
pub use self::runtime::Runtime;
pub use self::runtime::check::CheckRefused;
pub use self::runtime::environment::Surroundings;
pub use self::runtime::error::CallError;
pub use self::runtime::frames::Frames;
pub(crate) use self::runtime::log::LogNames;
pub use self::runtime::memory::Demand;
pub use self::slot::Slot;
pub use self::slot::blame::Caller;
pub use self::slot::error::DeployError;
pub use self::slot::generation::Generation;
pub use self::slot::handle::PluginHandle;
pub use self::slot::ledger::Ledgers;
pub(crate) use self::slot::look_after;
pub(crate) use self::text::is_harmful;
pub use self::text::tame;
