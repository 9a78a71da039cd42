//! `hotgate plugin deploy --all-nodes`.

use hotgate_tests::{Client, Component, Finished, Gateway, NatsSetup};
use serde_json::{Value, json};

use super::{fixture, join, setup, start_fixture};

/// The flag that names a gateway, with its own token.
async fn named(gateway: &Gateway) -> String {
    let token = gateway.state_folder().join("admin-token");
    format!("--gateway={}={}", gateway.admin().await.address, token.display())
}

/// Deploys the file `next` through the first gateway to all, of which the others are named.
async fn deploy(first: &Gateway, others: &[&Gateway], flags: &[&str]) -> Finished {
    let mut arguments = vec!["deploy".to_owned(), "next".to_owned(), "--all-nodes".to_owned()];
    for other in others {
        arguments.push(named(other).await);
    }
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    first.plugin(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
}

async fn version(gateway: &Gateway) -> String {
    let mut client: Client = gateway.enter("somebody").await;
    client.send("version").await;
    client.text().await
}

#[tokio::test]
async fn a_component_goes_to_all_gateways_one_after_the_other() {
    let Some((_nats, [a, b, c])) = start_fixture::<3>("timeout = \"5s\"").await else { return };
    a.file("next").copy_over(&Component::version(2));
    let deployed = deploy(&a, &[&b, &c], &[]).await;
    assert_eq!(deployed.code, Some(0), "{deployed:?}");
    let lines: Vec<_> = deployed.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{deployed:?}");
    for (line, gateway) in lines.iter().zip([&a, &b, &c]) {
        let address = gateway.admin().await.address.to_string();
        assert!(line.starts_with("gateway ") && line.contains(&address) && line.contains("generation 2"), "{line}");
        assert_eq!(version(gateway).await, "v2");
        let file = std::fs::read(gateway.file("plugin.wasm").path()).expect("the file");
        assert_eq!(file, Component::version(2).bytes());
    }
    // Once more, for programs.
    a.file("next").copy_over(&Component::version(3));
    let deployed = deploy(&b, &[&a, &c], &["--json"]).await;
    // This command ran in the folder of b, where there is no such file.
    assert!(deployed.code == Some(1) && deployed.stderr.contains("cannot read next"), "{deployed:?}");
    let deployed = deploy(&a, &[&c, &b], &["--json"]).await;
    let answer: Value = serde_json::from_str(&deployed.stdout).expect("JSON");
    let digests: Vec<_> = (0..3).map(|index| &answer["nodes"][index]["plugin"]["live"]["digest"]).collect();
    assert!(digests[0].is_string() && digests.iter().all(|digest| *digest == digests[0]), "{answer}");
    assert_eq!(version(&c).await, "v3");
}

#[tokio::test]
async fn nothing_is_deployed_unless_all_gateways_are_named_and_answer() {
    let Some((_nats, [a, b, c])) = start_fixture::<3>("timeout = \"5s\"").await else { return };
    let Some(elsewhere) = NatsSetup::new().start().await else { return };
    let [stranger] = join([fixture(&elsewhere, "")]).await;
    a.file("next").copy_over(&Component::version(2));
    let number = async |gateway: &Gateway| gateway.admin().await.json("GET /cluster").await["node"].to_string();
    for (others, words) in [
        (&[][..], ["--gateway", &*number(&c).await]),
        (&[&b], ["--gateway", &*number(&c).await]),
        (&[&b, &b], ["named twice", &*number(&b).await]),
        (&[&b, &c, &a], ["named twice", &*number(&a).await]),
        (&[&b, &c, &stranger], ["another cluster", &stranger.admin().await.address.to_string()]),
    ] {
        let refused = deploy(&a, others, &[]).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(words.iter().all(|word| refused.stderr.contains(word)) && refused.stdout.is_empty(), "{refused:?}");
    }
    // Another gateway's token does not get in.
    let [of_b, of_c] = [b.admin().await, c.admin().await].map(|admin| format!("--gateway={}", admin.address));
    let refused = a.plugin(&["deploy", "next", "--all-nodes", &of_b, &of_c]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("another token"), "{refused:?}");
    for gateway in [&a, &stranger] {
        assert_eq!(version(gateway).await, "v1");
    }
}

#[tokio::test]
async fn the_first_failure_stops_it_unless_it_is_told_to_go_on() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    // Gateway 2 has only built-in plugins: nothing can be deployed to it.
    let [a, b, c] =
        join([fixture(&nats, "node = 1\ntimeout = \"5s\""), setup(&nats, "node = 2"), fixture(&nats, "node = 3")])
            .await;
    a.file("next").copy_over(&Component::version(2));
    let stopped = deploy(&a, &[&b, &c], &[]).await;
    assert_eq!(stopped.code, Some(1), "{stopped:?}");
    assert!(stopped.stdout.starts_with("gateway 1 ") && stopped.stdout.lines().count() == 1, "{stopped:?}");
    for words in ["gateway 2 (", "built in", "have the component: gateway 1 (", "not tried (--keep-going): gateway 3 ("]
    {
        assert!(stopped.stderr.contains(words), "{words}: {stopped:?}");
    }
    assert_eq!((version(&a).await, version(&c).await), ("v2".to_owned(), "v1".to_owned()));
    let differs = a.admin().await.json("GET /cluster").await["warnings"].to_string();
    assert!(differs.contains("authenticator+router: the gateways have different components"), "{differs}");

    let went_on = deploy(&a, &[&b, &c], &["--keep-going", "--json"]).await;
    assert_eq!(went_on.code, Some(1), "{went_on:?}");
    let answer: Value = serde_json::from_str(&went_on.stdout).expect("JSON");
    assert_eq!(answer["nodes"][0]["plugin"]["live"]["generation"], 2, "the same component is no new generation");
    assert!(answer["nodes"][1]["error"].as_str().is_some_and(|error| error.contains("built in")), "{answer}");
    assert_eq!((&answer["nodes"][2]["node"], version(&c).await), (&json!(3), "v2".to_owned()));
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_stops_it_before_anything_is_deployed() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let [a, b] = join([fixture(&nats, "node = 1"), fixture(&nats, "node = 2")]).await;
    a.file("next").copy_over(&Component::version(2));
    let flag = named(&b).await;
    b.signal("STOP");
    let refused = a.plugin(&["deploy", "next", "--all-nodes", &flag]).await;
    assert!(refused.code == Some(1) && refused.stderr.contains("do not answer: 2"), "{refused:?}");
    assert_eq!(version(&a).await, "v1");
    // To go on, nobody needs to know where it would listen.
    let went_on = a.plugin(&["deploy", "next", "--all-nodes", "--keep-going"]).await;
    b.signal("CONT");
    assert!(went_on.code == Some(1) && went_on.stderr.contains("gateway 2: it does not answer"), "{went_on:?}");
    assert_eq!((version(&a).await, version(&b).await), ("v2".to_owned(), "v1".to_owned()));
}
