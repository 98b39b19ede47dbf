//! Moments of the story as people write them on a command line, and their places in a stream.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use interrex_events::{Epoch, Hlc, NodeId, NodeSeq, Place};

use super::{failure::Failure, source::Source, store::Store, when::When};

/// A moment on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A time of the wall clock.
    Time(When),
    /// A moment of the hybrid clock, `2027-01-15T08:00:00.000Z+3`, or its number.
    Clock(Hlc),
    /// An event, `NODE/SEQ` as `interrex events` prints it.
    Event(NodeId, NodeSeq),
    /// A position in `cluster_events`, `EPOCH:POS`.
    Position(Epoch, u64),
}

/// How moments are written, for help texts and for errors.
const FORMS: &str = "write a time (2027-01-15T08:00:00Z, 08:00:00 for today in UTC, 10m for so long ago), an event (2/17), a \
                     moment of the hybrid clock (2027-01-15T08:00:00.000Z+3), or a position in cluster_events (3:1024, or @12:30 \
                     if it looks like a time of day)";

/// A number with fewer digits is a moment of 1970, and a slip of the pen.
const FEWEST_CLOCK_DIGITS: usize = 15;

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let found = if let Some((node, seq)) = text.split_once('/') {
            node.parse().and_then(|node| Ok(Self::Event(node, seq.parse()?))).ok()
        } else if let Some(position) = text.strip_prefix('@') {
            position_of(position)
        } else if let Some((time, counter)) = text.rsplit_once("Z+") {
            clock_of(time, counter)
        } else if text.len() >= FEWEST_CLOCK_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit()) {
            text.parse().ok().map(|number| Self::Clock(Hlc(number)))
        } else {
            let position = position_of(text).filter(|_| !is_time_of_day(text));
            position.or_else(|| text.parse().ok().map(Self::Time))
        };
        found.ok_or_else(|| FORMS.to_owned())
    }
}

fn position_of(text: &str) -> Option<Moment> {
    let (epoch, pos) = text.split_once(':')?;
    Some(Moment::Position(epoch.parse().ok()?, pos.parse().ok()?))
}

fn clock_of(time: &str, counter: &str) -> Option<Moment> {
    let time = DateTime::parse_from_rfc3339(&format!("{time}Z")).ok()?;
    let counter: u16 = counter.parse().ok()?;
    Some(Moment::Clock(Hlc(Hlc::from_wall_ms(time.timestamp_millis()).0 + i64::from(counter))))
}

/// `08:00`: two digits, a colon and two digits.
fn is_time_of_day(text: &str) -> bool {
    matches!(text.as_bytes(), [a, b, b':', c, d] if [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()))
}

/// A moment found in a stream. A state at it includes everything up to `last`; a story from it begins at `first`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// The first place of the moment.
    pub(super) first: Place,
    /// The last place of the moment.
    pub(super) last: Place,
    /// The moment by the wall clock.
    pub(super) at: DateTime<Utc>,
    /// The position, if the moment was given as a position.
    pub(super) pos: Option<u64>,
}

impl Moment {
    /// Where it is in a stream.
    pub(super) fn find(self, source: &Source, now: DateTime<Utc>) -> Result<Cut, Failure> {
        match self {
            Self::Time(when) => Ok(Cut::of_time(when.at(now))),
            Self::Clock(hlc) => Ok(Cut::of_clock(hlc, hlc)),
            Self::Event(node, seq) => {
                let missing = || {
                    Failure::NoSuchEvent(format!(
                        "there is no event {node}/{seq} in {}; see what there is with: interrex events",
                        source.path.display()
                    ))
                };
                let place = source.store.find(node, seq)?.ok_or_else(missing)?.place();
                Ok(Cut { first: place, last: place, at: wall(place.0), pos: None })
            }
            Self::Position(epoch, pos) => {
                let Store::ClusterEvents(stream) = &source.store else {
                    return Err(Failure::Usage(format!(
                        "{epoch}:{pos} is a position in cluster_events, and only PostgreSQL has those: {} is read here; name a \
                         time, or an event as NODE/SEQ",
                        source.path.display()
                    )));
                };
                let missing = || {
                    Failure::NoSuchEvent(format!(
                        "there is no event at {epoch}:{pos} in {}: it may have been lost with an old main, and have another \
                         position now",
                        source.path.display()
                    ))
                };
                let place = stream.at(epoch, pos)?.ok_or_else(missing)?.record.place();
                Ok(Cut { first: place, last: place, at: wall(place.0), pos: Some(pos) })
            }
        }
    }
}

impl Cut {
    /// All of a millisecond.
    fn of_time(time: DateTime<Utc>) -> Self {
        let ms = time.timestamp_millis();
        Self { at: time, ..Self::of_clock(Hlc::from_wall_ms(ms), Hlc(Hlc::from_wall_ms(ms + 1).0 - 1)) }
    }

    fn of_clock(first: Hlc, last: Hlc) -> Self {
        Self {
            first: (first, NodeId(0), NodeSeq(0)),
            last: (last, NodeId(u32::MAX), NodeSeq(u64::MAX)),
            at: wall(first),
            pos: None,
        }
    }
}

fn wall(hlc: Hlc) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(hlc.wall_ms()).unwrap_or(DateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_in_every_way_it_is_printed() {
        let event = Moment::Event(NodeId(2), NodeSeq(17));
        let clock = Moment::Clock(Hlc(1_800_000_000_000 << 16 | 3));
        for (text, meant) in [
            ("2/17", event),
            (" 2/17 ", event),
            ("2027-01-15T08:00:00.000Z+3", clock),
            ("117964800000000003", clock),
            ("3:1024", Moment::Position(Epoch(3), 1024)),
            ("2:31", Moment::Position(Epoch(2), 31)),
            ("@12:30", Moment::Position(Epoch(12), 30)),
            ("12:30", Moment::Time("12:30".parse().unwrap())),
            ("08:00:00", Moment::Time("08:00:00".parse().unwrap())),
            ("10m", Moment::Time("10m".parse().unwrap())),
            ("2027-01-15T09:00:00+01:00", Moment::Time("2027-01-15T08:00:00Z".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Moment>(), Ok(meant), "{text}");
        }
        for bad in
            ["", "2/", "/3", "2/x", "@", "@1", "12:75", "17", "Z+3", "2027-01-15T08:00:00.000Z+70000", "-1/2"]
        {
            assert!(
                bad.parse::<Moment>().is_err_and(|words| words.contains("2/17")),
                "{bad} was taken for a moment"
            );
        }
    }

    #[test]
    fn a_time_is_the_whole_of_its_millisecond() {
        let cut = Cut::of_time("2027-01-15T08:00:00Z".parse().unwrap());
        let hlc = Hlc(1_800_000_000_000 << 16);
        assert!(cut.first <= (hlc, NodeId(1), NodeSeq(1)));
        assert!(cut.last >= (Hlc(hlc.0 | 0xFFFF), NodeId(9), NodeSeq(9)));
        assert!(cut.last < (Hlc(hlc.0 + 0x1_0000), NodeId(1), NodeSeq(1)));
        assert!(cut.first > (Hlc(hlc.0 - 1), NodeId(9), NodeSeq(9)));
    }
}
