//! Finds the state folder.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Returns the path of the folder. Returns `None` if neither the settings nor the environment name one.
pub(super) fn locate(configured: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    if let Some(paths) = variable("STATE_DIRECTORY") {
        let first = env::split_paths(&paths).next()?;
        // With `DynamicUser=`, it is a link that systemd created.
        return Some(first.canonicalize().unwrap_or(first));
    }
    // XDG says that relative paths must be ignored.
    let absolute = |name| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    Some(state?.join("hotgate"))
}
