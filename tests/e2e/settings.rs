//! The command line and `hotgate.toml`: what is refused at the start, and the error messages.

use hotgate_tests::{Component, Finished, Gateway, Line, Setup};

/// Free ports, so that a wrongly accepted configuration starts a gateway, and the test fails by its patience.
const ANYWHERE: [&str; 4] = ["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];

async fn serve(setup: &Setup, arguments: &[&str]) -> Finished {
    setup.run(&[&["serve"], arguments, &ANYWHERE].concat()).await
}

#[tokio::test]
async fn a_wrong_setting_is_refused_by_file_key_and_value() {
    for (config, words) in [
        ("colour = \"red\"", &["colour"] as &[&str]),
        ("[websocket]\nmax_mesage = 1", &["max_mesage"]),
        ("[websocket]\nmax_message = \"lots\"", &["max_message", "lots"]),
        ("[websocket]\nmax_message = 0", &["max_message", "0"]),
        ("[websocket]\nlisten = \"somewhere\"", &["listen", "somewhere"]),
        ("[websocket]\nhandshake_timeout = \"soon\"", &["handshake_timeout", "soon"]),
        ("[websocket]\ntrusted_proxies = [\"10.0.0.0/99\"]", &["trusted_proxies", "10.0.0.0/99"]),
        ("[websocket]\npass_headers = [\"Cookie\"]", &["allowed_origins", "cookie"]),
        ("[heartbeat]\ntimeout = \"-5s\"", &["timeout", "-5s"]),
        ("[heartbeat]\ntimeout = \"1s\"\nping_interval = \"5s\"", &["ping_interval", "timeout"]),
        ("[sessions]\nduplicate_login = \"oldest\"", &["duplicate_login", "oldest", "newest"]),
        ("[limits]\nconnections = \"many\"", &["connections", "many"]),
        ("[log]\nformat = \"xml\"", &["format", "xml", "json"]),
        (
            "[admin]\nallowed_hosts = [\"hotgate.internal:1235\"]",
            &["allowed_hosts[0]", "internal:1235", "without a port"],
        ),
        ("[admin]\nallowed_hosts = [\"[::1]:1235\"]", &["allowed_hosts[0]", "without a port"]),
        ("[admin]\nallowed_hosts = [\".internal\"]", &["allowed_hosts[0]"]),
        ("[admin]\nallowed_hosts = [\"::1\", \"[0::1]\"]", &["allowed_hosts[1]", "twice"]),
        ("[router]\nfile = \"missing.wasm\"", &["missing.wasm"]),
        ("[router]\nfile = \"builtin:nonsense\"", &["builtin:nonsense", "origin-router"]),
        ("[router]\nfile = \"builtin:origin-router\"\nroute_failure = \"retry\"", &["route_failure", "retry", "drop"]),
        ("[[authenticator]]\nsettings = { A = \"1\" }", &["file"]),
        ("authenticator = []", &["authenticator"]),
        ("[router\n", &["hotgate.toml"]),
    ] {
        let finished = serve(&Setup::new(config), &["--config", "hotgate.toml"]).await;
        assert_eq!(finished.code, Some(78), "{config}: {finished:?}");
        assert!(finished.stderr.contains("hotgate.toml"), "{config}: {finished:?}");
        let stderr = finished.stderr.to_lowercase();
        assert!(words.iter().all(|word| stderr.contains(word)), "{config}: {finished:?}");
    }
}

#[tokio::test]
async fn a_plugin_in_the_wrong_role_is_refused() {
    for config in ["[router]\nfile = \"builtin:origin-auth\"", "[[authenticator]]\nfile = \"builtin:origin-router\""] {
        let finished = serve(&Setup::new(config), &["--config", "hotgate.toml"]).await;
        assert_eq!(finished.code, Some(78), "{config}: {finished:?}");
        let says = |words| finished.stderr.contains(words);
        assert!(says("hotgate:gateway/router") && says("hotgate:gateway/authenticator"), "{config}: {finished:?}");
    }
}

#[tokio::test]
async fn the_text_port_is_not_opened_to_a_network_by_mistake() {
    let config = "[text]\nlisten = \"0.0.0.0:0\"";
    let finished = Setup::new(config).run(&["serve", "--config", "hotgate.toml"]).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("text.listen") && finished.stderr.contains("text.allow_from"), "{finished:?}");
}

#[tokio::test]
async fn a_wrong_flag_or_variable_is_refused() {
    let finished = serve(&Setup::new(""), &["--log-format", "xml"]).await;
    assert!(finished.code != Some(0) && finished.stderr.contains("xml"), "{finished:?}");
    let finished = serve(&Setup::new(""), &["--router", "missing.wasm"]).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("missing.wasm"), "{finished:?}");
    let finished = serve(&Setup::new(""), &["--config", "missing.toml"]).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("missing.toml"), "{finished:?}");
    let setup = Setup::new("").environment("HOTGATE_WEBSOCKET_LISTEN", "somewhere");
    let finished = setup.run(&["serve"]).await;
    assert!(finished.code != Some(0) && finished.stderr.contains("somewhere"), "{finished:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let gateway = Gateway::start().await;
    let taken = gateway.websocket.to_string();
    let finished = Setup::new("").run(&["--websocket-listen", &taken, "--text-listen", "127.0.0.1:0"]).await;
    assert!(finished.code.is_some_and(|code| code != 0), "{finished:?}");
    assert!(finished.stderr.contains(&taken), "{finished:?}");
}

