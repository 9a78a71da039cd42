//! Changes of plugin files: which of them swap a plugin, and which do not.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use hotgate_tests::{Client, Component, Gateway, Setup};

/// Starts a gateway with the fixture in both roles, from `plugin.wasm`. It notices only changes that the watcher
/// announces.
async fn start() -> Gateway {
    Setup::plugin(&Component::version(1), "").and("[watch]\nrescan = \"1h\"").start().await
}

/// Asks the live router for its version, and checks it.
async fn expect_version(client: &mut Client, version: u32) {
    client.send("version").await;
    client.expect(format!("v{version}")).await;
}

/// Changes the file, and expects that this version then serves the old connection and new connections.
async fn expect_swap(gateway: &Gateway, client: &mut Client, version: u32, change: impl FnOnce()) {
    let mark = gateway.log().mark();
    change();
    gateway.swapped_since(mark).await;
    expect_version(client, version).await;
    gateway.connect().await.expect(format!("hello v{version}")).await;
}

#[tokio::test]
async fn a_file_copied_over_is_live_within_a_second_or_little_more() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    expect_version(&mut anna, 1).await;
    let begin = Instant::now();
    expect_swap(&gateway, &mut anna, 2, || gateway.file("plugin.wasm").copy_over(&Component::version(2))).await;
    // The promise is one second on an idle machine. Here other tests run at the same time.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_file_moved_over_is_swapped() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let file = gateway.file("plugin.wasm");
    for version in 2..6 {
        expect_swap(&gateway, &mut anna, version, || file.move_over(&Component::version(version))).await;
    }
}

#[tokio::test]
async fn one_file_in_both_roles_is_one_plugin() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let file = gateway.file("plugin.wasm");
    for version in 2..5 {
        expect_swap(&gateway, &mut anna, version, || file.copy_over(&Component::version(version))).await;
    }
    let log = gateway.log().since(Default::default());
    assert_eq!(log.iter().filter(|line| line.message() == "plugin swapped").count(), 3);
}

#[tokio::test]
async fn the_log_tells_of_a_swap_what_is_live() {
    let gateway = start().await;
    let live = gateway.logged(|line| line.message() == "plugin live").await;
    assert_eq!(live.number("generation"), 1);
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    let swapped = gateway.swapped_since(mark).await;
    assert_eq!(swapped.number("generation"), 2);
    assert_eq!(swapped.get("plugin"), live.get("plugin"));
    assert_eq!(swapped.get("slot"), live.get("slot"));
    assert_ne!(swapped.get("digest"), live.get("digest"));
}

#[tokio::test]
async fn a_truncated_write_is_waited_for_or_refused_and_its_completion_swapped() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let next = Component::version(2);
    let (first, rest) = next.bytes().split_at(next.bytes().len() / 2);
    let mark = gateway.log().mark();
    fs::write(gateway.file("plugin.wasm").path(), first).expect("a writable folder");
    gateway.refused_since(mark).await;
    expect_version(&mut anna, 1).await;
    expect_swap(&gateway, &mut anna, 2, || {
        let mut file = fs::OpenOptions::new().append(true).open(gateway.file("plugin.wasm").path()).expect("the file");
        std::io::Write::write_all(&mut file, rest).expect("a writable file");
    })
    .await;
}

#[tokio::test]
async fn a_write_in_many_pieces_is_one_swap() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    expect_swap(&gateway, &mut anna, 2, || {
        let mut file = fs::File::create(gateway.file("plugin.wasm").path()).expect("a writable folder");
        for piece in Component::version(2).bytes().chunks(8 << 10) {
            std::io::Write::write_all(&mut file, piece).expect("a writable file");
            std::thread::sleep(Duration::from_millis(5));
        }
    })
    .await;
    let log = gateway.log().since(Default::default());
    assert!(!log.iter().any(|line| line.message() == "plugin refused"), "it was read before it was quiet");
}

