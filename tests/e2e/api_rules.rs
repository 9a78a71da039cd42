//! The router's rules for the HTTP push API (`api.rules = "router"`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hotgate_tests::{Admin, Component, Gateway, Response, Setup};
use serde_json::json;

const RULES: &str = "[api]\nrules = \"router\"\n";

async fn ruled(component: &Component) -> (Gateway, Admin) {
    let gateway = Setup::plugin(component, "").and(RULES).start().await;
    let api = gateway.api().await;
    (gateway, api)
}

async fn post(api: &Admin, path: &str, body: &str) -> Response {
    api.send(api.request(&format!("POST {path}")), body.as_bytes()).await
}

#[tokio::test]
async fn the_router_passes_replaces_or_refuses_each_message() {
    let (gateway, api) = ruled(&Component::fixture("")).await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    assert_eq!(post(&api, "/v1/push?uid=anna", "hello").await.json(), json!({ "reached": 1 }));
    anna.expect("hello").await;
    // The message goes to bob in place of anna, and twice.
    let instead = post(&api, "/v1/push?uid=anna&uid=nobody", "instead-times 2 pass-on bob").await;
    assert_eq!((instead.status, instead.json()), (200, json!({ "reached": 2 })));
    for _ in 0..2 {
        bob.expect("instead-times 2 pass-on bob").await;
    }
    assert_eq!(post(&api, "/v1/push?uid=anna", "nothing").await.json(), json!({ "reached": 0 }));
    assert_eq!(post(&api, "/v1/push?uid=anna", "instead pass-on nobody").await.status, 404);
    let refused = post(&api, "/v1/push?uid=anna", "refuse not on Sundays").await;
    assert_eq!((refused.status, refused.json()["reason"].as_str()), (403, Some("refused")));
    assert_eq!(refused.error(), "not on Sundays");
    let asked = post(&api, "/v1/push?group=news", "publisher").await.error();
    assert!(asked.starts_with("default 127.0.0.1:") && asked.ends_with(" [group:news]"), "{asked}");
    let failed = post(&api, "/v1/push?uid=anna", "do trap").await;
    assert_eq!((failed.status, failed.json()["reason"].as_str()), (503, Some("failed")));
    anna.expect_nothing().await;
    bob.expect_nothing().await;
}

#[tokio::test]
async fn items_are_ruled_one_by_one() {
    let (gateway, api) = ruled(&Component::fixture("")).await;
    let mut anna = gateway.enter("anna").await;
    let texts = ["one", "refuse it", "do trap", "two"];
    let items: Vec<_> = texts.iter().map(|text| json!({ "uid": "anna", "text": text })).collect();
    let results = post(&api, "/v1/batch", &json!({ "items": items }).to_string()).await.json();
    let reasons: Vec<_> = (0..4).map(|n| results["results"][n]["reason"].as_str()).collect();
    assert_eq!(reasons, [None, Some("refused"), Some("failed"), None], "{results}");
    anna.expect("one").await;
    anna.expect("two").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_key_whose_request_is_being_carried_out_is_refused() {
    let (gateway, api) = ruled(&Component::fixture("")).await;
    let mut anna = gateway.enter("anna").await;
    let request = || api.request("POST /v1/push?uid=anna").and("Idempotency-Key", "k");
    let (first, second) = tokio::join!(api.send(request(), b"nap 150"), api.send(request(), b"nap 150"));
    let mut statuses = [first.status, second.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{first:?} {second:?}");
    let late = if first.status == 409 { first } else { second };
    assert_eq!(late.json()["reason"], "in-flight");
    anna.expect("nap 150").await;
    anna.expect_nothing().await;
}

/// Each version refuses with its number: a message that gets through has escaped the rules.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_escapes_the_rules_during_a_hundred_swaps() {
    let (gateway, api) = ruled(&Component::version(0)).await;
    let mut anna = gateway.enter("anna").await;
    let stop = Arc::new(AtomicBool::new(false));
    let pushing = tokio::spawn({
        let (stop, api) = (stop.clone(), api.clone());
        async move {
            let mut versions = std::collections::BTreeSet::new();
            let mut count = 0;
            while !stop.load(Ordering::SeqCst) {
                let ruled = post(&api, "/v1/push?uid=anna", "version").await;
                assert_eq!(ruled.status, 403, "{ruled:?}");
                versions.insert(ruled.error());
                count += 1;
                // The compiler runs at the lowest priority. It must get processor time.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (versions.len(), count)
        }
    });
    for swap in 1..=100 {
        let mark = gateway.log().mark();
        gateway.file("plugin.wasm").move_over(&Component::version(swap % 8));
        gateway.swapped_since(mark).await;
    }
    stop.store(true, Ordering::SeqCst);
    let (versions, count) = pushing.await.expect("each push is ruled");
    assert!(versions > 1 && count > 100, "{versions} versions ruled {count} messages");
    anna.expect_nothing().await;
}
