//! The base that all other wings use.

pub mod address;
pub mod bucket;
pub mod histogram;
pub mod message;
pub mod metrics;
pub mod notices;
pub mod recent;
pub mod ring;
pub mod state;
pub mod stripe;
pub mod throttle;
pub mod trace;
pub mod verbosity;
pub mod version;
pub mod watch;
