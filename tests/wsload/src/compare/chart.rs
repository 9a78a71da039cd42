//! The result as a picture.

use std::fmt::Write as _;

use super::row::{Goal, Measured, Spread};
use super::table::digits;

const WIDTH: f64 = 900.0;
/// The left and the right end of the bars.
const LEFT: f64 = 310.0;
const RIGHT: f64 = 730.0;
/// The longest bar, as a multiple of its goal.
const FARTHEST: f64 = 3.0;
const LINE: f64 = 34.0;
const BAR: f64 = 16.0;

/// Colours that are readable on light and on dark pages.
const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px }
.note { font-size: 12px; fill: #57606a }
.met { fill: #2da44e }
.missed { fill: #bf8700 }
.spread { stroke: #24292f; stroke-width: 1.5; fill: none }
.goal { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note { fill: #8d96a0 }
  .met { fill: #3fb950 }
  .missed { fill: #d29922 }
  .spread { stroke: #e6edf3 }
  .goal { stroke: #ff7b72 }
}";

struct Bar {
    label: &'static str,
    spread: Spread,
    goal: f64,
    met: bool,
    text: String,
}

/// Draws bars for goals of "so many times better", and bars for figures that must stay below a limit.
pub(super) fn svg(measured: &[Measured]) -> String {
    let bars = |wanted: bool| -> Vec<Bar> {
        measured.iter().filter(|this| matches!(this.row.goal, Goal::Times(_)) == wanted).filter_map(bar).collect()
    };
    let mut body = String::new();
    let mut top = 10.0;
    panel(&mut body, &mut top, "The other server's figure divided by Hotgate's (more is better)", &bars(true));
    panel(&mut body, &mut top, "Hotgate's figure as a share of its limit (less is better)", &bars(false));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\">\n\
         <title>Hotgate compared with servers with compiled-in rules</title>\n<style>\n{STYLE}\n</style>\n{body}\
         <text class=\"note\" x=\"10\" y=\"{}\">Bar: median of the rounds. Whisker: lowest and highest. Dashed: the goal.</text>\n</svg>\n",
        top - 8.0
    )
}

fn bar(this: &Measured) -> Option<Bar> {
    let verdict = this.verdict()?;
    let by = |spread: Spread, limit: f64| Spread {
        min: spread.min / limit,
        median: spread.median / limit,
        max: spread.max / limit,
    };
    let (spread, goal, text) = match this.row.goal {
        Goal::Times(least) => (verdict, least, format!("{} × of ≥ {least}", digits(verdict.median))),
        Goal::Within(most) => (by(verdict, most), 1.0, format!("{} × of ≤ {most}", digits(verdict.median))),
        Goal::AtMost(most) => {
            (by(verdict, most), 1.0, format!("{} {} of ≤ {most}", digits(verdict.median), this.row.unit))
        }
    };
    Some(Bar { label: this.row.title, spread, goal, met: this.met()?, text })
}

fn panel(body: &mut String, top: &mut f64, title: &str, bars: &[Bar]) {
    // A bar far past its goal ends at the edge. Otherwise the other bars would be too small to read.
    let length = |bar: &Bar| bar.spread.max.clamp(bar.goal, FARTHEST * bar.goal);
    let Some(most) = bars.iter().map(length).reduce(f64::max) else { return };
    let at = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).min(1.0);
    _ = writeln!(body, "<text class=\"title\" x=\"10\" y=\"{}\">{title}</text>", *top + 14.0);
    *top += 28.0;
    for bar in bars {
        let Bar { label, spread, goal, met, text } = bar;
        let middle = *top + LINE / 2.0;
        let (low, median, high) = (at(spread.min), at(spread.median), at(spread.max));
        let class = if *met { "met" } else { "missed" };
        _ = writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\"/>\n\
             <path class=\"spread\" d=\"M{low:.1} {middle:.1}H{high:.1}M{low:.1} {a:.1}v8M{high:.1} {a:.1}v8\"/>\n\
             <path class=\"goal\" d=\"M{:.1} {:.1}v{LINE}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
            LEFT - 10.0,
            middle + 4.5,
            middle - BAR / 2.0,
            median - LEFT,
            at(*goal),
            *top,
            RIGHT + 14.0,
            middle + 4.5,
            a = middle - 4.0,
        );
        *top += LINE;
    }
    *top += 30.0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::row::{Figure, Pair, ROWS};

    #[test]
    fn every_row_has_its_bar() {
        let figure = |value: f64| Figure { value, per_s: None };
        let pair = Pair { hotgate: figure(2.0), beside: figure(9.0) };
        let measured: Vec<Measured> = ROWS.iter().map(|row| Measured { row, pairs: vec![pair] }).collect();
        let picture = svg(&measured);
        assert_eq!(picture.matches("<rect").count(), ROWS.len());
        assert!(ROWS.iter().all(|row| picture.contains(row.title)));
        assert!(!picture.contains("NaN") && !picture.contains("inf"));
    }
}
