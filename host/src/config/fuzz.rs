//! Fuzz target for `hotgate.toml` with any content.

use std::path::Path;

use super::Config;

/// Reads a file of settings. If it loads, the printed configuration must load to an equal one.
pub(crate) fn settings(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let path = Path::new("/etc/hotgate/hotgate.toml");
    match Config::parse(path, text) {
        Err(error) => {
            let error = error.to_string();
            assert!(!error.is_empty() && error.len() < 4096 + text.len(), "{} bytes of error", error.len());
        }
        Ok(config) => {
            let printed = config.to_toml();
            let again = Config::parse(path, &printed).unwrap_or_else(|error| panic!("{error}\n{printed}"));
            assert_eq!(config, again, "{printed}");
        }
    }
}
