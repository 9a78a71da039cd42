use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use rustix::process::geteuid;

use super::lock::LOCK;
use super::*;

fn folder() -> (tempfile::TempDir, StateFolder) {
    let place = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(Some(&place.path().join("deep/state")));
    assert_eq!(folder.problem(), None);
    (place, folder)
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

fn error<T>(result: io::Result<T>) -> String {
    result.map(drop).unwrap_err().to_string()
}

#[test]
fn it_is_where_the_settings_or_the_environment_say() {
    let located = |configured: Option<&str>, variables: &[(&str, &str)]| {
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let path = locate(configured.map(Path::new), variable)?;
        Some(path.to_str().unwrap().to_owned())
    };
    let all = [("STATE_DIRECTORY", "/nowhere/a:/nowhere/b"), ("XDG_STATE_HOME", "/x"), ("HOME", "/home/h")];
    assert_eq!(located(Some("/own"), &all).as_deref(), Some("/own"));
    assert_eq!(located(None, &all).as_deref(), Some("/nowhere/a"));
    assert_eq!(located(None, &all[1..]).as_deref(), Some("/x/hotgate"));
    assert_eq!(located(None, &all[2..]).as_deref(), Some("/home/h/.local/state/hotgate"));
    assert_eq!(located(None, &[("XDG_STATE_HOME", "x"), ("HOME", "h")]), None);
    assert_eq!(located(None, &[]), None);
}

#[test]
fn it_and_all_in_it_are_private() {
    let (place, state) = folder();
    state.write_private("slots/router.json", b"{}").unwrap();
    let path = state.path("slots/router.json").unwrap();
    assert_eq!(path, place.path().join("deep/state/slots/router.json"));
    for (path, expected) in
        [(&*path, 0o600), (path.parent().unwrap(), 0o700), (&place.path().join("deep/state"), 0o700)]
    {
        assert_eq!(mode(path), expected, "{}", path.display());
    }
    assert_eq!(state.read_private("slots/router.json", 2).unwrap().as_deref(), Some(&b"{}"[..]));
    assert!(error(state.read_private("slots/router.json", 1)).contains("larger than 1 bytes"));
    state.write_private("slots/router.json", b"").unwrap();
    assert_eq!(state.read_private("slots/router.json", 0).unwrap().as_deref(), Some(&b""[..]));
    assert_eq!(state.files("slots").unwrap().len(), 1);
    for _ in 0..2 {
        state.remove("slots/router.json").unwrap();
        assert_eq!(state.read_private("slots/router.json", 2).unwrap(), None);
    }
    assert_eq!(state.read_private("nothing/here", 2).unwrap(), None);
    assert!(state.files("nothing").unwrap().is_empty());
}

#[test]
fn a_folder_that_is_not_private_is_none() {
    let place = tempfile::tempdir().unwrap();
    let problem = |name: &str| StateFolder::open(Some(&place.path().join(name))).problem().unwrap().to_owned();
    for mode in [0o755, 0o710, 0o777] {
        std::fs::create_dir(place.path().join(mode.to_string())).unwrap();
        set_permissions(place.path().join(mode.to_string()), Permissions::from_mode(mode)).unwrap();
        let problem = problem(&mode.to_string());
        assert!(problem.ends_with(&format!("(its mode is {mode:o}, and must be 700)")), "{problem}");
    }
    std::fs::create_dir(place.path().join("real")).unwrap();
    set_permissions(place.path().join("real"), Permissions::from_mode(0o700)).unwrap();
    symlink("real", place.path().join("link")).unwrap();
    std::fs::write(place.path().join("file"), "").unwrap();
    for name in ["link", "file", "file/below"] {
        assert!(problem(name).starts_with(&place.path().join(name).display().to_string()));
    }
    if geteuid().is_root() {
        std::os::unix::fs::chown(place.path().join("real"), Some(1), None).unwrap();
        assert!(problem("real").ends_with("it belongs to the user with id 1, but this process runs as 0"));
    }
}

#[test]
fn what_was_private_once_is_looked_at_again() {
    let (_place, state) = folder();
    state.write_private("compiled/a", b"a").unwrap();
    let path = |name| state.path(name).unwrap();
    let read = |name: &str| error(state.read_private(name, 1));

    set_permissions(path("compiled/a"), Permissions::from_mode(0o604)).unwrap();
    assert!(read("compiled/a").ends_with("(its mode is 604, and must be 600)"));
    std::fs::remove_file(path("compiled/a")).unwrap();
    symlink("/dev/null", path("compiled/a")).unwrap();
    assert!(read("compiled/a").ends_with("it is a link"));
    // Writing replaces the link and does not follow it.
    state.write_private("compiled/a", b"a").unwrap();
    assert!(path("compiled/a").symlink_metadata().unwrap().is_file());
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(path("compiled/pipe")).status().unwrap();
    assert!(made.success());
    assert!(read("compiled/pipe").ends_with("it is not a regular file"));

    set_permissions(path("compiled"), Permissions::from_mode(0o777)).unwrap();
    assert!(read("compiled/a").contains("mode is 777"));
    assert!(error(state.write_private("compiled/a", b"b")).contains("mode is 777"));
    assert!(error(state.files("compiled")).contains("mode is 777"));
    set_permissions(path("."), Permissions::from_mode(0o755)).unwrap();
    assert!(error(state.create_secret("secret", || panic!("not asked for"))).contains("mode is 755"));
}

#[test]
fn a_secret_is_made_once() {
    let (_place, state) = folder();
    let make = |secret: &'static [u8]| state.create_secret("admin-token", || Ok(secret.to_vec())).unwrap();
    assert_eq!(make(b"first"), b"first");
    assert_eq!(make(b"second"), b"first");
    assert_eq!(mode(&state.path("admin-token").unwrap()), 0o600);
    state.remove("admin-token").unwrap();
    // Another process makes the secret in the meantime: its secret is used.
    let raced = state.create_secret("admin-token", || {
        assert_eq!(make(b"faster"), b"faster");
        Ok(b"slower".to_vec())
    });
    assert_eq!(raced.unwrap(), b"faster");
    assert!(error(state.create_secret("other", || Err(io::Error::other("no luck")))).ends_with("other: no luck"));
}

#[test]
fn what_a_crash_left_behind_is_cleaned_up() {
    let (_place, state) = folder();
    state.write_private("compiled/a", b"a").unwrap();
    for (name, age) in [("old", 2 * OLD), ("young", Duration::ZERO)] {
        let file = File::create(state.path(&format!("compiled/{name}{UNFINISHED}")).unwrap()).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }
    state.write_private("compiled/b", b"b").unwrap();
    let mut names: Vec<_> = state.files("compiled").unwrap().into_iter().map(|entry| entry.name).collect();
    names.sort();
    assert_eq!(names, ["a", "b", &format!("young{UNFINISHED}")]);
}

#[test]
fn one_gateway_has_it_at_a_time() {
    let (place, mut first) = folder();
    let again = || StateFolder::open(Some(&place.path().join("deep/state")));
    first.lock().unwrap();
    let clone = first.clone();
    drop(first);
    let error = again().lock().unwrap_err().to_string();
    assert!(
        error.contains(&format!("deep/state is in use by another gateway, process {}:", std::process::id())),
        "{error}"
    );
    // Processes that only read, or that write compiled code, need no lock.
    again().write_private("compiled/a", b"a").unwrap();
    assert_eq!(mode(&clone.path(LOCK).unwrap()), 0o600);
    drop(clone);
    again().lock().unwrap();

    std::fs::remove_file(again().path(LOCK).unwrap()).unwrap();
    symlink("/dev/null", again().path(LOCK).unwrap()).unwrap();
    let mut linked = again();
    linked.lock().unwrap();
    assert!(linked.problem().unwrap().ends_with("cannot be locked: it is a link"), "{linked:?}");
    StateFolder::none("nowhere").lock().unwrap();
}

#[test]
fn names_do_not_lead_out() {
    let (_place, state) = folder();
    for name in ["", "/etc/passwd", "../a", "slots/../../a", "slots/", "."] {
        assert_eq!(state.write_private(name, b"").unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn without_a_folder_every_use_says_why() {
    let state = StateFolder::none("nowhere to put it");
    assert_eq!(state.problem(), Some("nowhere to put it"));
    assert_eq!(state.path("a"), None);
    let problem = "no state folder: nowhere to put it";
    assert_eq!(error(state.read_private("a", 1)), problem);
    assert_eq!(error(state.write_private("a", b"")), problem);
    assert_eq!(error(state.create_secret("a", || Ok(vec![]))), problem);
}
