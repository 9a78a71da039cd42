//! Reasons to doubt the figures.

use serde_json::Value;

use super::row::{ROWS, Work};

/// The largest share of its time that wsload may wait for its core. Above it, other programs use the machine.
const DISTURBED: f64 = 0.05;

/// The reasons to doubt these runs, as sentences.
pub(super) fn doubts(runs: &[Value]) -> Vec<String> {
    let shared = |run: &&Value| ROWS.iter().any(|row| row.work == Work::Cores && run["row"] == row.name);
    let own: Vec<_> = runs.iter().filter(|run| !shared(run)).collect();
    let waits = own.iter().map(|run| {
        let tool = &run["result"]["tool"];
        tool["run_delay_s"].as_f64().unwrap_or(0.0) / tool["wall_s"].as_f64().unwrap_or(f64::INFINITY)
    });
    let disturbed: Vec<f64> = waits.filter(|share| *share > DISTURBED).collect();
    let mut doubts = Vec::new();
    if let Some(worst) = disturbed.iter().copied().reduce(f64::max) {
        doubts.push(format!(
            "Other programs disturbed this machine: in {} of {} runs wsload had to wait for its core, up to {:.0} % of the time.",
            disturbed.len(),
            own.len(),
            worst * 100.0
        ));
    }
    let full = places(runs, |run| run["result"]["tool"]["saturated"] == true);
    if !full.is_empty() {
        doubts.push(format!("wsload was busy all the time, so the server could have done more: {full}."));
    }
    let late = places(runs, |run| run["result"]["counts"]["not_sent"].as_u64().unwrap_or(0) > 0);
    if !late.is_empty() {
        doubts.push(format!("wsload was so late that it left out messages: {late}."));
    }
    doubts
}

/// The rows and servers of the runs for which `holds` is true.
fn places(runs: &[Value], holds: impl Fn(&Value) -> bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found = runs.iter().filter(|run| holds(run));
    let mut places: Vec<String> =
        found.map(|run| format!("{} ({})", text(&run["row"]), text(&run["server"]))).collect();
    places.sort();
    places.dedup();
    places.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(row: &str, waited: f64, saturated: bool) -> Value {
        json!({"row": row, "server": "node", "result": {"tool": {"run_delay_s": waited, "wall_s": 10, "saturated": saturated}}})
    }

    #[test]
    fn a_quiet_machine_gives_none() {
        assert!(doubts(&[run("relay-8", 0.1, false), run("cores", 5.0, false)]).is_empty());
    }

    #[test]
    fn a_busy_machine_is_told_once() {
        let doubts = doubts(&[run("relay-8", 2.0, true), run("relay-8", 3.0, true), run("push-1", 0.0, false)]);
        assert_eq!(doubts.len(), 2);
        assert!(doubts[0].contains("2 of 3 runs") && doubts[0].contains("30 %"), "{doubts:?}");
        assert!(doubts[1].ends_with("more: relay-8 (node)."), "{doubts:?}");
    }
}
