//! Swaps: what is offered to a slot, from files and settings, and how it comes to serve.

use std::path::Path;

use super::*;
use crate::base::message::ConnectionId;
use crate::config::WatchConfig;

#[tokio::test]
async fn what_will_not_do_leaves_the_live_one_serving() {
    let slot = builtin_slot().await;
    let whole = marked(b'a');
    let cases: [(&[u8], &str); 9] = [
        (b"", "the file is empty"),
        (b"(component)", "not a WebAssembly component"),
        (b"\0asm\x01\0\0\0", "a WebAssembly module, not a component"),
        (b"\0asm\x0c\0\x01\0", "it is a component in an older encoding: rebuild it"),
        (b"\0asm\x0e\0\x01\0", "it is a component in a newer encoding: rebuild it"),
        (b"\0asm\x0b\0\0\0", "not a WebAssembly component"),
        (&whole[..8], "it must export hotgate:gateway/lifecycle@0.1.0"),
        (&whole[..whole.len() / 2], "cannot be compiled"),
        (deploy::builtin::component("origin-router").unwrap(), "it is no authenticator"),
    ];
    for (code, reason) in cases {
        let error = offer(&slot, code.to_vec()).await.unwrap_err();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
    }
    assert_eq!(slot.live().number(), 1);
    assert!(greet(&slot, Isolation::PerCall).await.unwrap());
}

#[test]
fn the_digest_is_what_sha256sum_says() {
    let digest = Digest::of(b"abc");
    assert_eq!(digest.full(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(digest.to_string(), "ba7816bf8f01");
}

/// Waits until the component with this mark is live.
async fn becomes(slot: &Slot, mark: u8) {
    let wanted = digest(&marked(mark));
    eventually(|| async { slot.live().digest() == wanted }).await;
}

fn watch(slot: &Arc<Slot>) -> FileWatchers {
    // These tests rely on the events of the operating system, so there is no rescan.
    let config = WatchConfig { settle: Duration::from_millis(20), rescan: Duration::from_secs(3600) };
    FileWatchers::start(std::slice::from_ref(slot), &config)
}

fn move_over(file: &Path, code: &[u8]) {
    let new = file.with_extension("new");
    std::fs::write(&new, code).unwrap();
    std::fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn files_are_swapped_in_however_they_are_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("auth.wasm");
    std::fs::write(&file, marked(b'a')).unwrap();
    let slot = slot(PluginSource::File(file.clone())).await;
    let _watch = watch(&slot);

    std::fs::write(&file, marked(b'b')).unwrap();
    becomes(&slot, b'b').await;
    move_over(&file, &marked(b'c'));
    becomes(&slot, b'c').await;

    let whole = marked(b'd');
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(slot.live().digest(), digest(&marked(b'c')));
    std::fs::write(&file, whole).unwrap();
    becomes(&slot, b'd').await;

    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(greet(&slot, Isolation::PerCall).await.unwrap());
    std::fs::write(&file, marked(b'e')).unwrap();
    becomes(&slot, b'e').await;

    std::fs::remove_dir_all(folder.path()).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::fs::create_dir(folder.path()).unwrap();
    std::fs::write(&file, marked(b'f')).unwrap();
    becomes(&slot, b'f').await;
    assert_eq!(slot.live().number(), 6);
}

#[tokio::test]
async fn links_are_followed_wherever_they_come_to_point() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let link = |target: &str, name: &str| {
        std::os::unix::fs::symlink(target, path("new")).unwrap();
        std::fs::rename(path("new"), path(name)).unwrap();
    };
    for (name, mark) in [("v1", b'a'), ("v2", b'b')] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("auth.wasm"), marked(mark)).unwrap();
    }
    // Kubernetes mounts its volumes like this.
    link("v1", "..data");
    link("..data/auth.wasm", "auth.wasm");
    let slot = slot(PluginSource::File(path("auth.wasm"))).await;
    let _watch = watch(&slot);
    // Waits until the folders are watched.
    tokio::time::sleep(Duration::from_millis(100)).await;

    link("v2", "..data");
    becomes(&slot, b'b').await;
    std::fs::write(path("v2").join("auth.wasm"), marked(b'c')).unwrap();
    becomes(&slot, b'c').await;
    link("v1/auth.wasm", "auth.wasm");
    becomes(&slot, b'a').await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wins_a_race_of_swaps_and_rollbacks_serves_alone() {
    let slot = builtin_slot().await;
    let mut racing = tokio::task::JoinSet::new();
    for mark in 0..6 {
        let (own, back) = (slot.clone(), slot.clone());
        racing.spawn(async move { offer(&own, marked(b'a' + mark)).await.is_ok() });
        racing.spawn(async move {
            tokio::time::sleep(Duration::from_millis(u64::from(mark) * 40)).await;
            back.rollback(None).await.is_ok()
        });
        racing.spawn({
            let slot = slot.clone();
            async move { greet(&slot, Isolation::Pooled).await.is_ok() }
        });
    }
    while racing.join_next().await.transpose().unwrap().is_some() {}
    let status = slot.status();
    assert_eq!(status.live.generation, slot.live().number());
    assert!(status.candidate.is_none());
    let refused = |event: &&status::Event| event.what == status::EventKind::RolledBack;
    for event in status.history.iter().filter(refused) {
        assert_ne!(event.generation, Some(status.live.generation), "a generation that was rolled back serves");
        assert_ne!(event.generation, status.previous.as_ref().map(|kept| kept.generation));
    }
    for generation in slot.state(|state| state.rollout.generations()) {
        assert!(generation.idle_instances() == 0 || generation.number() == slot.live().number());
    }
    assert!(greet(&slot, Isolation::Pooled).await.unwrap());
}

