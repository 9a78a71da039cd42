//! Uploads of components to the admin listener.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::join;
use hotgate_tests::{Admin, Component, Gateway, Setup, eventually, skip, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start() -> (Gateway, Admin) {
    let gateway = Setup::plugin(&Component::version(1), "").start().await;
    let admin = gateway.admin().await;
    (gateway, admin)
}

/// Sends the head of an upload of this length. Returns the connection and the first answer.
async fn begin(admin: &Admin, length: u64) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(admin.address).await.expect("the port is open");
    let request = admin.request("PUT /plugins/plugin").and("Expect", "100-continue");
    stream.write_all(&request.and("Content-Length", &length.to_string()).encode()).await.expect("sent");
    let status = status(&mut stream).await;
    (stream, status)
}

async fn status(stream: &mut TcpStream) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n\r\n") && line.len() < 4096 {
        line.push(within("an answer", stream.read_u8()).await.expect("an answer"));
    }
    String::from_utf8_lossy(&line).chars().take("HTTP/1.1 000".len()).collect()
}

#[tokio::test]
async fn one_that_stands_still_is_given_up_and_meanwhile_others_are_told() {
    let (gateway, admin) = start().await;
    let (mut stalled, answer) = begin(&admin, 1000).await;
    assert_eq!(answer, "HTTP/1.1 100");
    stalled.write_all(b"\0asm").await.expect("sent");
    let deploy = async || admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await;
    let begin = Instant::now();
    let response = deploy().await;
    assert_eq!(response.status, 409, "{response:?}");
    assert!(response.error().contains("another deploy is running"), "{response:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(status(&mut stalled).await, "HTTP/1.1 408");
    gateway.logged(|line| line.message() == "admin request" && line.number("status") == 408).await;
    assert_eq!(deploy().await.status, 200);
}

#[tokio::test]
async fn one_that_is_too_large_is_refused_unseen() {
    let (_gateway, admin) = start().await;
    assert_eq!(begin(&admin, 1 << 40).await.1, "HTTP/1.1 413");
}

#[tokio::test]
async fn one_that_breaks_off_leaves_a_line_in_the_log() {
    let (gateway, admin) = start().await;
    drop(begin(&admin, 1000).await);
    let line = gateway.logged(|line| line.message().starts_with("admin request")).await;
    assert_eq!((line.get("method"), line.get("path")), ("PUT", "/plugins/plugin"));
    assert_eq!(admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await.status, 200);
}

/// Starts a gateway with the same file in both roles, but different settings: two slots.
async fn start_twice() -> (Gateway, Admin) {
    let entry = |name: &str| format!("file = \"plugin.wasm\"\nsettings = {{ NAME = \"{name}\" }}\n");
    let config = format!("[[authenticator]]\n{}[router]\n{}", entry("a"), entry("b"));
    let gateway = Setup::new(&config).file("plugin.wasm", &Component::version(1)).start().await;
    let admin = gateway.admin().await;
    (gateway, admin)
}

#[tokio::test]
async fn deploys_to_two_slots_of_one_file_at_once_succeed_or_say_so_and_never_leave_half_a_file() {
    let (gateway, admin) = start_twice().await;
    let file = gateway.file("plugin.wasm");
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o640)).expect("its mode");
    let components = [Component::version(2), Component::version(3)];
    for round in 0..40 {
        let (one, two) = (&components[round % 2], &components[(round + round / 2 + 1) % 2]);
        let put = |slot: &str| admin.request(&format!("PUT /plugins/{slot}"));
        let both = join(admin.send(put("authenticator"), one.bytes()), admin.send(put("router"), two.bytes())).await;
        for response in [both.0, both.1] {
            match response.status {
                200 => assert_eq!(response.json()["slots"], serde_json::json!(["authenticator", "router"])),
                409 => assert!(response.error().contains("another deploy"), "{response:?}"),
                _ => panic!("{response:?}"),
            }
        }
        let found = std::fs::read(file.path()).expect("a file");
        assert!(components.iter().any(|component| component.bytes() == found), "round {round}");
        assert_eq!(file.path().metadata().expect("a file").mode() & 0o777, 0o640);
    }
    assert_eq!(std::fs::read_dir(gateway.folder()).expect("a folder").count(), 2);
}

#[tokio::test]
async fn a_deploy_while_another_process_deploys_to_the_same_file_is_refused() {
    let (gateway, admin) = start().await;
    let unfinished =
        std::fs::File::create(gateway.folder().join(".plugin.wasm.unfinished")).expect("a writable folder");
    unfinished.lock().expect("nobody else has it");
    let deploy = async || admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await;
    let refused = deploy().await;
    assert!(refused.status == 409 && refused.error().contains("another deploy to"), "{refused:?}");
    drop(unfinished);
    assert_eq!(deploy().await.status, 200);
}

#[tokio::test]
async fn a_deploy_in_the_place_of_a_link_says_where_that_led() {
    let setup = Setup::plugin(&Component::version(1), "").file("v1.wasm", &Component::version(1));
    std::fs::remove_file(setup.path().join("plugin.wasm")).expect("a file");
    symlink("v1.wasm", setup.path().join("plugin.wasm")).expect("a link");
    let gateway = setup.file("next", &Component::version(2)).start().await;
    let deployed = gateway.plugin(&["deploy", "next"]).await;
    assert_eq!(deployed.code, Some(0), "{deployed:?}");
    assert!(deployed.stdout.contains("was a symbolic link to v1.wasm"), "{deployed:?}");
    assert_eq!(std::fs::read(gateway.file("v1.wasm").path()).expect("it"), Component::version(1).bytes());
    gateway.connect().await.expect("hello v2").await;
}

#[tokio::test]
async fn what_could_not_be_written_in_time_changes_nothing_later() {
    let (gateway, admin) = start().await;
    let process = gateway.id().to_string();
    // Makes each flush to the disk take longer than the gateway waits.
    let slow = "inject=fsync:delay_enter=12s";
    let strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync", "-e", slow, "-p", &process])
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut strace) = strace else {
        return skip("this needs strace");
    };
    let status = || std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    eventually("it is traced, or must not be", async || {
        !status().contains("TracerPid:\t0\n") || strace.try_wait().expect("a child").is_some()
    })
    .await;
    if strace.try_wait().expect("a child").is_some() {
        return skip("strace may not trace other processes here");
    }
    let response = admin.send(admin.request("PUT /plugins/plugin"), Component::version(2).bytes()).await;
    assert_eq!(response.status, 500, "{response:?}");
    assert!(response.error().contains("within 10s"), "{response:?}");
    let unfinished = gateway.folder().join(".plugin.wasm.unfinished");
    eventually("what was written is given up", async || !unfinished.exists()).await;
    assert_eq!(std::fs::read(gateway.file("plugin.wasm").path()).expect("it"), Component::version(1).bytes());
    _ = strace.kill();
    _ = strace.wait();
}
