//! The command `hotgate plugin …` of operators.

use hotgate_tests::{Component, Gateway, Setup};

async fn start() -> Gateway {
    Setup::plugin(&Component::version(1), "").start().await
}

#[tokio::test]
async fn list_shows_what_serves() {
    let gateway = Gateway::start().await;
    let listed = gateway.plugin(&["list"]).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let lines: Vec<_> = listed.stdout.lines().collect();
    assert!(lines[0].starts_with("SLOT ") && lines[0].contains("GENERATION"), "{listed:?}");
    assert!(lines[1].starts_with("authenticator  origin-auth ") && lines[2].starts_with("router "), "{listed:?}");
    let json = gateway.plugin(&["list", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["plugins"][1]["slot"], "router");
    assert_eq!(json["plugins"][1]["live"]["generation"], 1);
}

#[tokio::test]
async fn a_component_that_is_deployed_replaces_the_file_and_serves() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    gateway.file("next").copy_over(&Component::version(2));
    let deployed = gateway.plugin(&["deploy", "next"]).await;
    assert_eq!(deployed.code, Some(0), "{deployed:?}");
    anna.send("version").await;
    anna.expect("v2").await;
    let file = std::fs::read(gateway.file("plugin.wasm").path()).expect("the file");
    assert_eq!(file, Component::version(2).bytes());
}

#[tokio::test]
async fn a_deploy_that_was_wrong_is_taken_back_and_the_list_tells_the_story() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    gateway.file("next").copy_over(&Component::version(2));
    let deployed = gateway.plugin(&["deploy", "next"]).await;
    let row = |text: &str, generation: &str| -> Vec<String> {
        let rows = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        rows.into_iter().find(|row| row.iter().any(|cell| cell == generation)).unwrap_or_default()
    };
    assert!(row(&deployed.stdout, "2").contains(&"probation".to_owned()), "{deployed:?}");
    assert!(row(&deployed.stdout, "1").contains(&"kept".to_owned()), "{deployed:?}");

    for action in ["promote", "rollback"] {
        let other = gateway.plugin(&[action, "plugin", "--generation", "1"]).await;
        assert!(other.code == Some(1) && other.stderr.contains("generation is 2"), "{other:?}");
    }
    let promoted = gateway.plugin(&["promote", "plugin", "--generation", "2"]).await;
    assert!(row(&promoted.stdout, "2").contains(&"live".to_owned()), "{promoted:?}");

    let back = gateway.plugin(&["rollback", "authenticator+router"]).await;
    assert_eq!(back.code, Some(0), "{back:?}");
    anna.send("version").await;
    anna.expect("v1").await;
    let listed = gateway.plugin(&["list"]).await.stdout;
    assert!(listed.contains("rolled back  generation 2"), "{listed}");
    assert!(row(&listed, "1").contains(&"live".to_owned()), "{listed}");

    // The rolled-back version stays out until an operator asks for it.
    let reloaded = gateway.plugin(&["reload", "plugin"]).await;
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    anna.send("version").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn a_component_that_will_not_do_is_refused_and_the_file_stays() {
    let gateway = start().await;
    gateway.file("next").copy_over(&Component::version(2));
    std::fs::write(gateway.file("text").path(), "no component").expect("a file");
    let refused = gateway.plugin(&["deploy", "text", "--slot", "plugin"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("component"), "{refused:?}");
    let missing = gateway.plugin(&["deploy", "missing"]).await;
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("missing"), "{missing:?}");
    let file = std::fs::read(gateway.file("plugin.wasm").path()).expect("the file");
    assert_eq!(file, Component::version(1).bytes());
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused() {
    let gateway = start().await;
    std::fs::write(gateway.file("large").path(), vec![0; (64 << 20) + 1]).expect("a file");
    let refused = gateway.plugin(&["deploy", "large"]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("limits.max_component"), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_file_or_endless_is_not_read() {
    let gateway = start().await;
    let admin = gateway.admin().await;
    let token = gateway.state_folder().join("admin-token").display().to_string();
    // Less memory than the size of the file that is refused as too large.
    let setup = Setup::new("").bytes("next", b"").memory(512 << 20);
    std::fs::File::create(setup.path().join("large")).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
    let pipe = std::process::Command::new("mkfifo").arg(setup.path().join("pipe")).status().expect("mkfifo");
    assert!(pipe.success());
    let (address, token) = (admin.address.to_string(), token.as_str());
    for (arguments, code, words) in [
        (
            &["plugin", "deploy", "/dev/zero", "--address", &address, "--token-file", token] as &[&str],
            1,
            "regular file",
        ),
        (&["plugin", "deploy", "pipe", "--address", &address, "--token-file", token], 1, "regular file"),
        (&["plugin", "deploy", "large", "--address", &address, "--token-file", token], 1, "limits.max_component"),
        (&["plugin", "deploy", "next", "--address", &address, "--token-file", token], 1, "the file is empty"),
        (&["plugin", "list", "--address", &address, "--token-file", "pipe"], 1, "regular file"),
        (&["plugin", "list", "--address", &address, "--token-file", "/dev/zero"], 1, "regular file"),
        (&["plugin", "list", "--config", "pipe"], 78, "regular file"),
        (&["config", "check", "--config", "/dev/zero"], 78, "regular file"),
        (&["config", "check", "--config", "large"], 78, "larger than"),
        (&["plugin", "run", "builtin:echo-router", "--cases", "pipe"], 1, "regular file"),
    ] {
        let finished = setup.run(arguments).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(words), "{arguments:?}: {finished:?}");
    }
}

#[tokio::test]
async fn deploy_asks_which_slot_where_there_are_several() {
    let gateway = Setup::new("[[authenticator]]\nfile = \"a.wasm\"\n[router]\nfile = \"b.wasm\"\n")
        .file("a.wasm", &Component::version(1))
        .file("b.wasm", &Component::version(1))
        .start()
        .await;
    let asked = gateway.plugin(&["deploy", "a.wasm"]).await;
    assert_eq!(asked.code, Some(1));
    assert!(asked.stderr.contains("--slot") && asked.stderr.contains("authenticator, router"), "{asked:?}");
    let builtin = Gateway::start().await;
    std::fs::write(builtin.file("next").path(), "").expect("a file");
    let asked = builtin.plugin(&["deploy", "next"]).await;
    assert!(asked.code == Some(1) && asked.stderr.contains("built in"), "{asked:?}");
}

#[tokio::test]
async fn a_plugin_in_both_roles_is_found_by_either() {
    let gateway = start().await;
    for slot in ["router", "authenticator", "authenticator+router", "plugin"] {
        let reloaded = gateway.plugin(&["reload", slot]).await;
        assert_eq!(reloaded.code, Some(0), "{slot}: {reloaded:?}");
    }
    gateway.file("next").copy_over(&Component::version(2));
    let deployed = gateway.plugin(&["deploy", "next", "--slot", "router"]).await;
    assert_eq!(deployed.code, Some(0), "{deployed:?}");
    gateway.connect().await.expect("hello v2").await;
    assert_ne!(gateway.plugin(&["reload", "rout"]).await.code, Some(0));
}

#[tokio::test]
async fn what_cannot_be_done_now_is_said() {
    let gateway = start().await;
    for (arguments, words) in [
        (["rollback", "plugin"], "no earlier generation"),
        (["promote", "authenticator+router"], "promote"),
        (["reload", "nobody"], "authenticator+router"),
    ] {
        let finished = gateway.plugin(&arguments).await;
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(finished.stderr.contains(words) && finished.stdout.is_empty(), "{finished:?}");
    }
}

#[tokio::test]
async fn it_finds_the_gateway_by_the_same_settings() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let state = gateway.state_folder();
    let setup = Setup::new(&format!("state_folder = {state:?}\n[admin]\nlisten = \"{}\"", admin.address));
    let arguments = ["plugin", "list", "--config", "hotgate.toml", "--admin-listen", &admin.address.to_string()];
    let listed = setup.run(&arguments).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    assert!(listed.stdout.contains("origin-router"), "{listed:?}");
}

#[tokio::test]
async fn settings_that_are_wrong_do_not_keep_operators_out() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let state = gateway.state_folder();
    let wrong = "[[authenticator]]\nfile = \"missing.wasm\"\n[heartbeat]\ntimeout = \"no\"\n[unknown]\nkey = 1\n";
    let leads = format!("state_folder = {state:?}\n{wrong}[admin]\nlisten = \"{}\"", admin.address);
    let address = admin.address.to_string();
    let list = ["plugin", "list", "--config", "hotgate.toml", "--admin-listen", &address, "--router", "missing.wasm"];
    let listed = Setup::new(&leads).run(&list).await;
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let listed = Setup::new("no toml").run(&list).await;
    assert_eq!(listed.code, Some(78), "{listed:?}");
    assert!(listed.stderr.contains("--address and --token-file"), "{listed:?}");
}

