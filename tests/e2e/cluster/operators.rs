//! Operators see one gateway: whichever they ask, it answers for all.

use std::time::Instant;

use hotgate_tests::{Client, Component, Finished, Gateway, Nats, NatsSetup, Setup, eventually};
use serde_json::{Value, json};

use super::{GONE, LONGEST, fixture, join, setup};

/// For tests in which every gateway must answer, also on a busy machine.
const PATIENT: &str = "timeout = \"5s\"";

/// Three gateways with the numbers 1, 2 and 3.
async fn three(made: impl Fn(&Nats, &str) -> Setup, config: &str) -> Option<(Nats, [Gateway; 3])> {
    let nats = NatsSetup::new().start().await?;
    let gateways = join([1, 2, 3].map(|node| made(&nats, &format!("node = {node}\n{config}")))).await;
    Some((nats, gateways))
}

fn cells(line: &str) -> Vec<&str> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

fn succeeded(finished: Finished) -> String {
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout
}

/// The values of one field of all items in a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list.as_array().unwrap_or_else(|| panic!("a list: {list}")).iter().map(|item| &item[field]).collect()
}

#[tokio::test]
async fn any_gateway_shows_all() {
    let Some((_nats, [a, b, c])) = three(setup, PATIENT).await else { return };
    let _clients = (a.login("anna").await, b.login("bob").await, b.login("ben").await);
    for gateway in [&a, &b, &c] {
        let shown = succeeded(gateway.cluster(&["nodes"]).await);
        let lines: Vec<_> = shown.lines().map(cells).collect();
        assert_eq!(lines[0][..5], ["NODE", "STATE", "VERSION", "UPTIME", "CONNECTIONS"], "{shown}");
        // Each has an authenticator and a router.
        assert_eq!(lines.len(), 7, "{shown}");
        for (line, (node, connections)) in lines[1..].iter().step_by(2).zip([("1", "1"), ("2", "2"), ("3", "0")]) {
            assert_eq!((line[0], line[1], line[4]), (node, "serving", connections), "{shown}");
            assert_eq!((line[5], line[6], line[7], line[8]), ("authenticator", "origin-auth", "1", "live"), "{shown}");
        }
        assert!(lines[1..].iter().skip(1).step_by(2).all(|line| line[0] == "router"), "{shown}");
    }

    let shown = succeeded(b.cluster(&["status"]).await);
    assert!(
        shown.starts_with("3 gateways; this is gateway 2; NATS is connected\n3 of 180000 connections, 0 "),
        "{shown}"
    );
    assert!(shown.contains("\nserving  3         1, 2, 3\n") && shown.ends_with("\nNo warnings\n"), "{shown}");
    let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
    let status = read(&succeeded(b.cluster(&["status", "--json"]).await));
    assert_eq!((&status["node"], &status["connections"]["open"]), (&json!(2), &json!(3)));
    assert_eq!((&status["missing"], &status["warnings"]), (&json!([]), &json!([])));
    let nodes = read(&succeeded(c.cluster(&["nodes", "--json"]).await));
    assert_eq!(nodes["nodes"][1]["connections"]["open"], 2);
    assert_eq!(nodes["nodes"][0]["plugins"][1]["slot"], "router");

    // The token that only reads is enough.
    let (address, token) = (a.admin().await.address.to_string(), a.state_folder().join("admin-read-token"));
    let token = token.to_str().expect("UTF-8");
    succeeded(a.hotgate(&["cluster", "nodes", "--address", &address, "--token-file", token]).await);
}

#[tokio::test]
async fn the_pages_of_one_gateway_are_read_at_any_other() {
    let Some((_nats, [a, b, _c])) = three(setup, PATIENT).await else { return };
    let _bob = b.login("bob").await;
    let (admin, of_b) = (a.admin().await, b.admin().await);
    let status = admin.json("GET /status?node=2").await;
    assert_eq!((&status["cluster"]["node"], &status["connections"]["open"]), (&json!(2), &json!(1)));
    assert_eq!(admin.json("GET /status?node=1").await["cluster"]["node"], 1);
    let shown = succeeded(a.run(&["status", "--node", "2", "--address", &admin.address.to_string()]).await);
    assert!(shown.contains("\n1 of 60000 connections") && shown.contains("\n2        this one; NATS"), "{shown}");

    let sample = "hotgate_login_seconds_count";
    let value = |text: &str| text.lines().find_map(|line| line.strip_prefix(sample).map(str::to_owned));
    let metrics = admin.ask("GET /metrics?node=2").await;
    assert_eq!(metrics.header("content-type"), of_b.ask("GET /metrics").await.header("content-type"));
    assert_eq!(value(&metrics.body).as_deref(), Some(" 1"), "{}", metrics.body);
    assert_eq!(value(&admin.ask("GET /metrics").await.body).as_deref(), Some(" 0"));

    let plugins = of_b.json("GET /plugins").await;
    assert_eq!(admin.json("GET /plugins?node=2").await["plugins"][0]["source"], plugins["plugins"][0]["source"]);
    let all = admin.json("GET /plugins?node=all").await;
    assert_eq!((each(&all["nodes"], "node"), &all["missing"]), (vec![&json!(1), &json!(2), &json!(3)], &json!([])));
    assert!(each(&all["nodes"], "plugins").iter().all(|list| list[1]["slot"] == "router"), "{all}");
    // Without `node`, the page is what it is without a cluster.
    assert_eq!(each(&admin.json("GET /plugins").await["plugins"], "slot"), ["authenticator", "router"]);

    for (line, status, reason) in [
        ("GET /status?node=4", 404, "no-such-node"),
        ("GET /metrics?node=511", 404, "no-such-node"),
        ("GET /connections?node=4", 404, "no-such-node"),
        ("GET /status?node=all", 400, "bad-request"),
        ("GET /metrics?node=all", 400, "bad-request"),
        ("GET /plugins?node=512", 400, "bad-request"),
        ("GET /plugins?node=x", 400, "bad-request"),
        ("PUT /plugins/router?node=2", 400, "bad-request"),
        ("POST /plugins/router/reload?node=2", 400, "bad-request"),
        ("GET /cluster?node=2", 400, "bad-request"),
    ] {
        let refused = admin.ask(line).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (status, &json!(reason)), "{line}: {refused:?}");
    }
}

