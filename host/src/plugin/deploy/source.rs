//! Reads components from their source.

use std::path::Path;

use anyhow::bail;

use crate::config::{self, PluginSource};
use crate::plugin::deploy::builtin;

/// Reads a component of at most `limit` bytes. Blocks.
///
/// # Errors
/// If there is no component, or it is larger.
pub fn read(source: &PluginSource, limit: usize) -> anyhow::Result<Vec<u8>> {
    match source {
        PluginSource::File(path) => read_file(path, limit),
        PluginSource::Builtin(name) => match builtin::component(name) {
            Some(code) => Ok(code.to_vec()),
            None => bail!("there is no such built-in plugin; choose one of {}", builtin::names()),
        },
    }
}

/// Reads a whole file, unless it is larger than the limit. Blocks.
pub(crate) fn read_file(path: &Path, limit: usize) -> anyhow::Result<Vec<u8>> {
    match config::read_file(path, limit)? {
        Some(code) => Ok(code),
        None => bail!("the component is larger than {limit} bytes (limits.max_component)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth.wasm");
        std::fs::write(&path, b"1234").unwrap();
        assert!(read_file(&path, 3).unwrap_err().to_string().contains("larger than 3 bytes"));
        assert!(read_file(folder.path(), 3).unwrap_err().to_string().contains("not a regular file"));
    }
}
