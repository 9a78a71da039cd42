//! `hotgate.toml`, as anybody may write it.

use std::path::Path;

use super::Config;

/// A file of settings. Whatever loads is printed as a file that loads to the same.
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
