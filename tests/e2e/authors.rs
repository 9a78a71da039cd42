//! The commands of plugin authors: `hotgate plugin check`, `run`, `bench` and `new`.

use std::path::Path;

use hotgate_tests::{Component, Finished, Gateway, Setup};

/// Runs `hotgate plugin …` in a folder with this component as `plugin.wasm` and this text as `cases.toml`.
async fn plugin(component: &Component, cases: &str, arguments: &[&str]) -> Finished {
    let setup = Setup::new("").file("plugin.wasm", component).bytes("cases.toml", cases.as_bytes());
    setup.run(&[&["plugin"], arguments].concat()).await
}

async fn check(component: &Component, arguments: &[&str]) -> Finished {
    plugin(component, "", &[&["check", "plugin.wasm"], arguments].concat()).await
}

#[tokio::test]
async fn check_says_what_a_component_is_and_takes() {
    let checked = check(&Component::origin_auth(), &[]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    for expected in [
        "roles     authenticator\n",
        "hotgate:gateway@0.1.0: lifecycle, authenticator",
        "of machine code",
        "It can serve.",
    ] {
        assert!(checked.stdout.contains(expected), "{expected}: {checked:?}");
    }
    let json = check(&Component::origin_router(), &["--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!((&json["usable"], &json["router"], &json["authenticator"]), (&true.into(), &true.into(), &false.into()));
    assert_eq!(json["bytes"], Component::origin_router().bytes().len());
    assert!(
        json["taken"]["compile_ms"].as_u64() > Some(0) && json["taken"]["memory_bytes"].as_u64() > Some(65_535),
        "{json}"
    );
}

#[tokio::test]
async fn check_shows_what_a_check_that_agrees_has_logged() {
    let checked = check(&Component::fixture("check=do log-flood"), &[]).await;
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.stdout.contains("  check     logged (") && checked.stdout.contains("flood"), "{checked:?}");
}

#[tokio::test]
async fn what_one_tool_has_compiled_no_tool_compiles_again() {
    let cache = "XDG_CACHE_HOME";
    let setup = Setup::new("[compiler]\ntimeout = \"1ms\"").file("plugin.wasm", &Component::version(1));
    let place = setup.path().join("cache").display().to_string();
    let setup = setup.environment(cache, &place);
    let first = setup.run(&["plugin", "check", "plugin.wasm", "--json"]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    // If one of these compiled, it would exceed `compiler.timeout`.
    for arguments in [
        &["plugin", "check", "plugin.wasm", "--json"] as &[&str],
        &["plugin", "run", "plugin.wasm", "--packet", "login anna"],
        &["plugin", "bench", "plugin.wasm", "--packet", "login anna"],
    ] {
        let again = setup.run(&[arguments, &["--config", "hotgate.toml"]].concat()).await;
        assert_eq!(again.code, Some(0), "{again:?}");
        if arguments.contains(&"--json") {
            assert_eq!(again.stdout, first.stdout, "also how long compiling took");
        }
    }
}

#[tokio::test]
async fn secrets_with_what_nobody_sees_at_an_edge_are_refused_in_words() {
    let secret = "0123456789abcdef0123456789abcdef";
    for (plugin, name, value, words) in [
        ("builtin:hmac-auth", "HMAC_SECRET", format!("{secret}\n\n"), "white space or a line end"),
        ("builtin:jwt-auth", "JWT_SECRET", format!(" {secret}"), "white space or a line end"),
        ("builtin:jwt-auth", "JWT_SECRET", format!("{secret}\u{200b}"), "invisible character (U+200B)"),
        ("builtin:jwt-auth", "JWT_KEYS", "\u{feff}\u{feff}{}".to_owned(), "invisible character (U+FEFF)"),
    ] {
        let setup = Setup::new("").bytes("secret", value.as_bytes());
        let checked = setup.run(&["plugin", "check", plugin, "--setting", &format!("{name}=@secret")]).await;
        assert!(checked.code == Some(1) && checked.stdout.contains(words), "{checked:?}");
        assert!(checked.stdout.contains(name) && !checked.stdout.contains(secret), "{checked:?}");
    }
}

#[tokio::test]
async fn check_says_what_is_wrong_and_what_to_do() {
    let text = Component::from_bytes(b"fn main() {}\n");
    let module = Component::from_bytes(b"\0asm\x01\0\0\0");
    let cut = Component::origin_auth().truncated(5000);
    let later = Component::from_bytes(b"\0asm\x0e\0\x01\0");
    let network = "package wasi:http@0.2.6 { interface outgoing-handler { handle: func(); } }\n";
    let world = "world authentication {";
    let with_http = format!("{world}\n    import wasi:http/outgoing-handler@0.2.6;");
    let worlds = "/// The world of a plugin that authenticates clients.";
    let nested = format!("{network}{worlds}");
    let hollow = |changes: &[(&str, &str)]| Component::hollow("authentication", changes);
    let denied = "        /// The connection is closed with this reason, and no other authenticator is asked.\n        deny(close-reason),\n";
    for (component, problem, advice) in [
        (Component::from_bytes(b""), "the file is empty", "build the plugin again"),
        (text, "it is text, not WebAssembly", "wasm32-wasip2"),
        (module, "it is a core WebAssembly module, not a component", "wasm32-wasip2"),
        (cut, "it is a component that cannot be read", "build it again"),
        (later, "in an encoding that this gateway does not know", "current tools"),
        (Component::command(), "it is a command (it exports wasi:cli/run), not a plugin", "cdylib"),
        (
            hollow(&[(denied, "")]),
            "authenticator: `verdict` has 3 cases, the host knows 4: it lacks `deny` (both have version 0.1.0",
            "hotgate plugin new",
        ),
        (
            hollow(&[(denied, ""), ("@0.1.0", "@0.2.0")]),
            "`verdict` has 3 cases, the host knows 4: it lacks `deny`: built against hotgate:gateway/authenticator@0.2.0; \
             this host has 0.1.0",
            "hotgate plugin new",
        ),
        (
            hollow(&[("@0.1.0", "@0.2.0")]),
            "it was built against hotgate:gateway/authenticator@0.2.0; this host has 0.1.0",
            "hotgate plugin new",
        ),
        (
            hollow(&[("expires-at: option<u64>", "expires-at: option<string>")]),
            "`expires-at` of `identity` is string, the host knows u64",
            "hotgate plugin new",
        ),
        (
            hollow(&[("greet: func(handshake: handshake)", "greet: func()")]),
            "`greet` has 0 arguments, the host knows 1 (handshake)",
            "hotgate plugin new",
        ),
        (
            hollow(&[(
                "    log: func(level: level, message: string);",
                "    log: func(level: level, message: string);\n    shout: func();",
            )]),
            "logging: it calls `shout`, which the host does not have",
            "hotgate plugin new",
        ),
        (
            hollow(&[(world, &with_http), (worlds, &nested)]),
            "it imports wasi:http/outgoing-handler@0.2.6, which the gateway does not provide",
            "reaches no network",
        ),
        (
            hollow(&[("    export lifecycle;\n    export authenticator;", "    export authenticator;")]),
            "lifecycle@0.1.0",
            "`hotgate plugin new` writes one",
        ),
        (hollow(&[]), "its check failed: it trapped: ", ""),
    ] {
        let checked = check(&component, &[]).await;
        assert!(checked.code == Some(1) && checked.stdout.contains(problem), "{problem}: {checked:?}");
        assert!(
            checked.stdout.contains(advice) && checked.stdout.contains("It cannot serve."),
            "{advice}: {checked:?}"
        );
        assert!(checked.stdout.lines().count() < 40, "one screen: {checked:?}");
    }
}

#[tokio::test]
async fn check_asks_with_the_settings_that_are_given() {
    let picky = Component::fixture("check=refuse no KEY");
    let checked = check(&picky, &["--setting", "OTHER=x"]).await;
    assert!(checked.code == Some(1) && checked.stdout.contains("its own check refuses: no KEY"), "{checked:?}");
    assert!(checked.stdout.contains("--setting"), "{checked:?}");
    let needy = Component::fixture("check=need KEY");
    let without = check(&needy, &[]).await;
    assert!(without.code == Some(1) && without.stdout.contains("KEY is missing"), "{without:?}");
    assert_eq!(check(&needy, &["--setting", "KEY=x"]).await.code, Some(0));
    assert_eq!(check(&needy, &["--setting", "KEY=@cases.toml"]).await.code, Some(1), "it is empty");
    let missing = check(&picky, &["--setting", "KEY=@nowhere"]).await;
    assert!(missing.code == Some(1) && missing.stdout.contains("nowhere"), "{missing:?}");
    let wrong = check(&Component::origin_auth(), &["--role", "router"]).await;
    assert!(wrong.code == Some(1) && wrong.stdout.contains("it is no router"), "{wrong:?}");
    let usage = check(&picky, &["--setting", "KEY"]).await;
    assert!(usage.code == Some(2) && usage.stderr.contains("NAME=VALUE"), "{usage:?}");
    let absent = Setup::new("").run(&["plugin", "check", "absent.wasm"]).await;
    assert!(absent.code == Some(1) && absent.stderr.contains("cannot read absent.wasm"), "{absent:?}");
}

#[tokio::test]
async fn run_shows_what_a_plugin_answers() {
    let arguments = ["run", "plugin.wasm", "--packet", r#"{"id":7}"#];
    let ran = plugin(&Component::origin_auth(), "", &arguments).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stdout.contains(r#"{ challenge = { message = "HeartBeat" } }"#), "{ran:?}");
    assert!(ran.stdout.contains(r#"accept = { reply = "Link_successful", uid = "7" }"#), "{ran:?}");

    let arguments = ["run", "plugin.wasm", "--packet", r#"{"id":"u2","msg":"hi"}"#, "--line", "x"];
    let ran = plugin(&Component::origin_router(), "", &arguments).await;
    assert!(ran.stdout.contains(r#"[{ deliver = { message = "hi", to = { uid = "u2" } } }"#), "{ran:?}");
    assert!(ran.stdout.contains("refused = \"not JSON"), "{ran:?}");

    let arguments = ["run", "plugin.wasm", "--packet", "hello", "--packet", r#"{"id":7}"#, "--line", "x"];
    let denied = plugin(&Component::origin_auth(), "", &arguments).await;
    assert!(denied.stdout.contains("deny") && !denied.stdout.contains("accept"), "{denied:?}");
    assert!(
        denied.stdout.contains("closes this connection") && denied.stdout.contains("2 packets, lines or publications"),
        "{denied:?}"
    );

    let trapped =
        plugin(&Component::fixture(""), "", &["run", "plugin.wasm", "--packet", "login anna", "--packet", "do trap"])
            .await;
    assert!(trapped.code == Some(1) && trapped.stdout.contains("failed = \"trap\""), "{trapped:?}");
    assert!(trapped.stdout.contains("route"), "the functions it happened in: {trapped:?}");
}

#[tokio::test]
async fn the_built_in_plugins_keep_what_their_cases_promise() {
    let setup = Setup::new("");
    for name in ["echo-router", "hmac-auth", "jwt-auth", "origin-auth", "origin-router", "rooms-router"] {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins").join(name).join("cases.toml");
        let cases = cases.to_str().expect("a path in UTF-8");
        let ran = setup.run(&["plugin", "run", &format!("builtin:{name}"), "--cases", cases]).await;
        assert!(ran.code == Some(0) && ran.stdout.contains(", 0 failed"), "{name}: {ran:?}");
    }
}

#[tokio::test]
async fn a_case_that_fails_says_where() {
    let cases = r#"
        [[case]]
        name = "right"
        steps = [{ greet = true, expect = { challenge = { message = "HeartBeat" } } }]
        [[case]]
        name = "wrong"
        steps = [
            { greet = true },
            { authenticate = '{"id":"u1"}', expect = { accept = { uid = "u2", reply = false } } },
            { route = "hi" },
        ]
        [[case]]
        name = "not refused"
        check = "anything"
    "#;
    let ran = plugin(&Component::origin_auth(), cases, &["run", "plugin.wasm", "--cases", "cases.toml"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    for expected in [
        "ok    right\n",
        "FAIL  wrong\n",
        "step 2: authenticate",
        r#"accept.uid: expected "u2", got "u1""#,
        r#"accept.reply: expected none, got "Link_successful""#,
        "step 3: route hi\n        needs a plugin with the role router; this plugin runs as authenticator",
        "FAIL  not refused\n",
        "1 passed, 2 failed",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}: {ran:?}");
    }
    for (cases, expected) in [
        ("[[case]]\nname = \"x\"\nstep = []\n", "step"),
        ("", "case"),
        ("[[case]]\nname = \"x\"\nsteps = [{ route = 5 }]\n", "hex"),
    ] {
        let ran = plugin(&Component::origin_auth(), cases, &["run", "plugin.wasm", "--cases", "cases.toml"]).await;
        assert!(ran.code == Some(1) && ran.stderr.contains("cases.toml") && ran.stderr.contains(expected), "{ran:?}");
    }
}

#[tokio::test]
async fn a_conversation_goes_on_from_step_to_step() {
    let cases = r#"
        [[case]]
        name = "what is remembered and joined is there in the next step"
        session = { uid = "anna", attributes = { role = "admin" }, state = "kept" }
        online = [{ uid = "bob", groups = ["lobby"] }]
        steps = [
            { opened = true, expect = [] },
            { route = "recall", expect = [{ reply = "kept" }] },
            { route = "remember secret", expect = [{ remember = "secret" }] },
            { route = "recall", expect = [{ reply = "secret" }] },
            { route = "me", expect = [{ reply = "anna [role=admin]" }] },
            { route = "connections bob", expect = [{ reply = "1" }] },
            { route = "member lobby", expect = [{ reply = "false" }] },
            { route = "join lobby", expect = [{ join = { who = { connection = 1 }, group = "lobby" } }] },
            { route = "member lobby", expect = [{ reply = "true" }] },
            { push = "group lobby hi", expect = { commands = [{ deliver = { to = { group = "lobby" }, message = "hi" } }] } },
            { push = "error why", expect = { refused = "why" } },
            { publish = { uid = "bob", message = "hello" }, expect = "pass" },
            { publish = { uid = ["bob", "eve"], token = "shop", message = "publisher" }, expect = { refuse = "[uid:bob,uid:eve]" } },
            { publish = { everyone = true, message = "instead enlist bob news" }, expect = { instead = [{ join = { who = { uid = "bob" }, group = "news" } }] } },
            { publish = { group = "news", message = "nothing" }, expect = { instead = [] } },
            { publish = { group = "news", message = "do trap" }, expect = { failed = "trap" } },
            { route = "members news", expect = [{ reply = "bob" }] },
        ]
        [[case]]
        name = "the clock says what the case says, and chance is no chance"
        clock = 2026-01-01T00:00:00Z
        random = 7
        steps = [{ route = "time", expect = [{ reply = "1767225600" }] }, { route = "dice", expect = [] }]
    "#;
    let mut rolled = Vec::new();
    for _ in 0..2 {
        let ran = plugin(&Component::fixture(""), cases, &["run", "plugin.wasm", "--cases", "cases.toml"]).await;
        assert!(
            ran.stdout.starts_with("ok ") && ran.stdout.contains("step 2") && !ran.stdout.contains("step 1"),
            "{ran:?}"
        );
        rolled.push(ran.stdout);
    }
    assert_eq!(rolled[0], rolled[1], "the same number each time");
}

#[tokio::test]
async fn bench_measures_each_function_and_says_what_that_means() {
    let measured = plugin(&Component::origin_auth(), "", &["bench", "plugin.wasm"]).await;
    assert_eq!(measured.code, Some(0), "{measured:?}");
    for expected in ["greet ", "authenticate ", "logins a second"] {
        assert!(measured.stdout.contains(expected), "{expected}: {measured:?}");
    }
    let passing = plugin(&Component::origin_auth(), "", &["bench", "plugin.wasm", "--packet", "hello"]).await;
    assert!(passing.stdout.contains("No login was measured: authenticate answered deny"), "{passing:?}");
    let json = plugin(&Component::origin_auth(), "", &["bench", "plugin.wasm", "--json"]).await;
    assert!(json.code == Some(2) && json.stderr.contains("--json is for"), "{json:?}");
    let failing =
        plugin(&Component::fixture("greet=do trap"), "", &["bench", "plugin.wasm", "--role", "authenticator"]).await;
    assert!(failing.code == Some(1) && failing.stdout.contains("FAILED"), "{failing:?}");
}

#[tokio::test]
async fn new_writes_a_project_and_never_over_one() {
    let setup = Setup::new("");
    let made = setup.run(&["plugin", "new", "my-auth", "--role", "both", "--lang", "rust"]).await;
    assert!(made.code == Some(0) && made.stdout.contains("cargo build --release --target wasm32-wasip2"), "{made:?}");
    let source = std::fs::read_to_string(setup.path().join("my-auth/src/bindings.rs")).expect("a source");
    assert!(source.contains("authentication-and-routing"));
    let again = setup.run(&["plugin", "new", "my-auth"]).await;
    assert!(again.code == Some(1) && again.stderr.contains("exists already"), "{again:?}");
    let named = setup.run(&["plugin", "new", "My_Auth"]).await;
    assert!(named.code == Some(1) && named.stderr.contains("like my-auth"), "{named:?}");
}

fn built_elsewhere(language: &str) -> Component {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/languages").join(language).with_extension("wasm");
    Component::from_bytes(&std::fs::read(file).expect("a fixture"))
}

#[tokio::test]
async fn check_tells_what_is_imported_in_vain() {
    let checked = check(&built_elsewhere("rust-cargo-component"), &[]).await;
    let note = "it imports wasi:filesystem: this is allowed, but every call of it is refused";
    assert!(checked.code == Some(0) && checked.stdout.contains(note), "{checked:?}");
}

#[tokio::test]
async fn what_other_toolchains_have_built_serves_like_rust() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/templates/all/both/cases.toml");
    for language in ["javascript", "rust-cargo-component"] {
        let component = built_elsewhere(language);
        let cases = std::fs::read_to_string(&cases).expect("the template has cases").replace("{{name}}", "mine");
        let ran = plugin(&component, &cases, &["run", "plugin.wasm", "--cases", "cases.toml"]).await;
        assert!(ran.code == Some(0) && ran.stdout.contains(", 0 failed"), "{language}: {ran:?}");

        let gateway = Gateway::with_plugin(&component).await;
        let mut anna = gateway.connect().await;
        anna.expect("HeartBeat").await;
        anna.send(r#"{"id":"anna"}"#).await;
        anna.expect("Link_successful").await;
        anna.send(r#"{"id":"anna","msg":"hi"}"#).await;
        anna.expect("hi").await;
        anna.expect("Already_Linked").await;
    }
}
