//! The result as a Markdown table, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::row::{Goal, Measured, Spread};

/// The ratio of throughputs must reach at least this share of the ratio of CPU times.
const THROUGHPUT: f64 = 0.8;

pub(super) fn markdown(measured: &[Measured], rounds: u32) -> String {
    let mut text = format!(
        "Rounds: {rounds}. Median [lowest – highest]. For a goal with ≥, the ratio is the other figure divided by \
         Hotgate's. For a goal with ≤, it is Hotgate's figure divided by the other.\n\n"
    );
    text += "| work | ratio | goal | | Hotgate | compared with | throughput |\n";
    text += "| --- | --- | --- | --- | --- | --- | --- |\n";
    for this in measured {
        let row = this.row;
        let (Some(verdict), Some(hotgate), Some(beside)) = (this.verdict(), this.hotgate(), this.beside()) else {
            _ = writeln!(text, "| {} | not measured | | | | | |", row.title);
            continue;
        };
        let (figure, goal) = match row.goal {
            Goal::Times(least) => (times(&verdict), format!("≥ {least} ×")),
            Goal::Within(most) => (times(&verdict), format!("≤ {most} ×")),
            Goal::AtMost(most) => {
                (this.times().map_or_else(String::new, |spread| times(&spread)), format!("≤ {most} {}", row.unit))
            }
        };
        _ = writeln!(
            text,
            "| {} | {figure} | {goal} | {} | {} {} | {}: {} {} | {} |",
            row.title,
            if this.met() == Some(true) { "✓" } else { "missed" },
            plain(&hotgate),
            row.unit,
            row.beside,
            plain(&beside),
            row.unit,
            this.throughput().map_or_else(String::new, |spread| throughput(this, &spread)),
        );
    }
    text
}

fn throughput(this: &Measured, ratio: &Spread) -> String {
    let enough = match (this.row.goal, this.times()) {
        (Goal::Times(_), Some(cpu)) if ratio.median < THROUGHPUT * cpu.median => ", too little",
        _ => "",
    };
    format!("{}{enough}", times(ratio))
}

fn times(spread: &Spread) -> String {
    format!("**{} ×** [{} – {}]", digits(spread.median), digits(spread.min), digits(spread.max))
}

fn plain(spread: &Spread) -> String {
    digits(spread.median)
}

/// Formats a value with three significant digits. A noisy machine measures no more than that.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

pub(super) fn json(measured: &[Measured]) -> Value {
    let spread = |spread: Option<Spread>| spread.map(|it| json!({"min": it.min, "median": it.median, "max": it.max}));
    measured
        .iter()
        .map(|this| {
            json!({
                "row": this.row.name, "title": this.row.title, "unit": this.row.unit, "beside": this.row.beside,
                "hotgate": spread(this.hotgate()), "other": spread(this.beside()),
                "other_by_hotgate": spread(this.times()), "hotgate_by_other": spread(this.share()),
                "throughput": spread(this.throughput()), "goal": format!("{:?}", this.row.goal), "met": this.met(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::row::{Figure, Pair, ROWS};

    fn pair(hotgate: f64, beside: f64) -> Pair {
        let figure = |value: f64| Figure { value, per_s: Some(1e6 / value) };
        Pair { hotgate: figure(hotgate), beside: figure(beside) }
    }

    fn line(name: &str, pairs: Vec<Pair>) -> String {
        let row = ROWS.iter().find(|row| row.name == name).unwrap();
        markdown(&[Measured { row, pairs }], 3).lines().last().unwrap().to_owned()
    }

    #[test]
    fn a_ratio_with_its_spread() {
        let line = line("relay-8", vec![pair(2.0, 14.0), pair(2.0, 12.0), pair(2.0, 20.0)]);
        assert!(line.contains("**7.00 ×** [6.00 – 10.0] | ≥ 6 × | ✓ | 2.00 µs CPU | node: 14.0 µs CPU"), "{line}");
    }

    #[test]
    fn what_is_missed_says_so() {
        assert!(line("relay-8", vec![pair(3.0, 15.0)]).contains("missed"));
        assert!(line("broadcast", vec![pair(20.0, 10.0)]).contains("**2.00 ×** [2.00 – 2.00] | ≤ 1.5 × | missed"));
        assert!(line("broadcast", vec![pair(14.0, 10.0)]).contains('✓'));
        assert!(line("memory", vec![pair(5.0, 7.5)]).contains("**1.50 ×** [1.50 – 1.50] | ≤ 4 KB | missed"));
        assert!(line("memory", vec![]).contains("not measured"));
    }

    #[test]
    fn throughput_that_lags_behind_says_so() {
        let mut lagging = pair(2.0, 14.0);
        lagging.hotgate.per_s = lagging.beside.per_s;
        assert!(line("relay-8", vec![lagging]).contains("too little"));
        assert!(!line("relay-8", vec![pair(2.0, 14.0)]).contains("too little"));
    }
}
