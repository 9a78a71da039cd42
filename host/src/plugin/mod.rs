//! The WebAssembly runtime: loads plugins, calls them within their limits, and swaps them while they are called. It knows
//! the contract of `wit/` and nothing of sockets; no other wing names `wasmtime`.
//!
//! A [`Slot`] is the place of one plugin. In it, one [`Generation`] is live: a compiled component with its settings and
//! instances. A call takes an instance (a fresh one, or an idle one of the generation), runs in it until its deadline, and
//! gives it back if nothing went wrong. [`Keepers`] watch for new components and settings. A component that has been
//! compiled, linked, compared with the contract and asked by `lifecycle.check` becomes a generation. It then comes to serve
//! step by step: in shadow, as a canary, on probation, for good.
//!
//! Four wings, from the top down. Each imports only from wings below it.
//!
//! | wing | what it does |
//! | --- | --- |
//! | `deploy` | how new code and settings come in, and leave |
//! | `slot` | the place of one plugin: which generation serves whom, how each fares, what is remembered |
//! | `runtime` | runs one call of one component within its limits |
//! | `compile` | makes machine code, in a process of its own |
//!
//! Below them stand the contract as Rust (`contract`), the configuration of the engine (`engine`), what a generation is
//! known by (`identity`), what operators see (`status`), text from sources that are not trusted (`text`), and work that
//! blocks (`blocking`).

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
#[cfg(any(test, fuzzing))]
pub(crate) use self::compile::fuzz;
pub use self::contract::Roles;
pub(crate) use self::contract::{authenticator, router, types};
pub use self::deploy::source::read as read_component;
pub use self::deploy::watch::Keepers;
pub use self::identity::Digest;
pub use self::runtime::Runtime;
pub use self::runtime::check::CheckRefused;
pub use self::runtime::environment::Surroundings;
pub use self::runtime::error::CallError;
pub use self::runtime::frames::Frames;
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
