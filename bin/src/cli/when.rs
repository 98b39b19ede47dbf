//! Times as people write them on a command line, and as the views show them.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use interrex_projections::human_ms;

/// A time on the command line; what it means depends on the time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A date and time.
    At(DateTime<Utc>),
    /// So long ago.
    Ago(Duration),
    /// Today, by UTC.
    Today(NaiveTime),
}

impl When {
    /// The moment it means at `now`.
    #[must_use]
    pub fn at(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::At(moment) => moment,
            Self::Ago(duration) => chrono::TimeDelta::from_std(duration)
                .ok()
                .and_then(|duration| now.checked_sub_signed(duration))
                .unwrap_or(DateTime::UNIX_EPOCH),
            Self::Today(time) => now.date_naive().and_time(time).and_utc(),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
            return on_the_clock(moment.with_timezone(&Utc));
        }
        for shape in ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"] {
            if let Ok(moment) = NaiveDateTime::parse_from_str(text, shape) {
                return on_the_clock(moment.and_utc());
            }
        }
        if let Ok(date) = text.parse::<NaiveDate>() {
            return on_the_clock(date.and_time(NaiveTime::MIN).and_utc());
        }
        for shape in ["%H:%M:%S%.f", "%H:%M"] {
            if let Ok(time) = NaiveTime::parse_from_str(text, shape) {
                return Ok(Self::Today(time));
            }
        }
        let span = text.strip_suffix("ago").unwrap_or(text).trim();
        humantime::parse_duration(span).map(Self::Ago).map_err(|_| {
            "write it as 2027-01-15T08:00:00Z, as 08:00:00 (today, UTC), or as 10m or 2h (so long ago)"
                .to_owned()
        })
    }
}

/// The hybrid clock has room for so many years.
fn on_the_clock(moment: DateTime<Utc>) -> Result<When, String> {
    if (1970..6000).contains(&moment.year()) {
        Ok(When::At(moment))
    } else {
        Err("only the years from 1970 to 5999 are known here".to_owned())
    }
}

/// Date and time with milliseconds.
pub(super) fn date_and_time(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S%.3f").to_string()
}

/// Date and time, to the second.
pub(super) fn date_and_second(moment: DateTime<Utc>) -> String {
    moment.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// Date and time with milliseconds, and what clock that is.
pub(super) fn date_and_time_utc(moment: DateTime<Utc>) -> String {
    format!("{} UTC", date_and_time(moment))
}

/// Time with milliseconds.
pub(super) fn time(moment: DateTime<Utc>) -> String {
    moment.format("%H:%M:%S%.3f").to_string()
}

/// `4.2 s ago`; a moment ahead of this machine's clock is shown as it is.
pub(super) fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match u64::try_from((now - moment).num_milliseconds()) {
        Ok(ms) if ms >= 48 * 3_600_000 => format!("{} days ago", ms / 86_400_000),
        Ok(ms) => format!("{} ago", human_ms(ms)),
        Err(_) => format!("at {}, ahead of this machine's clock", date_and_time_utc(moment)),
    }
}

/// `in 4.2 s`; a moment that has passed is `due`.
pub(super) fn ahead(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match u64::try_from((moment - now).num_milliseconds()) {
        Ok(ms) if ms >= 48 * 3_600_000 => format!("in {} days", ms / 86_400_000),
        Ok(ms) => format!("in {}", human_ms(ms)),
        Err(_) => "due".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_every_way_people_and_the_views_write_it() {
        let now: DateTime<Utc> = "2027-01-15T08:30:00Z".parse().unwrap();
        for (text, meant) in [
            ("2027-01-15T09:00:00.250+01:00", "2027-01-15T08:00:00.250Z"),
            ("2027-01-15 08:00:00.250", "2027-01-15T08:00:00.250Z"),
            ("2027-01-15", "2027-01-15T00:00:00Z"),
            ("08:00:00", "2027-01-15T08:00:00Z"),
            ("08:00:00.250", "2027-01-15T08:00:00.250Z"),
            ("08:00", "2027-01-15T08:00:00Z"),
            ("10m", "2027-01-15T08:20:00Z"),
            ("2h 30m ago", "2027-01-15T06:00:00Z"),
        ] {
            let meant: DateTime<Utc> = meant.parse().unwrap();
            assert_eq!(text.parse::<When>().map(|when| when.at(now)), Ok(meant), "{text}");
        }
        for bad in ["", "yesterday", "25:00:00", "2027-13-01", "10", "9999-01-01", "1969-12-31T23:59:59Z"] {
            assert!(bad.parse::<When>().is_err(), "{bad} was taken for a time");
        }
        assert!("9999999999days".parse::<When>().is_ok_and(|when| when.at(now) == DateTime::UNIX_EPOCH));
    }
}
