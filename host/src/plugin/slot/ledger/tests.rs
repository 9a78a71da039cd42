use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

fn settings(value: &str) -> Settings {
    Settings::from_iter([("KEY".to_owned(), value.to_owned())])
}

fn environment(settings: &Settings) -> Environment {
    Environment { settings: settings.clone(), values: settings.read().unwrap() }
}

fn identity(code: &[u8]) -> Identity {
    Identity::new(Digest::of(code), &Default::default())
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
