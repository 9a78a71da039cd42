//! Components that must not go live. Each is refused with a reason that names the cause, and the old plugin serves on.

use hotgate_tests::{Component, Gateway, Setup};

use crate::bystanders::Bystanders;

/// Puts each component in the place of the live plugin. Expects these words in the log, and that no client notices.
async fn expect_refused(cases: impl IntoIterator<Item = (&'static str, Component, &'static str)>) {
    let limits = "limits = { check_timeout = \"500ms\", memory = \"16MiB\", max_component = \"1MiB\" }";
    let gateway = Setup::plugin(&Component::version(1), limits).and("[watch]\nrescan = \"1h\"").start().await;
    let bystanders = Bystanders::watch(&gateway, 100).await;
    let file = gateway.file("plugin.wasm");
    for (place, (what, component, words)) in cases.into_iter().enumerate() {
        let mark = gateway.log().mark();
        if place % 2 == 0 {
            file.copy_over(&component);
        } else {
            file.move_over(&component);
        }
        let refused = gateway.refused_since(mark).await;
        let reason = refused.get("reason");
        assert!(reason.contains(words), "{what} was refused because {reason:?}");
        gateway.connect().await.expect("hello v1").await;
    }
    // After all the bad components, a good component goes live.
    let mark = gateway.log().mark();
    file.copy_over(&Component::version(2));
    gateway.swapped_since(mark).await;
    gateway.connect().await.expect("hello v2").await;
    bystanders.stop().await;
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let good = Component::version(9);
    expect_refused([
        ("an empty file", Component::from_bytes(b""), "the file is empty"),
        ("a text file", Component::from_bytes(b"(component)\n"), "not a WebAssembly component"),
        ("noise", Component::from_bytes(&[0x5a; 4096]), "not a WebAssembly component"),
        ("a core module", Component::from_bytes(b"\0asm\x01\0\0\0"), "module, not a component"),
        ("a header", good.truncated(8), "no exported instance named `hotgate:gateway/"),
        ("a quarter", good.truncated(good.bytes().len() / 4), "out of bounds"),
        ("all but a byte", good.truncated(good.bytes().len() - 1), "unexpected end-of-file"),
        ("more than is allowed", Component::from_bytes(&[0; (1 << 20) + 1]), "limits.max_component"),
    ])
    .await;
}

#[tokio::test]
async fn a_component_of_another_world_is_refused() {
    expect_refused([
        ("a command", Component::command(), "it exports wasi:cli/run@"),
        (
            "an authenticator as the router",
            Component::origin_auth(),
            "no exported instance named `hotgate:gateway/router@",
        ),
        (
            "a router as the authenticator",
            Component::origin_router(),
            "no exported instance named `hotgate:gateway/authenticator@",
        ),
        ("another version of the contract", Component::version(9).contract("0.2.0"), "hotgate:gateway/logging@0.2.0"),
    ])
    .await;
}

#[tokio::test]
async fn a_plugin_that_fails_its_check_is_refused() {
    expect_refused(
        [
            ("refuse the key is missing", "the key is missing"),
            ("do trap", "told to trap"),
            ("do exit", "exited with status 0"),
            ("do loop", "limits.check_timeout"),
            ("do sleep", "limits.check_timeout"),
            ("do bomb", "limits.memory"),
            ("do recurse", "stack"),
            ("do sprawl", "out of bounds memory access"),
        ]
        .map(|(check, words)| (check, Component::fixture(&format!("check={check}")), words)),
    )
    .await;
}

#[tokio::test]
async fn at_start_a_refused_plugin_is_a_refusal_to_start() {
    for (component, words) in [
        (Component::from_bytes(b"text"), "plugin.wasm"),
        (Component::from_bytes(b"\0asm\x0d\0\x01\0"), "plugin.wasm"),
        (Component::command(), "plugin.wasm"),
        (Component::fixture("check=refuse the key is missing"), "the key is missing"),
    ] {
        let setup = Setup::plugin(&component, "");
        let finished = setup
            .run(&["--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"])
            .await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(finished.stderr.contains(words), "{finished:?}");
    }
}

#[tokio::test]
async fn a_plugin_s_settings_decide_whether_it_goes_live() {
    let settings = |settings: &str| format!("settings = {{ {settings} }}");
    let setup = Setup::plugin(&Component::fixture(""), &settings("CHECK = \"refuse not with these settings\""));
    let finished = setup
        .run(&["--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"])
        .await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("not with these settings"), "{finished:?}");

    let setup = Setup::plugin(&Component::fixture(""), &settings("VERSION = \"of the settings\""));
    let gateway: Gateway = setup.start().await;
    gateway.connect().await.expect("hello vof the settings").await;
}
