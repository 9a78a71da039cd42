use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn settings(value: &str) -> Settings {
    Settings::from_iter([("KEY".to_owned(), value.to_owned())])
}

fn environment(settings: &Settings) -> Environment {
    Environment { settings: settings.clone(), values: settings.read().unwrap() }
}

fn identity(code: &[u8]) -> GenerationIdentity {
    GenerationIdentity::new(Digest::of(code), &Default::default())
}

fn open_for(folder: &Path, slots: &[(&str, &str)]) -> Arc<Ledger> {
    let folder = Arc::new(StateFolder::open(Some(folder)));
    assert_eq!(folder.problem(), None);
    let slots: Vec<_> = slots.iter().map(|(slot, value)| (slot.to_string(), settings(value))).collect();
    Arc::new(Ledger::open(folder, &PluginSource::File("/plugin.wasm".into()), &slots))
}

fn open(folder: &Path) -> Arc<Ledger> {
    open_for(folder, &[("router", "value")])
}

/// Waits until the ledger has been written in the background.
async fn soon(done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not written");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_restart_remembers_what_was_rolled_back_and_what_has_proven_itself() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let ledger = open(&folder);
    let environment = environment(&settings("value"));
    ledger.keep(b"good", Digest::of(b"good"), &[]);
    ledger.keep(b"bad", Digest::of(b"bad"), &[]);
    let prove = |ledger: &Ledger| ledger.prove("router", identity(b"good"), &environment);
    assert!(prove(&ledger) && !prove(&ledger));
    ledger.refuse(identity(b"bad"), &environment.settings, "it trapped".to_owned());
    soon(|| open(&folder).refusal(&identity(b"bad")).is_some()).await;

    let ledger = open(&folder);
    assert_eq!(ledger.refusal(&identity(b"bad")).unwrap().reason, "it trapped");
    assert!(ledger.refusal(&identity(b"good")).is_none());
    let other_secret = ledger.refusal_but_for_secrets(Digest::of(b"bad"), &environment.settings);
    assert!(other_secret.is_some(), "only the content of files may differ");
    assert!(ledger.refusal_but_for_secrets(Digest::of(b"bad"), &settings("other")).is_none());
    let proven = |ledger: &Ledger| ledger.proven("router", 4).unwrap();
    let (code, Proven { settings, values, .. }) = proven(&ledger).unwrap();
    assert_eq!((code, settings, values), (b"good".to_vec(), environment.settings.clone(), environment.values.clone()));
    for number in 0..20_u8 {
        ledger.keep(&[number], Digest::of(&[number]), &[Digest::of(&[0])]);
    }
    assert!(proven(&ledger).is_some(), "the proven component is kept");
    let components = std::fs::read_dir(folder.join(COMPONENTS)).unwrap().count();
    assert!(components <= MAX_COMPONENTS + 2, "{components} are kept");
    assert!(folder.join(ledger.component_file(&Digest::of(&[0]))).exists(), "a generation still has it");

    assert_eq!(format!("{ledger:?}"), format!("Ledger {{ name: {:?}, .. }}", ledger.name), "no secrets are shown");
    ledger.forgive(&identity(b"bad"), &environment.settings);
    soon(|| open(&folder).refusal(&identity(b"bad")).is_none()).await;
}

#[tokio::test]
async fn what_is_damaged_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let ledger = open(&folder);
    ledger.keep(b"good", Digest::of(b"good"), &[]);
    ledger.prove("router", identity(b"good"), &environment(&settings("value")));
    ledger.refuse(identity(b"bad"), &Settings::default(), String::new());
    soon(|| open(&folder).refusal(&identity(b"bad")).is_some()).await;

    std::fs::write(folder.join(ledger.component_file(&Digest::of(b"good"))), b"evil").unwrap();
    assert!(ledger.proven("router", 4).err().unwrap().to_string().contains("has been changed"));
    std::fs::write(folder.join(file(&ledger.name)), b"{").unwrap();
    assert!(open(&folder).refusal(&identity(b"bad")).is_none());
}

#[test]
fn slots_that_are_renamed_find_what_has_proven_itself_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let kept = |slots: &[(&str, &str)]| {
        let ledger = open_for(&folder, slots);
        let proven = ledger.pages.lock().proven.clone();
        slots.iter().map(|(slot, _)| proven.get(*slot).map(|it| it.values["KEY"].clone())).collect::<Vec<_>>()
    };
    let ledger = open_for(&folder, &[]);
    for (slot, value) in [("authenticator-1", "a"), ("authenticator-2", "b")] {
        ledger.prove(slot, identity(b"good"), &environment(&settings(value)));
    }
    ledger.write();
    let some = |value: &str| Some(value.to_owned());
    assert_eq!(kept(&[("authenticator-1", "a"), ("authenticator-2", "b")]), [some("a"), some("b")]);
    assert_eq!(kept(&[("authenticator-1", "b"), ("authenticator-2", "a")]), [some("b"), some("a")]);
    assert_eq!(
        kept(&[("authenticator-1", "c"), ("authenticator-2", "a"), ("authenticator-3", "b")]),
        [None, some("a"), some("b")],
        "a new slot does not get the generation of another slot"
    );
    assert_eq!(kept(&[("authenticator-1", "new"), ("authenticator-2", "b")]), [some("a"), some("b")]);
    assert_eq!(kept(&[("router", "new")]), [some("a")], "renamed and reconfigured at once");
}

