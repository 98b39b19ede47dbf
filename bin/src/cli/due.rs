//! A time to come, as people write it on a command line.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use super::{failure::Failure, when};

/// A time to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// A date and time.
    At(DateTime<Utc>),
    /// So long from now.
    In(Duration),
}

impl Due {
    /// The moment it means at `now`.
    ///
    /// # Errors
    /// It is no time to come.
    pub fn at(self, now: DateTime<Utc>) -> Result<DateTime<Utc>, Failure> {
        let due = match self {
            Self::At(moment) => Some(moment),
            Self::In(duration) => {
                TimeDelta::from_std(duration).ok().and_then(|duration| now.checked_add_signed(duration))
            }
        };
        match due {
            Some(due) if due > now => Ok(due),
            Some(due) => Err(Failure::Usage(format!(
                "--at {} is in the past: it is {} now; leave --at out to begin at once",
                when::date_and_time_utc(due),
                when::date_and_time_utc(now)
            ))),
            None => Err(Failure::Usage("--at is further ahead than any calendar goes".to_owned())),
        }
    }
}

impl FromStr for Due {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let found = match text.strip_prefix('+') {
            Some(duration) => humantime::parse_duration(duration).ok().map(Self::In),
            None => {
                DateTime::parse_from_rfc3339(text).ok().map(|moment| Self::At(moment.with_timezone(&Utc)))
            }
        };
        found.ok_or_else(|| {
            "write it as 2027-01-15T22:00:00Z (with Z or +01:00), or as +30m for so long from now".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_come_is_read_and_a_time_that_was_is_refused() {
        let now: DateTime<Utc> = "2027-01-15T08:30:00Z".parse().unwrap();
        for (text, meant) in [
            ("2027-01-15T22:00:00Z", "2027-01-15T22:00:00Z"),
            ("2027-01-15T22:00:00.250+01:00", "2027-01-15T21:00:00.250Z"),
            ("+30m", "2027-01-15T09:00:00Z"),
            (" +1h 30m", "2027-01-15T10:00:00Z"),
        ] {
            let meant: DateTime<Utc> = meant.parse().unwrap();
            assert_eq!(text.parse::<Due>().unwrap().at(now).unwrap(), meant, "{text}");
        }
        for bad in ["", "30m", "22:00", "2027-01-15T22:00:00", "tomorrow", "+", "-30m"] {
            assert!(bad.parse::<Due>().is_err_and(|words| words.contains("+30m")), "{bad}");
        }
        for past in ["2027-01-15T08:30:00Z", "2027-01-15T08:00:00Z", "+0s"] {
            let refused = past.parse::<Due>().unwrap().at(now).unwrap_err().to_string();
            assert!(refused.contains("is in the past"), "{refused}");
        }
        assert!("+9999999999days".parse::<Due>().unwrap().at(now).is_err());
    }
}
