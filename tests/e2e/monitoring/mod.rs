//! `host/ops/alerts.yml` for Prometheus and `host/ops/grafana.json` for Grafana ask only for what the gateway shows.
//! `tests/ops/monitoring` tests when the alerts ring.

mod alerts;
mod page;
mod promql;

use std::collections::BTreeSet;
use std::path::Path;

use hotgate_tests::Gateway;
use serde_json::Value;

use self::alerts::alerts;
use self::page::Page;
use self::promql::Query;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn dashboard() -> Value {
    serde_json::from_str(&read("host/ops/grafana.json")).expect("JSON")
}

/// Adds all objects in a part of the dashboard, the outer ones first.
fn objects<'a>(part: &'a Value, found: &mut Vec<&'a Value>) {
    match part {
        Value::Object(fields) => {
            found.push(part);
            fields.values().for_each(|inner| objects(inner, found));
        }
        Value::Array(items) => items.iter().for_each(|inner| objects(inner, found)),
        _ => {}
    }
}

/// Returns the labels that a text shows: `{{slot}}` in Grafana, `{{ $labels.slot }}` in Prometheus.
fn shown(text: &str) -> Vec<String> {
    let inner = text.split("{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0.trim()));
    let labels =
        inner.filter_map(|inner| inner.strip_prefix("$labels.").or((!inner.starts_with('$')).then_some(inner)));
    labels.map(str::to_owned).collect()
}

/// Returns all queries of both files, with the labels that the texts beside them show. The names say where they stand.
fn queries() -> Vec<(String, Query)> {
    let mut queries = Vec::new();
    for alert in alerts() {
        let mut query = Query::parse(&alert.fields["expr"]);
        alert.annotations.values().for_each(|text| query.labels.extend(shown(text)));
        queries.push((alert.fields["alert"].clone(), query));
    }
    let (dashboard, mut found) = (dashboard(), Vec::new());
    objects(&dashboard, &mut found);
    for object in found {
        for key in ["expr", "definition"] {
            let Some(text) = object[key].as_str() else { continue };
            let mut query = Query::parse(text);
            for key in ["legendFormat", "titleFormat", "textFormat"] {
                query.labels.extend(shown(object[key].as_str().unwrap_or_default()));
            }
            queries.push((text.to_owned(), query));
        }
    }
    assert!(queries.len() > 80, "queries are missing");
    queries
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_and_labels_that_exist() {
    let page = Page::parse(&read("host/METRICS.md"));
    let queries = queries();
    let unknown = queries.iter().flat_map(|(place, query)| {
        page.unknown(query).into_iter().map(move |unknown| format!("{unknown}: {}", place.trim()))
    });
    let unknown: Vec<_> = unknown.collect();
    assert!(unknown.is_empty(), "METRICS.md does not have:\n{}", unknown.join("\n"));
}

#[tokio::test]
async fn alerts_and_dashboard_ask_for_values_that_labels_have() {
    let page = Page::parse(&read("host/METRICS.md"));
    let gateway = Gateway::start().await;
    let metrics = gateway.admin().await.ask("GET /metrics").await.body;
    for (place, query) in queries() {
        for selector in query.selectors {
            let Some((metric, _)) = page.find(&selector.metric) else { continue };
            for (label, pattern) in &selector.matchers {
                // Patterns are lists of values here, or `$variables` of the dashboard.
                for value in pattern.split('|').filter(|value| !value.starts_with('$')) {
                    let sample = format!("{label}=\"{value}\"");
                    let mut samples = metrics.lines().filter(|line| line.starts_with(&selector.metric));
                    let is_known = metric.words.contains(value) || samples.any(|line| line.contains(&sample));
                    assert!(is_known, "{place}: no {} has {sample}", selector.metric);
                }
            }
        }
    }
}

#[test]
fn each_alert_says_what_to_do_and_is_tested() {
    let page = read("host/OPERATING.md");
    let tests = read("tests/ops/alerts.test.yml");
    let headings: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## ").or(line.strip_prefix("### ")))
        .map(|heading| heading.to_lowercase().replace(' ', "-").replace(|c: char| !c.is_alphanumeric() && c != '-', ""))
        .collect();
    for alert in alerts() {
        let name = &alert.fields["alert"];
        assert!(alert.fields.contains_key("for"), "{name} has no `for`");
        let severity = &alert.fields["labels"];
        assert!(["{ severity: critical }", "{ severity: warning }"].contains(&&**severity), "{name}: {severity}");
        assert!(!alert.annotations["summary"].is_empty() && alert.annotations["description"].len() > 80, "{name}");
        let section = alert.annotations["runbook"].strip_prefix("host/OPERATING.md#").expect("a section");
        assert!(headings.contains(section), "{name}: OPERATING.md has no section {section}");
        let rings = format!("alertname=\"{name}\", alertstate=\"firing\"}})");
        let is_tested =
            tests.lines().any(|line| line.ends_with(&rings) || line.ends_with(&format!("alertname: {name}")));
        assert!(is_tested || name == "HotgateNoGateway", "{name} has no test in which it rings");
    }
}

#[test]
fn the_dashboard_can_be_imported_as_it_is() {
    let dashboard = dashboard();
    assert_eq!((&dashboard["id"], &dashboard["uid"]), (&Value::Null, &"hotgate".into()));
    assert_eq!(dashboard["__inputs"], Value::Null);
    let mut found = Vec::new();
    objects(&dashboard, &mut found);
    for source in found.iter().filter_map(|object| object.get("datasource")) {
        let built_in = source["uid"] == "-- Grafana --";
        assert!(built_in || source["uid"] == "${datasource}", "a data source of somebody's own: {source}");
    }
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = &panel["title"];
        assert!(panel["description"].as_str().is_some_and(|text| text.len() > 20), "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(panel["targets"].as_array().is_some_and(|targets| !targets.is_empty()), "{title} asks nothing");
    }
}

#[tokio::test]
async fn logins_messages_and_pushes_are_measured() {
    let gateway = Gateway::start().await;
    let admin = gateway.admin().await;
    let mut anna = gateway.login("anna").await;
    anna.send(r#"{"id":"anna","msg":"hi"}"#).await;
    anna.expect("hi").await;
    assert_eq!(gateway.sender().await.ask(r#"{"uid":"bob"}"#).await, "fail");
    for (name, expected) in [
        ("hotgate_ready", 1.0),
        ("hotgate_login_seconds_count", 1.0),
        ("hotgate_login_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("hotgate_received_bytes_total", 24.0),
        ("hotgate_push_seconds_count{by=\"text\"}", 1.0),
        ("hotgate_push_seconds_count{by=\"http\"}", 0.0),
    ] {
        assert_eq!(admin.metric(name).await, expected, "{name}");
    }
    assert!(admin.metric("hotgate_sent_bytes_total").await > 10.0);
}
