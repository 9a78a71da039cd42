//! The optional interface `publications` of routers: when the gateway needs it, and what authors see of it.

use hotgate_tests::{Component, Finished, Setup};

/// The settings that need the interface.
const RULES: &str = "[api]\nrules = \"router\"\n";

/// What is said of a router that lacks the interface.
const LACKS: [&str; 3] = [
    "it does not export hotgate:gateway/publications@0.1.0",
    "api.rules = \"router\"",
    "the default, builtin:origin-router, does not",
];

/// A router of its own file, in this component.
fn router(component: &Component) -> Setup {
    Setup::new("[router]\nfile = \"my-router.wasm\"\n").file("my-router.wasm", component)
}

/// Starts a gateway that must not start.
async fn start_in_vain(setup: &Setup) -> Finished {
    let free = ["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
    let finished = setup.run(&[&["--config", "hotgate.toml"][..], &free].concat()).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    finished
}

fn says_what_is_missing(text: &str, plugin: &str) {
    for words in LACKS.iter().chain([&plugin]) {
        assert!(text.replace("\\\"", "\"").contains(words), "{words}: {text}");
    }
}

#[tokio::test]
async fn a_router_without_it_refuses_the_start() {
    for (setup, plugin) in
        [(Setup::new(""), "builtin:origin-router"), (router(&Component::origin_router()), "my-router.wasm")]
    {
        let setup = setup.and(RULES);
        says_what_is_missing(&start_in_vain(&setup).await.stderr, plugin);
        let checked = setup.run(&["config", "check", "--config", "hotgate.toml"]).await;
        assert_eq!(checked.code, Some(78), "{checked:?}");
        says_what_is_missing(&checked.stderr, plugin);
    }
}

#[tokio::test]
async fn it_is_not_needed_without_these_rules() {
    for config in ["", "[api]\nrules = \"direct\"\n", "[api]\nenabled = false\nrules = \"router\"\n"] {
        let gateway = Setup::new(config).start().await;
        gateway.login("anna").await;
    }
}

#[tokio::test]
async fn a_proven_router_that_lacks_it_is_not_served_instead() {
    let setup = router(&Component::origin_router());
    setup.rehearse().await;
    let setup = setup.and(RULES);
    says_what_is_missing(&start_in_vain(&setup).await.stderr, "my-router.wasm");
    // The router on disk has it.
    let gateway = setup.file("my-router.wasm", &Component::version(2)).start().await;
    let mut anna = gateway.login("anna").await;
    anna.send("version").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn a_proven_router_that_has_it_serves_in_place_of_one_that_lacks_it() {
    let setup = router(&Component::version(1)).and(RULES);
    setup.rehearse().await;
    let gateway = setup.file("my-router.wasm", &Component::origin_router()).start().await;
    let refused = gateway.logged(|line| line.message() == "plugin refused").await;
    says_what_is_missing(refused.get("reason"), "it does not export");
    assert!(refused.get("file").ends_with("my-router.wasm"), "{refused:?}");
    let mut anna = gateway.login("anna").await;
    anna.send("version").await;
    anna.expect("v1").await;
}

#[tokio::test]
async fn a_deploy_that_would_drop_it_is_refused_and_the_old_router_serves_on() {
    let gateway = router(&Component::version(1)).and(RULES).start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("anna").await;
    let deploy =
        async |component: &Component| admin.send(admin.request("PUT /plugins/router"), component.bytes()).await;

    let response = deploy(&Component::origin_router()).await;
    assert_eq!(response.status, 422, "{response:?}");
    LACKS.iter().for_each(|words| assert!(response.error().contains(words), "{words}: {response:?}"));

    let mark = gateway.log().mark();
    gateway.file("my-router.wasm").move_over(&Component::origin_router().tagged(1));
    let refused = gateway.refused_since(mark).await;
    says_what_is_missing(refused.get("reason"), "it does not export");
    anna.send("version").await;
    anna.expect("v1").await;

    assert_eq!(deploy(&Component::version(2)).await.status, 200);
    anna.send("version").await;
    anna.expect("v2").await;
}

#[tokio::test]
async fn check_says_whether_a_router_has_it_and_compares_it_with_the_contract() {
    let check = async |component: &Component| {
        Setup::new("").file("plugin.wasm", component).run(&["plugin", "check", "plugin.wasm"]).await
    };
    let with = check(&Component::version(1)).await;
    assert!(with.code == Some(0) && with.stdout.contains("api.rules \"direct\" or \"router\""), "{with:?}");
    let without = check(&Component::origin_router()).await;
    assert!(without.code == Some(0) && without.stdout.contains("api.rules \"direct\" only"), "{without:?}");
    let neither = check(&Component::origin_auth()).await;
    assert!(neither.code == Some(0) && !neither.stdout.contains("api.rules"), "{neither:?}");
    let changed = check(&Component::hollow("routing-and-publishing", &[("refuse(string)", "refuse(u32)")])).await;
    let words = "publications: `refuse` of `ruling` is u32, the host knows string (both have version 0.1.0";
    assert!(changed.code == Some(1) && changed.stdout.contains(words), "{changed:?}");
}

#[tokio::test]
async fn run_asks_about_publications_and_bench_measures_it() {
    let setup =
        Setup::new("").file("plugin.wasm", &Component::version(1)).file("other.wasm", &Component::origin_router());
    let run = ["plugin", "run", "plugin.wasm", "--role", "router"];
    let publish = ["--publish", "group:lobby hello", "--publish", "uid:anna refuse not today\tfriend"];
    let ran = setup.run(&[&run[..], &publish, &["--publish", "everyone instead pass-on bob"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for expected in [
        "publish group:lobby hello\n    \"pass\"\n",
        "{ refuse = \"not today friend\" }",
        "{ instead = [{ deliver = { message = \"instead pass-on bob\", to = { uid = \"bob\" } } }] }",
    ] {
        assert!(ran.stdout.contains(expected), "{expected}: {ran:?}");
    }
    let failed = setup.run(&[&run[..], &["--publish", "uid:anna do trap"]].concat()).await;
    assert!(failed.code == Some(1) && failed.stdout.contains("failed = \"trap\""), "{failed:?}");
    let usage = setup.run(&[&run[..], &["--publish", "anna"]].concat()).await;
    assert!(usage.code == Some(2) && usage.stderr.contains("uid:u1 hello"), "{usage:?}");
    let lacking = setup.run(&["plugin", "run", "other.wasm", "--publish", "uid:anna hello"]).await;
    assert!(lacking.code == Some(0) && lacking.stdout.contains("1 packets, lines or publications"), "{lacking:?}");

    let bench = ["plugin", "bench", "plugin.wasm", "--role", "router"];
    let measured = setup.run(&bench).await;
    assert!(measured.code == Some(0) && measured.stdout.contains("\npublish "), "{measured:?}");
}
