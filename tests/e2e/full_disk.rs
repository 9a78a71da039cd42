//! A full disk, or a limit on file sizes: no file is half-written, live plugins serve on, and the operator is told.

use hotgate_tests::{Component, Gateway, Setup, eventually, skip};

use crate::rollback::{SLOT, plugin, plugins};

/// Starts a gateway with a plugin in both roles, and then limits the size of files that it writes. `None` if this
/// system has no such limit.
async fn start(bytes: &str) -> Option<Gateway> {
    let gateway = Setup::plugin(&Component::version(1), "").compiling().start().await;
    if !gateway.limit_files(bytes) {
        skip("this needs prlimit");
        return None;
    }
    Some(gateway)
}

fn names(gateway: &Gateway) -> Vec<String> {
    let entries = std::fs::read_dir(gateway.folder()).expect("a folder");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("read").file_name().into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_deploy_that_finds_no_room_leaves_the_file_as_it_was_and_says_so() {
    let Some(gateway) = start("4096").await else { return };
    let mut anna = gateway.enter("anna").await;
    let admin = gateway.admin().await;
    let deploy = async || admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await;
    let refused = deploy().await;
    assert_eq!(refused.status, 500, "{refused:?}");
    assert!(refused.error().contains("cannot write") && refused.error().contains("File too large"), "{refused:?}");
    assert_eq!(names(&gateway), ["hotgate.toml", "plugin.wasm"]);
    assert_eq!(std::fs::read(gateway.file("plugin.wasm").path()).expect("it"), Component::version(1).bytes());
    anna.send("version").await;
    anna.expect("v1").await;

    assert!(gateway.limit_files("unlimited"));
    assert_eq!(deploy().await.status, 200);
    anna.send("version").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn a_rollback_that_cannot_be_written_down_takes_place_is_told_and_is_written_once_there_is_room() {
    let Some(mut gateway) = start("unlimited").await else { return };
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    assert!(gateway.limit_files("0"));
    let answer = plugin(&gateway, &["rollback", SLOT]).await;
    assert!(answer.contains("rollbacks cannot be saved"), "{answer}");
    gateway.connect().await.expect("hello v1").await;
    assert!(plugins(&gateway).await["unsaved"].as_str().is_some_and(|problem| problem.contains("File too large")));
    gateway.logged(|line| line.message().starts_with("rollbacks cannot be saved")).await;

    assert!(gateway.limit_files("unlimited"));
    eventually("it is remembered", async || plugins(&gateway).await["unsaved"].is_null()).await;
    gateway.restart().await;
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn a_swap_takes_place_although_nothing_can_be_kept_of_it() {
    if !Setup::may_mount() {
        return skip("this needs a file system of its own (unshare -rm)");
    }
    // A limit on file sizes would also limit the plugin's memory, so this test uses a small disk.
    let gateway = Setup::plugin(&Component::version(1), "").compiling().disk("16k").start().await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    anna.send("version").await;
    anna.expect("v2").await;
    for words in ["compiled plugins cannot be kept", "the component is not kept"] {
        gateway.logged(|line| line.message().starts_with(words)).await;
    }
    // The path at which the gateway sees its disk.
    let state = format!("/proc/{}/root{}", gateway.id(), gateway.state_folder().display());
    for folder in ["compiled", "components", "slots"] {
        for entry in std::fs::read_dir(format!("{state}/{folder}")).into_iter().flatten() {
            let path = entry.expect("read").path();
            assert!(!path.to_string_lossy().contains("unfinished"), "{}", path.display());
        }
    }
}