#[tokio::test]
async fn check_says_whether_a_configuration_is_right_and_starts_nothing() {
    let right = Setup::new("[heartbeat]\ntimeout = \"60s\"");
    assert_eq!(right.run(&["config", "check", "--config", "hotgate.toml"]).await.code, Some(0));
    let wrong = Setup::new("[heartbeat]\ntimeout = 0");
    let finished = wrong.run(&["config", "check", "--config", "hotgate.toml"]).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("timeout"), "{finished:?}");
}

#[tokio::test]
async fn print_shows_the_effective_configuration_as_one_that_loads_again() {
    let setup = Setup::new("[heartbeat]\ntimeout = \"45s\"\n[sessions]\nduplicate_login = \"all\"");
    let first = setup.run(&["config", "print", "--config", "hotgate.toml"]).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(first.stdout.contains("45s") && first.stdout.contains("duplicate_login = \"all\""), "{}", first.stdout);
    let again = Setup::new(&first.stdout).run(&["config", "print", "--config", "hotgate.toml"]).await;
    assert_eq!(again.stdout, first.stdout);
}

#[tokio::test]
async fn the_environment_overrides_the_file_and_flags_override_both() {
    let config = "[websocket]\nlisten = \"127.0.0.1:1\"\n[text]\nlisten = \"127.0.0.1:2\"";
    let setup = Setup::new(config).environment("HOTGATE_TEXT_LISTEN", "127.0.0.1:3");
    let arguments = ["config", "print", "--config", "hotgate.toml", "--websocket-listen", "127.0.0.1:4"];
    let printed = setup.run(&arguments).await.stdout;
    assert!(printed.contains("127.0.0.1:3") && printed.contains("127.0.0.1:4"), "{printed}");
    assert!(!printed.contains("127.0.0.1:1\"") && !printed.contains("127.0.0.1:2\""), "{printed}");
}

#[tokio::test]
async fn flags_replace_the_chain_and_the_router() {
    let setup = Setup::new("[[authenticator]]\nfile = \"other.wasm\"\n")
        .file("other.wasm", &Component::fixture("greet=deny 4000 not me"))
        .file("first.wasm", &Component::fixture("version=first;greet=pass"))
        .file("second.wasm", &Component::fixture("version=second"));
    let arguments = ["--authenticator", "first.wasm", "--authenticator", "second.wasm", "--router", "second.wasm"];
    let gateway = arguments.iter().fold(setup, |setup, argument| setup.argument(argument)).start().await;
    let mut client = gateway.connect().await;
    client.expect("hello vsecond").await;
    client.send("login anna").await;
    client.expect("welcome anna vfirst").await;
    client.send("version").await;
    client.expect("vsecond").await;
}

#[tokio::test]
async fn the_first_lines_of_the_log_say_what_listens_and_which_plugin_fills_which_slot() {
    let gateway = Gateway::start().await;
    let mut lines = gateway.log().since(Default::default());
    // A line about too few descriptors may come first, if the machine allows fewer than the default limits need.
    lines.retain(|line| !line.says("descriptors"));
    let first: Vec<_> = lines.iter().map(Line::message).take(4).collect();
    assert_eq!(first, ["plugin live", "plugin live", "listening", "listening"]);
    for (line, plugin) in lines.iter().zip(["origin-auth", "origin-router"]) {
        assert_eq!(line.get("plugin"), plugin);
        assert!(!line.get("slot").is_empty() && !line.get("digest").is_empty());
        assert_eq!(line.get("source"), format!("builtin:{plugin}"));
        assert_eq!(line.number("generation"), 1);
    }
}

#[tokio::test]
async fn the_log_says_which_uid_a_connection_has_if_the_settings_want_it() {
    let gateway = Gateway::configured("[log]\nuids = true\n").await;
    let _anna = gateway.login("anna@example.com").await;
    let line = gateway.logged(|line| line.message() == "authenticated").await;
    assert_eq!((line.get("level"), line.get("uid")), ("INFO", "anna@example.com"));
    let connections = gateway.admin().await.json("GET /connections").await;
    assert_eq!(connections["connections"][0]["id"], line.number("connection").to_string());
}

#[tokio::test]
async fn nothing_that_clients_say_is_in_the_log() {
    let config = "[log]\naccess = \"ended\"\ndecisions = 100";
    let gateway = Setup::new(config).argument("--log-level").argument("trace").start().await;
    let mut anna = gateway.login("secret-uid").await;
    anna.send(r#"{"id":"secret-uid","msg":"secret-message"}"#).await;
    anna.expect("secret-message").await;
    anna.expect("Already_Linked").await;
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"secret-uid","secret-line":1}"#).await, "ok");
    anna.expect(r#"{"uid":"secret-uid","secret-line":1}"#).await;
    let mut denied = gateway.connect().await;
    denied.expect("HeartBeat").await;
    denied.send(r#"{"secret-key":1}"#).await;
    denied.expect_close(4400).await;
    anna.close().await;
    gateway.logged(|line| line.message() == "connection ended" && line.get("cause") == "client").await;
    let lines = gateway.log().since(Default::default());
    let said: Vec<_> = lines.iter().filter(|line| line.says("secret")).collect();
    assert!(said.is_empty(), "{said:?}");
}