#[tokio::test]
async fn what_is_refused_again_is_remembered_once_and_the_oldest_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder.path().join("state"));
    let refuse = |code: u8, reason: &str| ledger.refuse(identity(&[code]), &settings("value"), reason.to_owned());
    let reason = |code: u8| ledger.refusal(&identity(&[code])).map(|refusal| refusal.reason);
    for code in 0..MAX_REFUSED as u8 {
        refuse(code, "it trapped");
    }
    refuse(0, "it was slow");
    assert_eq!((reason(0).as_deref(), reason(1).as_deref()), (Some("it was slow"), Some("it trapped")));
    refuse(255, "it trapped");
    assert_eq!((reason(0).is_some(), reason(1), reason(2).is_some()), (true, None, true));
}

#[tokio::test]
async fn forgiving_covers_other_secrets_but_no_other_settings_and_no_other_component() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = open(&folder.path().join("state"));
    let with =
        |code: &[u8], value: &str| GenerationIdentity::new(Digest::of(code), &environment(&settings(value)).values);
    let all = [
        (with(b"bad", "a"), "a"),
        (with(b"bad", "old secret"), "a"),
        (with(b"bad", "b"), "b"),
        (with(b"evil", "a"), "a"),
    ];
    for (identity, configured) in &all {
        ledger.refuse(*identity, &settings(configured), String::new());
    }
    let left = || all.each_ref().map(|(identity, _)| ledger.refusal(identity).is_some());
    ledger.forgive(&with(b"bad", "a"), &settings("a"));
    assert_eq!(left(), [false, false, true, true]);
    ledger.forgive(&with(b"bad", "b"), &settings("c"));
    assert_eq!(left(), [false, false, false, true]);
}

#[tokio::test]
async fn only_the_files_of_sources_that_are_gone_are_pruned() {
    let path = tempfile::tempdir().unwrap();
    let folder = Arc::new(StateFolder::open(Some(&path.path().join("state"))));
    let [used, gone] = ["used", "gone"].map(|name| {
        let source = PluginSource::Builtin(name.to_owned());
        let ledger = Arc::new(Ledger::open(folder.clone(), &source, &[]));
        ledger.keep(b"code", Digest::of(b"code"), &[]);
        ledger.write();
        (source, ledger)
    });
    folder.write_private("slots/README.md", b"").unwrap();
    let files = |(_, ledger): &(PluginSource, Arc<Ledger>)| {
        let names = [file(&ledger.name), ledger.component_file(&Digest::of(b"code"))];
        names.map(|name| folder.path(&name).unwrap().exists())
    };
    assert_eq!((files(&used), files(&gone)), ([true; 2], [true; 2]));
    Ledgers { folder: folder.clone(), all: HashMap::from([used.clone()]) }.prune().await;
    assert_eq!((files(&used), files(&gone)), ([true; 2], [false; 2]));
    assert!(folder.path("slots/README.md").unwrap().exists());
}

#[test]
fn slots_with_the_same_settings_keep_what_has_proven_itself_in_each() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("state");
    let slots = [("authenticator-2", "a"), ("authenticator-1", "a")];
    let ledger = open_for(&folder, &slots);
    for (slot, value) in slots {
        ledger.prove(slot, identity(slot.as_bytes()), &environment(&settings(value)));
    }
    ledger.write();
    let pages = open_for(&folder, &slots).pages.lock().clone();
    assert!(slots.iter().all(|(slot, _)| pages.proven[*slot].identity == identity(slot.as_bytes())));
}

#[tokio::test]
async fn a_write_that_fails_is_told_of_once_and_tried_again_after_some_time() {
    let folder = tempfile::tempdir().unwrap();
    let (state, log) = (folder.path().join("state"), folder.path().join("log"));
    let subscriber = tracing_subscriber::fmt().with_writer(File::create(&log).unwrap()).finish();
    let _heard = tracing::subscriber::set_default(subscriber);
    let ledger = open(&state);
    let told = || {
        let log = std::fs::read_to_string(&log).unwrap();
        ["cannot be saved", "saved again"].map(|what| log.matches(what).count())
    };
    let write = || {
        ledger.write();
        (ledger.unsaved().is_some_and(|problem| problem.contains(LEDGERS)), told())
    };
    std::fs::write(state.join(LEDGERS), "not a folder").unwrap();
    assert_eq!([write(), write()], [(true, [1, 0]); 2]);
    std::fs::remove_file(state.join(LEDGERS)).unwrap();
    assert_eq!([write(), write()], [(false, [1, 1]); 2]);

    *ledger.unsaved.lock() = Some((String::new(), Instant::now()));
    let tried = || ledger.unsaved.lock().as_ref().map(|(_, tried)| *tried);
    let before = tried();
    ledger.retry();
    assert_eq!(tried(), before, "it is too early");
    ledger.unsaved.lock().as_mut().unwrap().1 -= RETRY;
    ledger.retry();
    soon(|| ledger.unsaved().is_none()).await;
    std::fs::remove_dir_all(state.join(LEDGERS)).unwrap();
    write_ledger(&ledger).await;
    assert!(state.join(file(&ledger.name)).exists());
}