#[tokio::test]
async fn a_deleted_plugin_keeps_serving_until_there_is_another() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    gateway.file("plugin.wasm").delete();
    for _ in 0..20 {
        expect_version(&mut anna, 1).await;
        gateway.connect().await.expect("hello v1").await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    expect_swap(&gateway, &mut anna, 2, || gateway.file("plugin.wasm").copy_over(&Component::version(2))).await;
}

#[tokio::test]
async fn the_same_bytes_are_no_swap() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let file = gateway.file("plugin.wasm");
    for _ in 0..3 {
        file.move_over(&Component::version(1));
        file.copy_over(&Component::version(1));
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let mark = gateway.log().mark();
    expect_swap(&gateway, &mut anna, 2, || file.copy_over(&Component::version(2))).await;
    assert_eq!(gateway.swapped_since(mark).await.number("generation"), 2);
}

#[tokio::test]
async fn of_two_quick_writes_the_last_stays() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let file = gateway.file("plugin.wasm");
    for version in [3, 5, 7] {
        let mark = gateway.log().mark();
        file.copy_over(&Component::version(version - 1));
        file.copy_over(&Component::version(version));
        let last = async || {
            anna.send("version").await;
            anna.text().await == format!("v{version}")
        };
        hotgate_tests::eventually("the last version is live", last).await;
        gateway.swapped_since(mark).await;
    }
}

#[tokio::test]
async fn a_symlink_that_flips_is_seen() {
    let setup =
        Setup::new("[[authenticator]]\nfile = \"live.wasm\"\n[router]\nfile = \"live.wasm\"\n[watch]\nrescan = \"1h\"")
            .file("v1.wasm", &Component::version(1))
            .file("v2.wasm", &Component::version(2));
    symlink("v1.wasm", setup.path().join("live.wasm")).expect("a symlink");
    let gateway = setup.start().await;
    let mut anna = gateway.enter("anna").await;
    let folder = gateway.folder();
    expect_swap(&gateway, &mut anna, 2, || {
        symlink("v2.wasm", folder.join("next")).expect("a symlink");
        fs::rename(folder.join("next"), folder.join("live.wasm")).expect("a rename");
    })
    .await;
}

#[tokio::test]
async fn a_folder_s_symlink_that_flips_is_seen() {
    // Kubernetes mounts a ConfigMap like this: plugin.wasm → ..data/plugin.wasm, ..data → a folder for each version.
    let setup = Setup::plugin(&Component::version(1), "").and("[watch]\nrescan = \"1h\"");
    let folder = setup.path().to_owned();
    let publish = |version: u32| {
        let name = format!("..version{version}");
        fs::create_dir(folder.join(&name)).expect("a folder");
        fs::write(folder.join(&name).join("plugin.wasm"), Component::version(version).bytes()).expect("a file");
        symlink(&name, folder.join("..next")).expect("a symlink");
        fs::rename(folder.join("..next"), folder.join("..data")).expect("a rename");
    };
    publish(1);
    fs::remove_file(folder.join("plugin.wasm")).expect("a file");
    symlink("..data/plugin.wasm", folder.join("plugin.wasm")).expect("a symlink");
    let gateway = setup.start().await;
    let mut anna = gateway.enter("anna").await;
    for version in 2..5 {
        expect_swap(&gateway, &mut anna, version, || publish(version)).await;
        fs::remove_dir_all(folder.join(format!("..version{}", version - 1))).expect("a folder");
    }
}

#[tokio::test]
async fn a_folder_that_is_created_anew_is_watched_again() {
    let setup = Setup::new(
        "[[authenticator]]\nfile = \"plugins/plugin.wasm\"\n[router]\nfile = \"plugins/plugin.wasm\"\n[watch]\nrescan = \"1h\"",
    );
    let plugins = setup.path().join("plugins");
    let create = |version| {
        fs::create_dir(&plugins).expect("a folder");
        fs::write(plugins.join("plugin.wasm"), Component::version(version).bytes()).expect("a file");
    };
    create(1);
    let gateway = setup.start().await;
    let mut anna = gateway.enter("anna").await;
    for version in 2..4 {
        fs::remove_dir_all(&plugins).expect("a folder");
        expect_version(&mut anna, version - 1).await;
        expect_swap(&gateway, &mut anna, version, || create(version)).await;
    }
    // Changes inside the new folder are noticed, too.
    expect_swap(&gateway, &mut anna, 4, || {
        fs::write(plugins.join("plugin.wasm"), Component::version(4).bytes()).expect("a file");
    })
    .await;
}

