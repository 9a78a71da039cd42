//! Writes metrics in the text format of Prometheus, version 0.0.4.

use std::fmt::{self, Write as _};

use crate::base::histogram::{Edges, Times};

/// The media type of this format.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The names and values of labels.
pub(super) type Labels<'a> = [(&'a str, &'a str)];

/// The text being written.
#[derive(Default)]
pub(super) struct Exposition(String);

impl Exposition {
    /// Begins a metric. Its samples must follow.
    pub(super) fn metric(&mut self, name: &str, kind: &str, meaning: &str) {
        // Here and below: writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {}\n# TYPE {name} {kind}", meaning.replace('\\', "\\\\"));
    }

    pub(super) fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"{}\"", if index == 0 { '{' } else { ',' }, Escaped(text));
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// Writes the samples of a histogram with these labels.
    pub(super) fn histogram(&mut self, name: &str, labels: &Labels<'_>, edges: Edges, times: &Times) {
        let bucket = format!("{name}_bucket");
        let below = times.below(edges).map(|(edge, count)| (edge.as_secs_f64().to_string(), count));
        for (edge, count) in below.chain([("+Inf".to_owned(), times.count())]) {
            self.sample(&bucket, &[labels, &[("le", &*edge)]].concat(), count);
        }
        self.sample(&format!("{name}_sum"), labels, times.total().as_secs_f64());
        self.sample(&format!("{name}_count"), labels, times.count());
    }

    /// Writes a metric with one sample.
    pub(super) fn single(&mut self, name: &str, kind: &str, meaning: &str, value: impl fmt::Display) {
        self.metric(name, kind, meaning);
        self.sample(name, &[], value);
    }

    pub(super) fn text(self) -> String {
        self.0
    }
}

/// Displays the value of a label with its special characters escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '"' => f.write_str("\\\"")?,
                '\n' => f.write_str("\\n")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_can_forge_a_sample() {
        let mut text = Exposition::default();
        text.single("a_total", "counter", "How many.", 3);
        text.sample("b", &[("plugin", "x\"} 1\nc{y=\"\\"), ("z", "")], 0.5);
        let expected = "# HELP a_total How many.\n# TYPE a_total counter\na_total 3\n\
                        b{plugin=\"x\\\"} 1\\nc{y=\\\"\\\\\",z=\"\"} 0.5\n";
        assert_eq!(text.text(), expected);
    }
}
