//! The page METRICS.md: which metrics there are, and their labels.

use std::collections::{BTreeMap, BTreeSet};

use super::promql::Query;

/// Labels that Prometheus adds to each metric.
const ADDED: [&str; 2] = ["job", "instance"];
/// Labels of Prometheus's own metric `ALERTS`.
const OF_ALERTS: [&str; 2] = ["alertname", "alertstate"];

/// All metrics, by their names.
pub(super) struct Page(BTreeMap<String, Metric>);

/// A row of the page.
pub(super) struct Metric {
    kind: String,
    labels: BTreeSet<String>,
    /// Everything in backticks: the row may name values of labels, too.
    pub(super) words: BTreeSet<String>,
}

fn words(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the labels in "By `slot`, `outcome` (`ok`, or the kind of failure)." or "By `state`: `draining`, `joining`."
fn labels(meaning: &str) -> BTreeSet<String> {
    let Some((_, by)) = meaning.rsplit_once("By `") else { return BTreeSet::new() };
    let by = format!("`{by}");
    let by = by.split(": ").next().unwrap_or_default();
    let without_brackets = by.split('(').map(|part| part.split_once(')').map_or(part, |(_, after)| after));
    words(&without_brackets.collect::<String>())
}

impl Page {
    /// Reads the page.
    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = BTreeMap::new();
        for line in text.lines() {
            let Some((name, rest)) = line.strip_prefix("| `").and_then(|line| line.split_once("` | ")) else {
                continue;
            };
            let (kind, meaning) = rest.split_once(" | ").expect("a kind and a meaning");
            let metric = Metric { kind: kind.to_owned(), labels: labels(meaning), words: words(meaning) };
            metrics.insert(name.to_owned(), metric);
        }
        assert!(metrics.len() > 40, "METRICS.md has another form");
        Self(metrics)
    }

    /// Returns a metric by its name, or by a name of its samples, and whether that one has the label `le`.
    pub(super) fn find(&self, name: &str) -> Option<(&Metric, bool)> {
        let of = |end: &str, kinds: &[&str]| {
            let metric = self.0.get(name.strip_suffix(end)?)?;
            kinds.contains(&&*metric.kind).then_some((metric, end == "_bucket"))
        };
        let exact = self.0.get(name).filter(|metric| !matches!(&*metric.kind, "histogram" | "summary"));
        exact.map(|metric| (metric, false)).or_else(|| {
            let both = ["histogram", "summary"];
            of("_bucket", &both[..1]).or_else(|| of("_sum", &both)).or_else(|| of("_count", &both))
        })
    }

    /// Returns what the page does not have of the names in a query.
    pub(super) fn unknown(&self, query: &Query) -> Vec<String> {
        let (mut unknown, mut all) = (Vec::new(), ADDED.map(str::to_owned).to_vec());
        for selector in &query.selectors {
            let own = match (&*selector.metric, self.find(&selector.metric)) {
                ("up", _) => Vec::new(),
                ("ALERTS", _) => OF_ALERTS.map(str::to_owned).to_vec(),
                (_, Some((metric, has_le))) => {
                    metric.labels.iter().cloned().chain(has_le.then(|| "le".to_owned())).collect()
                }
                (name, None) => {
                    unknown.push(format!("no metric {name}"));
                    continue;
                }
            };
            for (label, _) in &selector.matchers {
                if !own.contains(label) && !ADDED.contains(&&**label) {
                    unknown.push(format!("no label {label} of {}", selector.metric));
                }
            }
            all.extend(own);
        }
        // The labels of a metric that does not exist are not known.
        if unknown.is_empty() {
            let labels = query.labels.iter().filter(|label| !all.contains(label));
            unknown.extend(labels.map(|label| format!("no label {label} of any metric in the query")));
        }
        unknown
    }
}

#[test]
fn what_the_page_does_not_have_is_unknown() {
    let mut page = Page::parse(&super::read("host/METRICS.md"));
    let labels = labels("Of `a`. By `slot`, `outcome` (`ok`, or the kind of failure) and `rate`.");
    assert_eq!(labels, ["outcome", "rate", "slot"].map(str::to_owned).into());
    let metric = Metric { kind: "histogram".to_owned(), labels, words: BTreeSet::new() };
    page.0.insert("hotgate_times".to_owned(), metric);
    for (query, unknown) in [
        ("up + hotgate_connections", vec![]),
        (r#"sum by (instance, reason) (hotgate_logins_denied_total{reason="failed", job="a"})"#, vec![]),
        (r#"hotgate_cluster_gateways{state="draining"}"#, vec![]),
        (r#"hotgate_cluster_gateways{draining="1"}"#, vec!["no label draining of hotgate_cluster_gateways"]),
        ("hotgate_connection", vec!["no metric hotgate_connection"]),
        ("hotgate_connections_count", vec!["no metric hotgate_connections_count"]),
        (r#"hotgate_connections{reason="a"}"#, vec!["no label reason of hotgate_connections"]),
        ("sum by (slot) (hotgate_connections)", vec!["no label slot of any metric in the query"]),
        ("sum by (le, slot) (hotgate_times_bucket)", vec![]),
        ("sum by (le) (hotgate_times_sum)", vec!["no label le of any metric in the query"]),
        ("hotgate_times", vec!["no metric hotgate_times"]),
    ] {
        assert_eq!(page.unknown(&Query::parse(query)), unknown, "{query}");
    }
}
