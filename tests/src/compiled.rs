//! State folders of gateways: each has its own, but what one has compiled the others need not compile again.
//!
//! Gateways take nothing from each other, and follow no links out of their folders. So what is compiled enters a state
//! folder as another name of the same file, and leaves it in the same way.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::build;

/// What is kept for other tests, and other runs: as many as a gateway keeps.
const MAX_SHARED: usize = 240;

/// The place of a state folder, removed with this.
#[derive(Debug)]
pub(crate) struct Compiled {
    home: TempDir,
    shared: Option<PathBuf>,
}

impl Compiled {
    /// A state folder where everything is compiled already that another test has shared.
    pub(crate) fn shared() -> Self {
        let shared = build::cache("compiled");
        let compiled = Self { shared: Some(shared.clone()), ..Self::none() };
        // Nothing of this must succeed: what is not there is compiled.
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

    /// A place for a state folder.
    pub(crate) fn none() -> Self {
        // Beside what is shared: a file has its names on one file system.
        let place = build::cache("state");
        fs::create_dir_all(&place).expect("a writable target directory");
        Self { home: TempDir::new_in(place).expect("a writable folder"), shared: None }
    }

    /// Lets other tests have what was compiled.
    pub(crate) fn share(&self) {
        if let Some(shared) = &self.shared {
            link_all(&files(&self.entries()), shared);
        }
    }

    /// The folder of state folders.
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
