//! The configuration, read again while the gateway runs.

use std::path::Path;

use hotgate_tests::{Client, Component, Gateway, Setup};

/// The fixture in both roles, with these settings; it takes its version from them.
fn config(settings: &str) -> String {
    let entry = format!("file = \"plugin.wasm\"\nsettings = {{ {settings} }}\n");
    format!("[watch]\nrescan = \"1h\"\n[[authenticator]]\n{entry}[router]\n{entry}")
}

async fn start(settings: &str) -> Gateway {
    Setup::new(&config(settings)).file("plugin.wasm", &Component::fixture("")).bytes("version", b"1\n").start().await
}

fn write(gateway: &Gateway, name: &str, text: &str) {
    let path = gateway.folder().join(name);
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("a writable folder");
    std::fs::rename(new, Path::new(&path)).expect("a writable folder");
}

async fn expect_version(client: &mut Client, version: u32) {
    client.send("version").await;
    client.expect(format!("v{version}")).await;
}

#[tokio::test]
async fn other_settings_are_another_generation() {
    let gateway = start("VERSION = \"1\"").await;
    let mut anna = gateway.enter("anna").await;
    for version in 2..5 {
        let mark = gateway.log().mark();
        write(&gateway, "hotgate.toml", &config(&format!("VERSION = \"{version}\"")));
        assert_eq!(gateway.swapped_since(mark).await.number("generation"), u64::from(version));
        expect_version(&mut anna, version).await;
    }
    let back = gateway.plugin(&["rollback", "authenticator+router"]).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    expect_version(&mut anna, 1).await;
}

#[tokio::test]
async fn a_secret_in_a_file_changes_with_the_file() {
    let gateway = start("VERSION = { file = \"version\" }").await;
    let mut anna = gateway.enter("anna").await;
    expect_version(&mut anna, 1).await;
    for version in 2..4 {
        let mark = gateway.log().mark();
        write(&gateway, "version", &format!("{version}\n"));
        gateway.swapped_since(mark).await;
        expect_version(&mut anna, version).await;
    }
    let mark = gateway.log().mark();
    write(&gateway, "version", "");
    let refused = gateway.logged_since(mark, |line| line.says("refused")).await;
    assert!(refused.says("settings.VERSION") && refused.says("it is empty"), "{refused:?}");
    expect_version(&mut anna, 3).await;
    write(&gateway, "version", "4");
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 4).await;
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing_and_says_why() {
    let gateway = start("VERSION = \"1\"").await;
    let mut anna = gateway.enter("anna").await;
    for (text, reason) in [
        ("[[authenticator]\n", "hotgate.toml:1"),
        ("[websocket]\nno_such_key = 1\n", "websocket.no_such_key: unknown key"),
        ("[[authenticator]]\nfile = \"gone.wasm\"\n", "gone.wasm"),
    ] {
        let mark = gateway.log().mark();
        write(&gateway, "hotgate.toml", text);
        let refused = gateway.logged_since(mark, |line| line.says("configuration refused")).await;
        assert!(refused.get("reason").contains(reason), "{refused:?}");
        expect_version(&mut anna, 1).await;
    }
    // Somebody who asks is told again.
    let mark = gateway.log().mark();
    gateway.signal("HUP");
    gateway.logged_since(mark, |line| line.says("reading the configuration again")).await;
    gateway.logged_since(mark, |line| line.says("configuration refused")).await;

    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config("VERSION = \"2\""));
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 2).await;
}

#[tokio::test]
async fn settings_that_the_plugin_refuses_leave_it_with_those_it_has() {
    let gateway = start("VERSION = \"1\"").await;
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config("VERSION = \"2\", CHECK = \"refuse VERSION must be odd\""));
    let refused = gateway.logged_since(mark, |line| line.says("settings refused")).await;
    assert!(refused.get("reason").contains("VERSION must be odd"), "{refused:?}");
    gateway.connect().await.expect("hello v1").await;
    // A component that agrees to them takes them.
    gateway.file("plugin.wasm").move_over(&Component::fixture("check=agree"));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
}