#[tokio::test]
async fn what_was_rolled_back_is_not_offered_again_until_somebody_insists() {
    let slot = builtin_slot().await;
    offer(&slot, marked(b'a')).await.unwrap();
    slot.rollback(None).await.unwrap();
    assert_eq!(slot.live().number(), 1);
    let refused = offer(&slot, marked(b'a')).await.unwrap_err();
    assert!(refused.contains("it was rolled back with these settings") && refused.contains("an operator"), "{refused}");
    offer(&slot, marked(b'b')).await.unwrap();
    assert_eq!(slot.status().live.generation, 3);
    assert!(slot.rollback(None).await.is_ok() && slot.rollback(None).await.is_err());
}

#[tokio::test]
async fn other_settings_make_another_generation_and_no_compilation() {
    let slot = builtin_slot().await;
    let settings = |value: &str| Settings::from_iter([("KEY".to_owned(), value.to_owned())]);
    configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap();
    configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap();
    assert_eq!(slot.live().number(), 2);
    slot.rollback(None).await.unwrap();
    assert_eq!((slot.live().number(), slot.live().environment().values.len()), (1, 0));
    let refused = configure(&slot, &settings("1"), &PluginDeploy::default()).await.unwrap_err();
    assert!(refused.contains("it was rolled back"), "{refused}");
    configure(&slot, &settings("2"), &PluginDeploy::default()).await.unwrap();
    assert_eq!(slot.live().environment().values["KEY"], "2");
    assert!(!format!("{:?}", slot.status()).contains("KEY"));
}

#[tokio::test]
async fn a_canary_serves_its_share_of_the_connections_that_open_from_now_on() {
    let slot = builtin_slot().await;
    let deploy = PluginDeploy { canary: 25, ..PluginDeploy::default() };
    configure(&slot, &Settings::default(), &deploy).await.unwrap();
    let before: Vec<_> = (0..1000).map(|_| ConnectionId::next()).collect();
    offer(&slot, marked(b'a')).await.unwrap();
    let after: Vec<_> = (0..1000).map(|_| ConnectionId::next()).collect();
    let served = |connections: &[ConnectionId]| {
        connections.iter().filter(|connection| slot.serving(**connection).number() == 2).count()
    };
    assert_eq!(served(&before), 0);
    assert!((200..300).contains(&served(&after)), "{}", served(&after));
    slot.promote(None).await.unwrap();
    assert_eq!((served(&before), served(&after)), (1000, 1000));
}

#[tokio::test]
async fn putting_back_what_is_live_withdraws_the_candidate() {
    let slot = builtin_slot().await;
    let deploy = PluginDeploy { shadow: 100, ..PluginDeploy::default() };
    configure(&slot, &Settings::default(), &deploy).await.unwrap();
    offer(&slot, marked(b'a')).await.unwrap();
    assert_eq!(slot.status().candidate.unwrap().stage, status::Stage::Shadow);
    let live = deploy::builtin::component(BUILTIN).unwrap().to_vec();
    offer(&slot, live.clone()).await.unwrap();
    assert!(slot.status().candidate.is_none());
    offer(&slot, marked(b'a')).await.unwrap();
    assert!(slot.status().candidate.is_some(), "it was not refused");
}