#[tokio::test]
async fn what_no_event_announces_is_found_by_the_rescan() {
    let gateway = Setup::plugin(&Component::version(1), "").and("[watch]\nrescan = \"500ms\"").start().await;
    let mut anna = gateway.enter("anna").await;
    // Writes to the file by another name, in a folder that is not watched.
    let elsewhere = tempfile::tempdir_in(gateway.folder()).expect("a folder");
    let alias = elsewhere.path().join("alias.wasm");
    fs::hard_link(gateway.file("plugin.wasm").path(), &alias).expect("a hard link");
    expect_swap(&gateway, &mut anna, 2, || {
        fs::write(&alias, Component::version(2).bytes()).expect("a writable file");
    })
    .await;
}

#[tokio::test]
async fn an_open_challenge_goes_on_with_the_generation_that_gave_it() {
    let gateway = start().await;
    let mut other = gateway.enter("other").await;
    let (mut anna, mut bob) = (gateway.connect().await, gateway.connect().await);
    anna.expect("hello v1").await;
    bob.expect("hello v1").await;
    anna.send("step").await;
    anna.expect("next v1").await;
    expect_swap(&gateway, &mut other, 2, || gateway.file("plugin.wasm").copy_over(&Component::version(2))).await;
    anna.send("login anna").await;
    anna.expect("welcome anna v1 after v1").await;
    // A client without a state is decided by the newest generation. The newest generation also routes for everybody.
    bob.send("login bob").await;
    bob.expect("welcome bob v2").await;
    expect_version(&mut anna, 2).await;
}

#[tokio::test]
async fn calls_in_flight_finish_on_their_generation() {
    let limits = "limits = { deadline = \"20s\" }";
    let gateway = Setup::plugin(&Component::version(1), limits).start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.send("nap 3000").await;
    anna.send("version").await;
    expect_version(&mut bob, 1).await;
    expect_swap(&gateway, &mut bob, 2, || gateway.file("plugin.wasm").move_over(&Component::version(2))).await;
    anna.expect("v1").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn a_plugin_of_a_compatible_contract_is_live() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let newer = Component::version(2).contract("0.1.9");
    expect_swap(&gateway, &mut anna, 2, || gateway.file("plugin.wasm").copy_over(&newer)).await;
}

#[tokio::test]
async fn the_default_plugins_as_files_are_swapped_like_any() {
    let (auth, router) = (Component::origin_auth(), Component::origin_router());
    let gateway = Setup::new("[[authenticator]]\nfile = \"auth.wasm\"\n[router]\nfile = \"router.wasm\"\n")
        .file("auth.wasm", &auth)
        .file("router.wasm", &router)
        .start()
        .await;
    let mut anna = gateway.login("anna").await;
    for (name, component) in [("auth.wasm", auth.tagged(1)), ("router.wasm", router.tagged(1))] {
        let mark = gateway.log().mark();
        gateway.file(name).move_over(&component);
        gateway.swapped_since(mark).await;
        assert!(gateway.reaches("anna").await);
        anna.expect(r#"{"uid":"anna"}"#).await;
        gateway.login("bob").await.close().await;
    }
}

#[tokio::test]
async fn a_file_that_is_written_all_the_time_is_live_all_the_same_and_the_log_says_so() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    let (file, next) = (gateway.file("plugin.wasm"), Component::version(2));
    let writing = async {
        loop {
            file.copy_over(&next);
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    };
    tokio::select! {
        () = writing => {}
        _ = gateway.swapped_since(mark) => {}
    }
    expect_version(&mut anna, 2).await;
    let says = gateway.logged_since(mark, |line| line.says("keeps changing")).await;
    assert!(says.message().contains("watch.settle") && says.get("file").ends_with("plugin.wasm"), "{says:?}");
}
