//! Compares the table of fixed bounds in `host/SETTINGS.md` with the constants in the code.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::units::{parse_duration, parse_size};

/// A value of the table or of a constant. Sizes are numbers of bytes.
#[derive(Debug, PartialEq)]
enum Bound {
    Number(usize),
    Time(Duration),
}

/// Reads a value of the table: `64`, `64KiB` or `10s`.
fn shown(text: &str) -> Option<Bound> {
    let number = text.parse().ok().or_else(|| parse_size(text)).map(Bound::Number);
    number.or_else(|| parse_duration(text).map(Bound::Time))
}

/// Returns the value of a constant: `64`, `64 << 10` or `Duration::from_secs(15 * 60)`.
fn value(code: &str, name: &str) -> Option<Bound> {
    let (_, rest) = code.split_once(&format!("const {name}: "))?;
    let (_, value) = rest.split_once(';')?.0.split_once(" = ")?;
    let Some((unit, amount)) = value.strip_prefix("Duration::from_").and_then(|value| value.split_once('(')) else {
        return number(value).map(Bound::Number);
    };
    let amount = u64::try_from(number(amount.strip_suffix(')')?)?).ok()?;
    Some(Bound::Time(match unit {
        "secs" => Duration::from_secs(amount),
        "millis" => Duration::from_millis(amount),
        _ => return None,
    }))
}

/// Computes a number, a product or a shift.
fn number(text: &str) -> Option<usize> {
    if let Some((left, right)) = text.split_once(" * ") {
        return Some(number(left)? * number(right)?);
    }
    if let Some((left, right)) = text.split_once(" << ") {
        return Some(number(left)? << number(right)?);
    }
    text.replace('_', "").parse().ok()
}

#[test]
fn the_page_has_the_fixed_bounds_of_the_code() {
    let (_, section) = include_str!("../../SETTINGS.md").split_once("## Fixed bounds").expect("the section");
    let rows: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 30, "the table is not found");
    for row in rows {
        let quoted: Vec<_> = row.rsplit("| ").take(2).flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let [name, file, wanted] = quoted[..] else { panic!("not `value` | `CONSTANT` in `file`: {row}") };
        let code = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).expect(file);
        let found = value(&code, name);
        assert!(found.is_some() && found == shown(wanted), "{row}\nthe code has {found:?}");
    }
}

#[test]
fn values_are_read_as_they_are_written() {
    for (code, text) in [
        ("pub(super) const A: usize = 100_000;", "100000"),
        ("const A: usize = 64 << 10;", "64KiB"),
        ("const A: Duration = Duration::from_secs(15 * 60);", "15m"),
        ("const A: Duration = Duration::from_millis(500);", "500ms"),
    ] {
        assert_eq!(value(code, "A"), shown(text), "{code}");
        assert_ne!(value(code, "A"), shown("7"), "{code}");
    }
    assert_eq!(value("const A: usize = 2 * B;", "A"), None);
}
