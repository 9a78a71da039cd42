//! Where the component of a plugin comes from.

use std::fmt;
use std::path::{Path, PathBuf};

use super::files::absolute;

/// The source of a component.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PluginSource {
    /// `builtin:NAME`: a component inside the binary.
    Builtin(String),
    /// A file that is watched for changes. Its path is absolute.
    File(PathBuf),
}

impl PluginSource {
    /// The names of all plugins inside the binary.
    pub const BUILTINS: [&str; 6] =
        ["echo-router", "hmac-auth", "jwt-auth", "origin-auth", "origin-router", "rooms-router"];

    /// Makes a relative path absolute; it starts at `folder`.
    pub(super) fn locate(&mut self, folder: &Path) -> Result<(), String> {
        if let Self::File(path) = self {
            *path = absolute(folder, path)?;
        }
        Ok(())
    }
}

impl fmt::Display for PluginSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Builtin(name) => write!(f, "builtin:{name}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
