//! State folders of gateways. Each gateway has its own, but tests share compiled plugins, so that each plugin is
//! compiled once.
//!
//! A gateway reads only its own folder, and follows no symbolic links out of it. So compiled plugins are shared as hard
//! links.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::cache;

/// The most compiled plugins that are kept for other tests and other runs: as many as a gateway keeps.
const MAX_SHARED: usize = 240;

/// The place of a state folder. It is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Compiled {
    home: TempDir,
    shared: Option<PathBuf>,
}

impl Compiled {
    /// Creates a state folder with all compiled plugins that other tests have shared.
    pub(crate) fn shared() -> Self {
        let shared = cache("compiled");
        let compiled = Self { shared: Some(shared.clone()), ..Self::none() };
        // All of this may fail: a missing plugin is compiled.
        _ = DirBuilder::new().recursive(true).mode(0o700).create(compiled.entries());
        _ = fs::create_dir_all(&shared);
        let mut files = files(&shared);
        files.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
        let old = files.len().saturating_sub(MAX_SHARED);
        for path in files.drain(..old) {
            _ = fs::remove_file(path);
        }
        link_all(&files, &compiled.entries());
        compiled
    }

    /// A place for a state folder without compiled plugins.
    pub(crate) fn none() -> Self {
        // On the same file system as the shared files, as hard links need it.
        let place = cache("state");
        fs::create_dir_all(&place).expect("a writable target directory");
        Self { home: TempDir::new_in(place).expect("a writable folder"), shared: None }
    }

    /// Shares the compiled plugins of this folder with other tests.
    pub(crate) fn share(&self) {
        if let Some(shared) = &self.shared {
            link_all(&files(&self.entries()), shared);
        }
    }

    /// The folder that contains the state folder (`XDG_STATE_HOME`).
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The state folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.home.path().join("hotgate")
    }

    fn entries(&self) -> PathBuf {
        self.folder().join("compiled")
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_none()).collect()
}

fn link_all(files: &[PathBuf], folder: &Path) {
    for path in files {
        if let Some(name) = path.file_name() {
            _ = fs::hard_link(path, folder.join(name));
        }
    }
}
