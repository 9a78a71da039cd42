//! Reads `host/ops/alerts.yml`, in the form that it has. `promtool` checks that it is YAML (`tests/ops/monitoring`).

use std::collections::BTreeMap;

/// A rule.
#[derive(Debug)]
pub(super) struct Alert {
    /// `alert`, `expr`, `for` and `labels`.
    pub(super) fields: BTreeMap<String, String>,
    /// `summary`, `description` and `runbook`.
    pub(super) annotations: BTreeMap<String, String>,
}

/// Returns all rules.
pub(super) fn alerts() -> Vec<Alert> {
    let text = super::read("host/ops/alerts.yml");
    let rules = text.split("\n      - alert: ").skip(1).map(|rule| {
        let rule = rule.split("\n\n").next().unwrap_or_default();
        let mut fields = fields(&format!("        alert: {rule}"), 8);
        let annotations = self::fields(&fields.remove("annotations").expect("annotations"), 10);
        Alert { fields, annotations }
    });
    let rules: Vec<_> = rules.collect();
    assert_eq!(rules.len(), text.matches("alert:").count(), "the file has another form");
    rules
}

/// Returns the keys that are indented so far, with their values. Lines that are indented further belong to the value.
fn fields(text: &str, indent: usize) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::<String, String>::new();
    let mut last = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.len() - line.trim_start().len() == indent {
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no key: {line}"));
            key.trim().clone_into(&mut last);
            let value = value.trim();
            let value = if matches!(value, "|" | ">-") { "" } else { value.trim_matches(['"', '\'']) };
            fields.insert(last.clone(), value.to_owned());
        } else {
            let value = fields.get_mut(&last).expect("a key before its value");
            *value = format!("{value}\n{line}");
        }
    }
    fields
}