#[tokio::test]
async fn who_looks_leaves_nothing_behind() {
    let setup = Setup::new("state_folder = \"state\"");
    let listed = setup.run(&["plugin", "list", "--config", "hotgate.toml", "--admin-listen", "127.0.0.1:1"]).await;
    assert_eq!(listed.code, Some(69), "{listed:?}");
    assert!(!setup.path().join("state").exists());
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_not_there() {
    let setup = Setup::new("").bytes("token", b"0123456789abcdef0123456789abcdef");
    let hung = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let hung = hung.local_addr().map(|address| (hung, address.to_string())).expect("it");
    for address in [hung.1.as_str(), "no-such-host.invalid:1235"] {
        let finished = setup.run(&["plugin", "list", "--address", address, "--token-file", "token"]).await;
        assert_eq!(finished.code, Some(69), "{finished:?}");
        assert!(finished.stderr.contains(address), "{finished:?}");
    }
}

#[tokio::test]
async fn errors_say_what_to_look_at() {
    let gateway = Gateway::start().await;
    let address = gateway.admin().await.address.to_string();
    let setup = Setup::new("").bytes("token", b"0123456789abcdef0123456789abcdef").bytes("short", b"x");
    // A port without a listener.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").to_string();
    for (arguments, code, words) in [
        (&["--address", &free, "--token-file", "token"] as &[&str], 69, "Is the gateway running"),
        (&["--address", &address, "--token-file", "token"], 1, "token"),
        (&["--address", &address, "--token-file", "short"], 1, "32 characters"),
        (&["--address", &address, "--token-file", "missing"], 1, "missing"),
        (&["--address", &address], 69, "--token-file"),
        (&["--token-file", "token"], 69, "--address"),
        (&["--config", "missing.toml"], 78, "missing.toml"),
    ] {
        let finished = setup.run(&[&["plugin", "list"], arguments].concat()).await;
        assert_eq!(finished.code, Some(code), "{arguments:?}: {finished:?}");
        assert!(finished.stderr.contains(words), "{arguments:?}: {finished:?}");
    }
    assert_eq!(setup.run(&["plugin"]).await.code, Some(2));
    assert_eq!(setup.run(&["plugin", "rollback"]).await.code, Some(2));
}
