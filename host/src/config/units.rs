//! Sizes and durations as people write them: `64KiB`, `64kB`, `500ms`.

use std::time::Duration;

pub(super) const KIB: usize = 1 << 10;
pub(super) const MIB: usize = 1 << 20;
pub(super) const GIB: usize = 1 << 30;
pub(super) const TIB: usize = 1 << 40;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const HOUR: Duration = secs(3600);
pub(super) const DAY: Duration = secs(24 * 3600);

pub(super) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(super) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const SIZES: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Powers of 1000. They are read, but never printed.
const DECIMAL_SIZES: [(&str, u64); 5] =
    [("TB", 10_u64.pow(12)), ("GB", 10_u64.pow(9)), ("MB", 10_u64.pow(6)), ("kB", 1000), ("KB", 1000)];

/// Units of time, in milliseconds.
const DURATIONS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a number of bytes from text such as `64KiB` or `64kB`. The unit is required.
pub(super) fn parse_size(text: &str) -> Option<usize> {
    parse(text, &SIZES).or_else(|| parse(text, &DECIMAL_SIZES))?.try_into().ok()
}

/// Returns the shortest exact text for a number of bytes: 65536 is `64KiB`, 1500 is `1500B`.
pub(super) fn show_size(bytes: usize) -> String {
    show(u64::try_from(bytes).unwrap_or(u64::MAX), &SIZES, "B")
}

/// Reads a duration in whole milliseconds from text such as `500ms`. The unit is required.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &DURATIONS).map(Duration::from_millis)
}

/// Returns the shortest exact text for a duration: 60 s is `1m`, 90 s is `90s`.
pub(super) fn show_duration(duration: Duration) -> String {
    show(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATIONS, "s")
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn show(number: u64, units: &[(&str, u64)], zero: &str) -> String {
    units
        .iter()
        .find(|(_, factor)| number != 0 && number.is_multiple_of(*factor))
        .map_or_else(|| format!("0{zero}"), |(unit, factor)| format!("{}{unit}", number / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print_in_their_roundest_form() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (1500, "1500B"),
            (1 << 10, "1KiB"),
            (1536, "1536B"),
            (3 << 19, "1536KiB"),
            (1 << 20, "1MiB"),
            (2 << 30, "2GiB"),
        ] {
            assert_eq!(show_size(bytes), text);
            assert_eq!(parse_size(text), Some(bytes));
        }
    }

    #[test]
    fn sizes_may_be_decimal() {
        for (text, bytes) in [("1kB", 1000), ("64KB", 64_000), ("1MB", 1_000_000), ("2GB", 2_000_000_000)] {
            assert_eq!(parse_size(text), Some(bytes));
        }
        assert_eq!(parse_size("1TB"), Some(1_000_000_000_000));
        assert_eq!(show_size(1_000_000), "1000000B");
    }

    #[test]
    fn durations_read_and_print_in_their_roundest_form() {
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (1500, "1500ms"),
            (30_000, "30s"),
            (90_000, "90s"),
            (120_000, "2m"),
            (3_600_000, "1h"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(show_duration(duration), text);
            assert_eq!(parse_duration(text), Some(duration));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "12",
            "B",
            "1Mb",
            "1mb",
            "1M",
            "1mib",
            "1 MiB",
            "-1B",
            "1.5MiB",
            "99999999999999999999B",
            "99999999999GiB",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for text in ["", "12", "s", "1d", "1S", "1 s", "-1s", "1.5s", "1m30s", "9999999999999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