#[tokio::test]
async fn what_cannot_change_while_it_runs_waits_for_the_next_start() {
    let mut gateway = start("VERSION = \"1\"").await;
    let mark = gateway.log().mark();
    let text = config("VERSION = \"2\"") + "[websocket]\nmax_message = \"1KiB\"\n";
    write(&gateway, "hotgate.toml", &text);
    let waits = gateway.logged_since(mark, |line| line.says("next start")).await;
    assert_eq!(waits.get("keys"), "websocket.max_message");
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
    gateway.restart().await;
}

#[tokio::test]
async fn without_a_configuration_file_a_hangup_ends_nothing() {
    let gateway = Gateway::start().await;
    let mark = gateway.log().mark();
    gateway.signal("HUP");
    gateway.logged_since(mark, |line| line.says("configuration")).await;
    gateway.login("anna").await.close().await;
}

#[tokio::test]
async fn settings_wait_for_the_file_that_they_are_for() {
    let file = |name: &str, version: u32| {
        format!("[[authenticator]]\nfile = \"{name}\"\nsettings = {{ VERSION = \"{version}\" }}\n")
    };
    let watch = "[watch]\nrescan = \"50ms\"\n";
    let setup = Setup::new(&(watch.to_owned() + &file("a.wasm", 1) + &file("b.wasm", 2)));
    let setup = setup.file("a.wasm", &Component::fixture("greet=pass")).file("b.wasm", &Component::fixture(""));
    let gateway = setup.file("c.wasm", &Component::fixture("greet=pass")).start().await;
    for (text, waiting) in [
        (file("b.wasm", 2) + &file("a.wasm", 1), "the plugin of authenticator-1, the plugin of authenticator-2"),
        (file("c.wasm", 3) + &file("b.wasm", 2), "the plugin of authenticator-1"),
        (file("a.wasm", 1) + &file("b.wasm", 2) + &file("c.wasm", 3), "the plugin of authenticator-3"),
    ] {
        let mark = gateway.log().mark();
        write(&gateway, "hotgate.toml", &(watch.to_owned() + &text));
        let waits = gateway.logged_since(mark, |line| line.says("next start")).await;
        assert!(waits.get("keys").ends_with(waiting), "{waits:?}");
        assert!(!gateway.log().since(mark).iter().any(|line| line.message() == "plugin swapped"));
        let mut anna = gateway.connect().await;
        anna.expect("hello v2").await;
        anna.send("login anna").await;
        anna.expect("welcome anna v1").await;
    }
}

#[tokio::test]
async fn settings_that_do_not_do_are_not_tried_again_and_again() {
    let text = |version: &str, check: &str| {
        config(&format!("VERSION = \"{version}\", CHECK = \"{check}\"")).replace("\"1h\"", "\"20ms\"")
    };
    let gateway = Setup::new(&text("1", "agree")).file("plugin.wasm", &Component::fixture("")).start().await;
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &text("2", "refuse not today"));
    gateway.logged_since(mark, |line| line.says("settings refused")).await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let name = "hotgate_plugin_refusals_total{slot=\"authenticator+router\",plugin=\"plugin\"}";
    let refusals = async || gateway.admin().await.metric(name).await;
    // One more if the file was first looked at only now.
    let before = refusals().await;
    assert!(before <= 2.0, "{before} refusals");
    gateway.signal("HUP");
    hotgate_tests::eventually("somebody who insists is heard", async || refusals().await > before).await;
}

#[tokio::test]
async fn a_new_secret_does_not_bring_back_what_was_rolled_back() {
    let gateway = start("VERSION = { file = \"version\" }").await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    gateway.file("plugin.wasm").move_over(&Component::fixture("route=say bad"));
    gateway.swapped_since(mark).await;
    let back = gateway.plugin(&["rollback", "authenticator+router"]).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    let mark = gateway.log().mark();
    write(&gateway, "version", "2");
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 2).await;
}
