//! Problems that an operator should know now, for `hotgate status`.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// The problems that parts of the gateway have at the moment. The log says when they began; this says which are left.
#[derive(Debug, Default)]
pub struct Notices(Mutex<BTreeMap<&'static str, Vec<String>>>);

impl Notices {
    /// Replaces the problems of a part of the gateway, such as `configuration`. An empty list removes them.
    pub fn set(&self, part: &'static str, problems: Vec<String>) {
        let mut all = self.0.lock();
        match problems.is_empty() {
            true => all.remove(part),
            false => all.insert(part, problems),
        };
    }

    /// Returns all problems, each with its part in front.
    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock();
        all.iter()
            .flat_map(|(part, problems)| problems.iter().map(move |problem| format!("{part}: {problem}")))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_replaces_its_own_problems_only() {
        let notices = Notices::default();
        notices.set("configuration", vec!["a".to_owned(), "b".to_owned()]);
        notices.set("api", vec!["c".to_owned()]);
        assert_eq!(notices.all(), ["api: c", "configuration: a", "configuration: b"]);
        notices.set("configuration", vec![]);
        assert_eq!(notices.all(), ["api: c"]);
    }
}
