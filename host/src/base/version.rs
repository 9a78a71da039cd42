//! Which version of the gateway this is.

/// The version, such as `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit that the gateway was built from: for releases the one that was checked out, else `unknown`.
pub const COMMIT: &str = env!("HOTGATE_COMMIT");
