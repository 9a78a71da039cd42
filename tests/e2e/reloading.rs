//! Reloading the configuration while the gateway runs.

use std::path::Path;
use std::time::Duration;

use hotgate_tests::{Client, Component, Gateway, Line, Setup, skip};

/// A configuration with the fixture in both roles and these settings. One of them is its version.
fn config(settings: &str) -> String {
    let entry = format!("file = \"plugin.wasm\"\nsettings = {{ {settings} }}\n");
    format!("[watch]\nrescan = \"1h\"\n[[authenticator]]\n{entry}[router]\n{entry}")
}

async fn start(settings: &str) -> Gateway {
    Setup::new(&config(settings)).file("plugin.wasm", &Component::fixture("")).bytes("version", b"1\n").start().await
}

/// Replaces a file of the gateway's folder.
pub(crate) fn write(gateway: &Gateway, name: &str, text: &str) {
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
async fn a_byte_order_mark_is_no_part_of_a_secret_nor_of_the_configuration() {
    let marked = config("VERSION = { file = \"version\" }");
    let setup = Setup::new(&format!("\u{feff}{marked}")).file("plugin.wasm", &Component::fixture(""));
    let gateway = setup.bytes("version", b"\xef\xbb\xbf1\r\n").start().await;
    let mut anna = gateway.enter("anna").await;
    expect_version(&mut anna, 1).await;
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
    // SIGHUP makes the gateway say it again.
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
    let listed = gateway.plugin(&["list"]).await.stdout;
    assert!(listed.contains("the settings on disk do not serve") && listed.contains("VERSION must be odd"), "{listed}");
    // A component that accepts the new settings is swapped in with them.
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
    // There may be one more refusal, if the gateway looks at the file only now.
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

#[tokio::test]
async fn new_code_is_not_refused_for_settings_that_are() {
    let gateway = start("VERSION = \"1\"").await;
    let mut anna = gateway.enter("anna").await;
    let refused = config("VERSION = \"1\", CHECK = \"refuse not today\"");
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &refused);
    gateway.logged_since(mark, |line| line.says("settings refused")).await;
    // The refused settings stop no new component: not from its file, and not by hand.
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 2).await;
    std::fs::write(gateway.folder().join("build.wasm"), Component::version(3).bytes()).expect("a writable folder");
    let deployed = gateway.plugin(&["deploy", "build.wasm"]).await;
    assert_eq!(deployed.code, Some(0), "{deployed:?}");
    assert!(deployed.stdout.contains("the settings on disk do not serve"), "{deployed:?}");
    expect_version(&mut anna, 3).await;
}

#[tokio::test]
async fn what_was_refused_for_its_settings_serves_once_they_are_right_again() {
    let gateway = start("VERSION = \"1\"").await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config("CHECK = \"refuse not today\""));
    gateway.logged_since(mark, |line| line.says("settings refused")).await;
    // This component fails with the live settings and with the refused settings.
    gateway.file("plugin.wasm").move_over(&Component::fixture("version=2;check=need KEY"));
    let refused = gateway.refused_since(mark).await;
    assert!(refused.get("reason").contains("KEY is missing"), "{refused:?}");
    let listed = gateway.plugin(&["list"]).await.stdout;
    assert!(listed.contains("the component on disk (") && listed.contains("KEY is missing"), "{listed}");
    write(&gateway, "hotgate.toml", &config("VERSION = \"1\", KEY = \"x\""));
    gateway.swapped_since(mark).await;
    expect_version(&mut anna, 2).await;
    let listed = gateway.plugin(&["list"]).await.stdout;
    assert!(!listed.contains("on disk"), "{listed}");
}

#[tokio::test]
async fn new_code_that_met_wrong_settings_serves_once_they_are_as_they_were() {
    let gateway = start("VERSION = \"1\"").await;
    let mut anna = gateway.enter("anna").await;
    let mark = gateway.log().mark();
    write(&gateway, "hotgate.toml", &config("VERSION = \"1\", CHECK = \"refuse not today\""));
    gateway.logged_since(mark, |line| line.says("settings refused")).await;
    gateway.file("plugin.wasm").move_over(&Component::version(2));
    let judged = |line: &Line| ["plugin refused", "plugin swapped"].contains(&line.message());
    gateway.logged_since(mark, judged).await;
    write(&gateway, "hotgate.toml", &config("VERSION = \"1\""));
    let serves = async || {
        anna.send("version").await;
        anna.text().await == "v2" && !gateway.plugin(&["list"]).await.stdout.contains("on disk")
    };
    hotgate_tests::eventually("what is on disk serves", serves).await;
}

#[tokio::test]
async fn what_one_plugin_lacks_does_not_hold_up_another() {
    let text = |version: u32| {
        let first = "[[authenticator]]\nfile = \"a.wasm\"\nsettings = { KEY = { file = \"key\" } }\n";
        let second = format!("[router]\nfile = \"b.wasm\"\nsettings = {{ VERSION = \"{version}\" }}\n");
        format!("[watch]\nrescan = \"1h\"\n{first}{second}")
    };
    let setup = Setup::new(&text(1)).file("a.wasm", &Component::version(1)).bytes("key", b"x");
    let gateway = setup.file("b.wasm", &Component::fixture("")).start().await;
    let mut anna = gateway.enter("anna").await;
    expect_version(&mut anna, 1).await;
    let mark = gateway.log().mark();
    gateway.file("a.wasm").delete();
    let missing = gateway.logged_since(mark, |line| line.says("cannot be read")).await;
    assert_eq!((missing.get("slot"), missing.get("level")), ("authenticator", "WARN"));
    std::fs::remove_file(gateway.folder().join("key")).expect("it is there");
    let refused = gateway.logged_since(mark, |line| line.says("settings refused")).await;
    assert_eq!(refused.get("slot"), "authenticator");

    write(&gateway, "hotgate.toml", &text(2));
    assert_eq!(gateway.swapped_since(mark).await.get("slot"), "router");
    expect_version(&mut anna, 2).await;
    // An invalid configuration does not delay a new secret.
    write(&gateway, "hotgate.toml", "[[authenticator]\n");
    gateway.logged_since(mark, |line| line.says("configuration refused")).await;
    let after = gateway.log().mark();
    write(&gateway, "key", "y");
    gateway.swapped_since(after).await;
    let wrong = gateway.log().since(mark).into_iter().filter(|line| line.says("configuration refused"));
    assert_eq!(wrong.count(), 1, "nothing else is wrong with it");
}

#[tokio::test]
async fn a_busy_folder_is_no_reason_to_read_the_configuration_again() {
    let comment = format!("# {}\n", "x".repeat(98)).repeat(5_000);
    let gateway =
        Setup::new(&(comment + &config("VERSION = \"1\""))).file("plugin.wasm", &Component::fixture("")).start().await;
    let bytes_read = || {
        let counts = std::fs::read_to_string(format!("/proc/{}/io", gateway.id())).ok()?;
        counts.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok())
    };
    // Waits until the gateway is at rest.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let Some(before) = bytes_read() else {
        return skip("this system does not count what is read");
    };
    for number in 0..40 {
        std::fs::write(gateway.folder().join("busy"), format!("{number}")).expect("a writable folder");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let read = bytes_read().expect("counted") - before;
    assert!(read < 400_000, "{read} bytes were read, and the configuration has 500,000");
}
