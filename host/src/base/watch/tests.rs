//! Tests of folders that the operating system cannot watch.

use std::io::{self, Write};

use super::*;

/// A watcher whose `watch` fails with this error.
#[derive(Default)]
struct Failing(Option<fn() -> ErrorKind>);

impl Watcher for Failing {
    fn new<F: notify::EventHandler>(_: F, _: notify::Config) -> notify::Result<Self> {
        Ok(Self::default())
    }

    fn watch(&mut self, _: &Path, _: RecursiveMode) -> notify::Result<()> {
        self.0.map_or(Ok(()), |kind| Err(notify::Error::new(kind())))
    }

    fn unwatch(&mut self, _: &Path) -> notify::Result<()> {
        Ok(())
    }

    fn kind() -> notify::WatcherKind {
        notify::WatcherKind::NullWatcher
    }
}

/// The text of a log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    /// Takes what has been logged since the last call.
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap()
    }
}

impl Write for Written {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_folder_that_cannot_be_watched_is_logged_once_for_each_fault() {
    let log = Written::default();
    let writer = log.clone();
    let _heard = tracing::subscriber::set_default(
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish(),
    );
    let folder = tempfile::tempdir().unwrap();
    let mut folders = Folders { watcher: Failing::default(), watched: HashMap::new(), has_warned: false };
    // Returns whether all folders are watched, and what is logged meanwhile. `touched` makes it watch them again.
    let mut update = |fails: Option<fn() -> ErrorKind>| {
        folders.watcher = Failing(fails);
        let touched = HashSet::from([folder.path().to_owned()]);
        let found = folders.update(vec![folder.path().join("plugin.wasm")], &touched);
        (found.complete, log.take())
    };
    assert_eq!(update(None), (true, String::new()));

    let (complete, line) = update(Some(|| ErrorKind::MaxFilesWatch));
    assert!(!complete && line.contains("WARN"), "{line}");
    assert!(line.contains("a folder cannot be watched") && line.contains("(watch.rescan)"), "{line}");
    assert!(line.contains("raise fs.inotify.max_user_watches"), "{line}");
    assert!(line.contains(folder.path().to_str().unwrap()), "{line}");
    // The task tries again all the time.
    assert_eq!(update(Some(|| ErrorKind::MaxFilesWatch)), (false, String::new()));

    assert_eq!(update(None), (true, String::new()));
    // A folder that has just been removed is no fault.
    assert_eq!(update(Some(|| ErrorKind::PathNotFound)), (false, String::new()));
    let (_, line) = update(Some(|| ErrorKind::Io(io::ErrorKind::PermissionDenied.into())));
    assert!(line.contains("a folder cannot be watched") && line.contains("check who may read the folder"), "{line}");
}
