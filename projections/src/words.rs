//! Numbers as text that a person reads at a glance.

use std::fmt::Display;

/// A duration: `340 ms`, `4.2 s`, `2 min 5 s`, `3 h 20 min`.
#[must_use]
pub fn human_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// A size: `0 bytes`, `17 kB`, `2.4 MB`; thousands, as PostgreSQL's documentation of disks counts them.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        0..10_000 => format!("{bytes} bytes"),
        10_000..1_000_000 => format!("{} kB", bytes / 1_000),
        1_000_000..1_000_000_000 => format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", bytes / 1_000_000_000, bytes % 1_000_000_000 / 100_000_000),
    }
}

/// A number of things: `1 transaction`, `3 transactions`.
#[must_use]
pub fn counted(number: impl Display, thing: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thing_is_not_told_as_many() {
        assert_eq!([0, 1, 21].map(|number| counted(number, "row")), ["0 rows", "1 row", "21 rows"]);
    }

    #[test]
    fn durations_and_sizes_read_at_a_glance() {
        assert_eq!(
            [0, 999, 4_250, 125_000, 12_000_000].map(human_ms),
            ["0 ms", "999 ms", "4.2 s", "2 min 5 s", "3 h 20 min"]
        );
        assert_eq!(
            [0, 1, 9_999, 17_500, 2_450_000, 3_000_000_000].map(human_bytes),
            ["0 bytes", "1 byte", "9999 bytes", "17 kB", "2.4 MB", "3.0 GB"]
        );
    }
}
