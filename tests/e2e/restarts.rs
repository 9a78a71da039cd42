//! What a gateway remembers after a restart, however it ended.

use std::time::{Duration, Instant};

use hotgate_tests::{Component, Gateway, Setup};

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
    assert!(refused.get("reason").contains("because an operator requested it"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;
    // Longer than the gateway needs to look at the file a second time.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(count(&gateway, "plugin refused"), 1);

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
    gateway.logged(|line| line.message() == "plugin serves as a canary").await;
    let status = plugins(&gateway).await;
    assert_eq!(
        (&status["live"]["stage"], &status["candidate"]["stage"]),
        (&"live".into(), &"canary".into()),
        "{status}"
    );
    gateway.connect().await.expect("hello v2").await;
    plugin(&gateway, &["rollback", SLOT]).await;
    gateway.connect().await.expect("hello v1").await;

    // A component that is refused does not prevent the start either.
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
        // Kills the gateway right after the answer.
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
    gateway.logged(|line| line.says("there is no other")).await;
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

/// The number of log lines with this message.
fn count(gateway: &Gateway, message: &str) -> usize {
    gateway.log().since(Default::default()).iter().filter(|line| line.message() == message).count()
}

#[tokio::test]
async fn a_start_does_not_wait_for_what_is_new_on_disk() {
    let limits = "limits = { check_timeout = \"8s\" }";
    let mut gateway = Setup::plugin(&Component::version(1), limits).start().await;
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=2;check=do loop"));
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    let begun = Instant::now();
    gateway.start_again().await;
    gateway.connect().await.expect("hello v1").await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    let refused = gateway.refused_since(Default::default()).await;
    assert!(refused.get("reason").contains("limits.check_timeout"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;
}

#[tokio::test]
async fn a_start_needs_neither_the_file_nor_the_secret_that_it_had() {
    let settings = "settings = { VERSION = { file = \"version\" } }";
    let mut gateway = Setup::plugin(&Component::fixture(""), settings).bytes("version", b"1").start().await;
    let secret = gateway.folder().join("version");
    gateway.connect().await.expect("hello v1").await;
    gateway.file("plugin.wasm").delete();
    std::fs::remove_file(&secret).expect("it is there");
    gateway.restart().await;
    gateway.connect().await.expect("hello v1").await;
    let missing = gateway.logged(|line| line.message() == "the plugin's files cannot be checked").await;
    assert!(missing.get("file").ends_with("plugin.wasm"), "{missing:?}");
    let refused = gateway.logged(|line| line.message().starts_with("settings refused")).await;
    assert!(refused.get("reason").contains("settings.VERSION: cannot use the file"), "{refused:?}");
    let listed = plugin(&gateway, &["list"]).await;
    assert!(listed.contains("the component on disk does not serve: it cannot be read"), "{listed}");
    assert!(listed.contains("the settings on disk do not serve: settings.VERSION"), "{listed}");

    // Secret and component come back independently of each other.
    let mark = gateway.log().mark();
    std::fs::write(&secret, "2").expect("a writable folder");
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(3));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v3").await;
    let listed = plugin(&gateway, &["list"]).await;
    assert!(!listed.contains("on disk"), "{listed}");
}

#[tokio::test]
async fn what_was_rolled_back_is_remembered_when_its_slot_is_renamed_and_forgotten_when_nothing_names_its_file() {
    let mut gateway =
        Setup::plugin(&Component::version(1), "").file("other.wasm", &Component::fixture("greet=pass")).start().await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    plugin(&gateway, &["rollback", SLOT]).await;

    gateway.reconfigure(
        "[[authenticator]]\nfile = \"other.wasm\"\n[[authenticator]]\nfile = \"plugin.wasm\"\n[router]\nfile = \"plugin.wasm\"\n",
    );
    gateway.restart().await;
    let refused = gateway.refused_since(Default::default()).await;
    assert_eq!(refused.get("slot"), "authenticator-2+router");
    assert!(refused.get("reason").contains("because an operator requested it"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;

    let kept = |gateway: &Gateway, folder: &str| {
        std::fs::read_dir(gateway.state_folder().join(folder)).expect("it is there").count()
    };
    assert_eq!(kept(&gateway, "slots"), 2);
    gateway.reconfigure("");
    gateway.restart().await;
    gateway.login("anna").await.close().await;
    assert_eq!((kept(&gateway, "slots"), kept(&gateway, "components")), (2, 2), "those of the built-in pair");
}

#[tokio::test]
async fn two_gateways_do_not_share_a_state_folder() {
    let mut gateway = Gateway::start().await;
    let state = gateway.state_folder();
    let second = Setup::new(&format!("state_folder = {state:?}"));
    let arguments = ["--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
    let refused = second.run(&arguments).await;
    assert_eq!(refused.code, Some(78), "{refused:?}");
    let words = [format!("process {}", gateway.id()), state.display().to_string(), "state_folder".to_owned()];
    assert!(words.iter().all(|words| refused.stderr.contains(words)), "{refused:?}");
    gateway.login("anna").await;

    gateway.restart().await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    second.start().await.login("anna").await;
}

#[tokio::test]
async fn a_secret_that_changed_while_nobody_ran_takes_the_place_of_the_one_before() {
    let settings = "settings = { VERSION = { file = \"version\" } }";
    let mut gateway = Setup::plugin(&Component::fixture(""), settings).bytes("version", b"1").start().await;
    let secret = gateway.folder().join("version");
    gateway.connect().await.expect("hello v1").await;
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    std::fs::write(&secret, "2").expect("a writable folder");
    gateway.start_again().await;
    gateway.connect().await.expect("hello v2").await;

    // If the file is missing, the last value serves, not the value before it.
    std::fs::remove_file(&secret).expect("it is there");
    gateway.restart().await;
    gateway.connect().await.expect("hello v2").await;
}
