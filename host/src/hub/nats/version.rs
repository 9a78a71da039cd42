//! The versions of nats-server.

/// Returns `true` if a server of this version has faults that are known and fixed: before 2.11.15, and 2.12 before
/// 2.12.6 (eleven CVEs of March 2026). Also if the version cannot be read.
pub fn is_outdated(version: &str) -> bool {
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version < (2, 11, 15) || ((2, 12, 0)..(2, 12, 6)).contains(&version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_with_known_faults_are_outdated() {
        for outdated in ["2.9.10", "2.11.14", "2.12.0", "2.12.5-RC.1", "1.4.1", "", "latest"] {
            assert!(is_outdated(outdated), "{outdated}");
        }
        for current in ["2.11.15", "2.11.16", "2.12.6", "2.13.0-beta.1", "2.15.1", "3.0.0"] {
            assert!(!is_outdated(current), "{current}");
        }
    }
}
