//! What is remembered when the gateway starts again, however it ended.

use hotgate_tests::{Component, Setup};

use crate::rollback::{SLOT, plugin, plugins};

#[tokio::test]
async fn a_restart_does_not_load_again_what_was_rolled_back() {
    let mut gateway = Setup::plugin(&Component::version(1), "").start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    plugin(&gateway, &["rollback", SLOT]).await;
    gateway.connect().await.expect("hello v1").await;

    gateway.restart().await;
    let refused = gateway.refused_since(Default::default()).await;
    assert!(refused.get("reason").contains("because an operator said so"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;

    plugin(&gateway, &["reload", SLOT]).await;
    gateway.connect().await.expect("hello v2").await;
    plugin(&gateway, &["promote", SLOT]).await;
    gateway.restart().await;
    assert_eq!(plugins(&gateway).await["live"]["stage"], "live");
    gateway.connect().await.expect("hello v2").await;
}

#[tokio::test]
async fn what_a_restart_finds_new_takes_the_same_way() {
    let mut gateway = Setup::plugin(&Component::version(1), "deploy = { canary = 100 }").start().await;
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.logged(|line| line.message() == "plugin serves as a canary").await;
    gateway.restart().await;
    let status = plugins(&gateway).await;
    assert_eq!(
        (&status["live"]["stage"], &status["candidate"]["stage"]),
        (&"live".into(), &"canary".into()),
        "{status}"
    );
    gateway.connect().await.expect("hello v2").await;
    plugin(&gateway, &["rollback", SLOT]).await;
    gateway.connect().await.expect("hello v1").await;

    // Neither is a component that does not do a reason not to start.
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=3;check=refuse not today"));
    gateway.restart().await;
    let refused = gateway.refused_since(Default::default()).await;
    assert!(refused.get("reason").contains("not today"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn a_rollback_that_was_answered_is_not_forgotten() {
    let mut gateway = Setup::plugin(&Component::version(1), "").start().await;
    for version in 2..8 {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(version));
        gateway.swapped_since(mark).await;
        // Without a pause between the answer and the end.
        gateway.admin().await.json(&format!("POST /plugins/{}/rollback", SLOT.replace('+', "%2B"))).await;
        gateway.restart().await;
        gateway.connect().await.expect("hello v1").await;
    }
}

#[tokio::test]
async fn a_rollback_by_itself_is_not_forgotten_when_the_gateway_is_told_to_end() {
    let mut gateway = Setup::plugin(&Component::version(1), "").start().await;
    let mut clients = Vec::new();
    for n in 0..5 {
        clients.push(gateway.enter(&format!("c{n}")).await);
    }
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=2;trap-on=unlucky"));
    gateway.swapped_since(mark).await;
    for client in &mut clients {
        client.send("say unlucky").await;
    }
    gateway.logged_since(mark, |line| line.message() == "plugin rolled back").await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    gateway.start_again().await;
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn a_component_is_there_after_many_candidates() {
    let mut gateway = Setup::plugin(&Component::version(1), "deploy = { canary = 10 }").start().await;
    for version in 2..14 {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(version));
        gateway.logged_since(mark, |line| line.message() == "plugin serves as a canary").await;
    }
    plugin(&gateway, &["rollback", SLOT]).await;
    gateway.restart().await;
    gateway.connect().await.expect("hello v1").await;
    assert_eq!(plugins(&gateway).await["live"]["stage"], "live");
}

#[tokio::test]
async fn where_nothing_else_is_left_what_was_rolled_back_serves_again() {
    let mut gateway = Setup::plugin(&Component::version(1), "").start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    plugin(&gateway, &["rollback", SLOT]).await;
    std::fs::remove_dir_all(gateway.state_folder().join("components")).expect("they are there");
    gateway.restart().await;
    gateway.logged(|line| line.says("nothing else is there")).await;
    gateway.connect().await.expect("hello v2").await;
}

#[tokio::test]
async fn a_new_secret_at_a_restart_does_not_bring_back_what_was_rolled_back() {
    let setup = Setup::plugin(&Component::fixture(""), "settings = { VERSION = { file = \"version\" } }");
    let mut gateway = setup.bytes("version", b"1").start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::fixture("greet=ask bad"));
    gateway.swapped_since(mark).await;
    plugin(&gateway, &["rollback", SLOT]).await;
    std::fs::write(gateway.folder().join("version"), "2").expect("a writable folder");
    gateway.restart().await;
    gateway.connect().await.expect("hello v2").await;
}
