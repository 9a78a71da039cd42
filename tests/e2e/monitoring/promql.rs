//! Finds the names in a query of Prometheus. `promtool` checks the rest of the query (`tests/ops/monitoring`).

use std::iter::Peekable;
use std::vec::IntoIter;

/// Words between two operands.
const OPERATORS: [&str; 6] = ["and", "or", "unless", "offset", "bool", "atan2"];
/// Words before a list of labels.
const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The names in a query.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    /// The metrics.
    pub(super) selectors: Vec<Selector>,
    /// The labels in `by (…)` and the like.
    pub(super) labels: Vec<String>,
}

/// A metric, and what its labels must be.
#[derive(Debug, PartialEq)]
pub(super) struct Selector {
    /// The metric's name.
    pub(super) metric: String,
    /// Labels with the value, or the pattern, that they are compared with.
    pub(super) matchers: Vec<(String, String)>,
}

#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Text(String),
    Sign(char),
}

impl Query {
    /// Reads a query, or a query of Grafana's for a variable: `label_values(metric, label)`.
    pub(super) fn parse(text: &str) -> Self {
        if let Some(inner) = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')) {
            let (metric, label) = inner.rsplit_once(", ").expect("a metric and a label");
            let mut query = Self::parse(metric);
            query.labels.push(label.to_owned());
            return query;
        }
        let (mut query, mut tokens) = (Self::default(), tokens(text).into_iter().peekable());
        while let Some(token) = tokens.next() {
            let Token::Name(name) = token else { continue };
            let is_grouping = GROUPINGS.contains(&&*name);
            match tokens.peek() {
                Some(Token::Sign('(')) if is_grouping => query.labels.extend(list(&mut tokens)),
                // A function, or an aggregation.
                Some(Token::Sign('(')) => {}
                Some(Token::Name(next)) if GROUPINGS[..2].contains(&&**next) => {}
                _ if is_grouping || OPERATORS.contains(&&*name) => {}
                _ => query.selectors.push(Selector { metric: name, matchers: matchers(&mut tokens) }),
            }
        }
        query
    }
}

/// Reads the names in brackets.
fn list(tokens: &mut Peekable<IntoIter<Token>>) -> Vec<String> {
    let inner = tokens.by_ref().take_while(|token| *token != Token::Sign(')'));
    inner.filter_map(|token| if let Token::Name(name) = token { Some(name) } else { None }).collect()
}

/// Reads `{label="value", …}`, if it follows.
fn matchers(tokens: &mut Peekable<IntoIter<Token>>) -> Vec<(String, String)> {
    let (mut found, mut label) = (Vec::new(), None);
    if tokens.next_if_eq(&Token::Sign('{')).is_some() {
        for token in tokens.by_ref().take_while(|token| *token != Token::Sign('}')) {
            match token {
                Token::Name(name) => label = Some(name),
                Token::Text(value) => found.push((label.take().expect("a label before the value"), value)),
                Token::Sign(_) => {}
            }
        }
    }
    found
}

/// Divides a query. Leaves out numbers and ranges: they name nothing.
fn tokens(text: &str) -> Vec<Token> {
    let (mut found, mut chars) = (Vec::new(), text.chars().peekable());
    let is_of_a_name = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    while let Some(first) = chars.next() {
        match first {
            '0'..='9' => while chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '.').is_some() {},
            '[' => while chars.next().is_some_and(|c| c != ']') {},
            '"' => found.push(Token::Text(chars.by_ref().take_while(|c| *c != '"').collect())),
            c if is_of_a_name(&c) => {
                let rest = std::iter::from_fn(|| chars.next_if(is_of_a_name));
                found.push(Token::Name([c].into_iter().chain(rest).collect()));
            }
            c if c.is_whitespace() => {}
            c => found.push(Token::Sign(c)),
        }
    }
    found
}

#[test]
fn names_are_found_in_queries() {
    let selector = |metric: &str, matchers: &[(&str, &str)]| {
        let matchers = matchers.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        Selector { metric: metric.to_owned(), matchers }
    };
    for (text, selectors, labels) in [
        ("a", vec![selector("a", &[])], vec![]),
        ("a - 1.5e3 > bool 10 * b offset 5m", vec![selector("a", &[]), selector("b", &[])], vec![]),
        ("sum(a) by (x, y)", vec![selector("a", &[])], vec!["x", "y"]),
        (
            r#"sum by (x) (rate(a{b="c", d!~"e|f"}[5m])) unless on (y) b{}"#,
            vec![selector("a", &[("b", "c"), ("d", "e|f")]), selector("b", &[])],
            vec!["x", "y"],
        ),
        (r#"label_values(a{b=~"$b"}, c)"#, vec![selector("a", &[("b", "$b")])], vec!["c"]),
    ] {
        let labels = labels.into_iter().map(str::to_owned).collect();
        assert_eq!(Query::parse(text), Query { selectors, labels }, "{text}");
    }
}
