//! Every promise of Hotgate, tested on the real binary over real sockets: one short test each.

mod admin;
mod bystanders;
mod chain;
mod closing;
mod contained;
mod duplicates;
mod foreign;
mod frames;
mod greedy;
mod handshake;
mod heartbeat;
mod limits;
mod login;
mod operators;
mod plugin_files;
mod proxies;
mod refused;
mod relay;
mod routing;
mod settings;
mod shutdown;
mod slow;
mod swap_traffic;
mod text_port;
mod uids;
mod volume;