/// All pages of the list of connections, with this query.
async fn pages(gateway: &Gateway, query: &str) -> Vec<Value> {
    let (admin, mut all, mut after) = (gateway.admin().await, Vec::new(), "0".to_owned());
    loop {
        let page = admin.json(&format!("GET /connections?after={after}&{query}")).await;
        assert_eq!(page["missing"], json!([]), "{page}");
        all.extend(page["connections"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return all,
        }
        assert!(all.len() < 1_000, "there is an end");
    }
}

#[tokio::test]
async fn connections_are_listed_in_the_order_of_their_ids_page_by_page() {
    let Some((_nats, [a, b, c])) = three(setup, PATIENT).await else { return };
    let mut clients: Vec<Client> = Vec::new();
    for (number, gateway) in [&c, &a, &b, &a, &c, &a, &b].into_iter().enumerate() {
        clients.push(gateway.login(&format!("u{number}")).await);
    }
    let uids = ["u1", "u3", "u5", "u2", "u6", "u0", "u4"];
    for gateway in [&a, &b, &c] {
        for limit in [1, 2, 3, 4, 7, 100] {
            let listed = Value::from(pages(gateway, &format!("limit={limit}")).await);
            assert_eq!(each(&listed, "uid"), uids, "{limit}");
            assert_eq!(each(&listed, "node"), [1, 1, 1, 2, 2, 3, 3]);
            let ids: Vec<u64> =
                each(&listed, "id").iter().map(|id| id.as_str().expect("text").parse().expect("a number")).collect();
            assert!(
                ids.is_sorted() && ids.iter().zip(each(&listed, "node")).all(|(id, node)| json!(id >> 54) == *node)
            );
        }
        for (query, expected) in
            [("node=2", &["u2", "u6"][..]), ("node=all&uid=u4", &["u4"]), ("uid=u9", &[]), ("node=1&uid=u4", &[])]
        {
            let listed = Value::from(pages(gateway, query).await);
            assert_eq!(each(&listed, "uid"), expected, "{query}");
        }
    }
    // Whoever is in the list can be closed anywhere.
    let id = pages(&a, "uid=u4").await[0]["id"].clone();
    let closed = b.admin().await.json(&format!("DELETE /connections/{}", id.as_str().expect("text"))).await;
    assert_eq!(closed["closed"], 1);
    assert_eq!(super::closed(&mut clients[4]).await, 4907);
}

#[tokio::test]
async fn an_answer_may_be_longer_than_one_frame() {
    let Some((_nats, [a, b, _c])) = three(fixture, PATIENT).await else { return };
    let mut clients = Vec::new();
    for number in 0..300 {
        clients.push(b.enter(&format!("{number:03}{}", "x".repeat(240))).await);
    }
    for gateway in [&a, &b] {
        let page = gateway.admin().await.json("GET /connections?limit=300").await;
        assert!(page.to_string().len() > 100_000);
        assert_eq!((each(&page["connections"], "uid").len(), &page["missing"]), (300, &json!([])));
        assert_eq!(pages(gateway, "limit=299").await.len(), 300);
    }
}

#[tokio::test]
async fn a_gateway_that_is_stopped_is_named_and_delays_nobody_for_long() {
    let Some((_nats, [a, b, c])) = three(setup, "").await else { return };
    let _clients = (a.login("anna").await, c.login("carl").await);
    let admin = a.admin().await;
    c.signal("STOP");
    let stopped = Instant::now();
    for line in ["GET /cluster", "GET /connections", "GET /plugins?node=all", "GET /cluster"] {
        let begin = Instant::now();
        let page = admin.json(line).await;
        assert!(begin.elapsed() < LONGEST, "{line}: {:?}", begin.elapsed());
        // After 3 s, it belongs to the cluster no more.
        if stopped.elapsed() < GONE - LONGEST {
            assert_eq!(page["missing"], json!([3]), "{line}: {page}");
        }
        if line == "GET /connections" {
            assert_eq!(each(&page["connections"], "uid"), ["anna"]);
        }
        if let Some(third) = page["nodes"].get(2).filter(|_| line == "GET /cluster") {
            let state = third["state"].as_str().expect("text");
            assert!(["unreachable", "silent", "gone"].contains(&state) && third.get("version").is_none(), "{page}");
            assert!(page["warnings"].to_string().contains("gateway 3 does not answer"), "{page}");
        }
    }
    eventually("it is gone", async || each(&admin.json("GET /cluster").await["nodes"], "node") == [1, 2]).await;
    assert_eq!(admin.ask("GET /status?node=3").await.json()["reason"], "no-such-node");
    c.signal("CONT");
    let listed = async || b.admin().await.json("GET /cluster").await;
    eventually("it is back", async || each(&listed().await["nodes"], "state") == ["serving"; 3]).await;
    assert_eq!(listed().await["missing"], json!([]));
}

/// The command line, and one gateway alone: both within the 3 s until the stopped one is gone.
#[tokio::test]
async fn commands_name_a_gateway_that_is_stopped() {
    let Some((_nats, [a, b, c])) = three(setup, "").await else { return };
    let admin = a.admin().await;
    for (action, words) in [("nodes", "Did not answer: 3"), ("status", "the gateway 3 does not answer")] {
        c.signal("STOP");
        let shown = succeeded(a.cluster(&[action]).await);
        c.signal("CONT");
        assert!(shown.contains(words), "{shown}");
        let back = async || each(&b.admin().await.json("GET /cluster").await["nodes"], "state") == ["serving"; 3];
        eventually("it is back", back).await;
    }
    c.signal("STOP");
    let begin = Instant::now();
    let asked = admin.ask("GET /metrics?node=3").await;
    assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
    assert_eq!((asked.status, &asked.json()["reason"]), (503, &json!("unreachable")), "{asked:?}");
    c.signal("CONT");
}

#[tokio::test]
async fn gateways_without_nats_name_all_others_and_go_on() {
    let Some((mut nats, [a, _b, _c])) = three(setup, "").await else { return };
    let _anna = a.login("anna").await;
    nats.kill();
    let admin = a.admin().await;
    eventually("it is noticed", async || admin.json("GET /cluster").await["nats"] == "disconnected").await;
    let begin = Instant::now();
    let page = admin.json("GET /cluster").await;
    assert!(begin.elapsed() < LONGEST, "{:?}", begin.elapsed());
    assert!(page["warnings"][0].as_str().is_some_and(|warning| warning.contains("cluster.nats")), "{page}");
    assert_eq!(page["connections"]["open"], 1, "{page}");
    // Also when the others have been silent for so long that they are forgotten.
    tokio::time::sleep(GONE).await;
    for line in ["GET /cluster", "GET /connections?uid=bob", "GET /plugins?node=all"] {
        assert_eq!(admin.json(line).await["complete"], false, "{line}");
    }
    let page = admin.json("GET /connections").await;
    assert_eq!(each(&page["connections"], "uid"), ["anna"]);
    a.file("next").copy_over(&Component::version(2));
    let refused = a.plugin(&["deploy", "next", "--all-nodes"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("nothing was deployed"), "{refused:?}");
}

#[tokio::test]
async fn a_gateway_without_admin_listener_tells_nothing() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let without = setup(&nats, "node = 2\n[admin]\nenabled = false");
    let [a, _b] = join([setup(&nats, "node = 1"), without]).await;
    let page = a.admin().await.json("GET /cluster").await;
    assert_eq!(
        (&page["missing"], each(&page["nodes"], "state")),
        (&json!([2]), vec![&json!("serving"), &json!("silent")])
    );
}

#[tokio::test]
async fn without_a_cluster_nothing_is_different() {
    let gateway = Gateway::start().await;
    let _anna = gateway.login("anna").await;
    for action in ["nodes", "status"] {
        let refused = gateway.cluster(&[action]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("belongs to no cluster") && refused.stdout.is_empty(), "{refused:?}");
    }
    let admin = gateway.admin().await;
    for line in ["GET /cluster", "GET /status?node=0", "GET /plugins?node=all", "GET /connections?node=0"] {
        let refused = admin.ask(line).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (404, &json!("no-cluster")), "{line}: {refused:?}");
    }
    let page = admin.json("GET /connections").await;
    assert_eq!(page.as_object().expect("an object").keys().collect::<Vec<_>>(), ["connections", "next"]);
    assert!(page["connections"][0].get("node").is_none(), "{page}");
    let refused = gateway.plugin(&["deploy", "hotgate.toml", "--all-nodes"]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("belongs to no cluster"), "{refused:?}");
}
