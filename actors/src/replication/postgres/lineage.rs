//! What a stopped data directory is to a main: whether its log is a part of main's, or where the two parted.

use std::path::Path;

use interrex_events::{Lsn, TimelineId};

use super::{LocalPostgres, control_file::ControlFile, wal::Wal};
use crate::ports::{Answer, Lineage, MainLineage, PortError, Switch, Verdict};

impl LocalPostgres {
    /// The running main's own lineage.
    pub(super) async fn read_main_lineage(&self) -> Answer<MainLineage> {
        // the control file's timeline lags behind a promotion: the name of the log's file does not (facts 5)
        let sql = "SELECT system_identifier::text AS system_id, pg_current_wal_flush_lsn()::text AS flushed,
                          left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline FROM pg_control_system()";
        let rows = self.rows(sql).await?;
        let missing = || PortError("PostgreSQL does not say which timeline it writes".to_owned());
        let row = rows.first().ok_or_else(missing)?;
        let name = row.get("timeline").ok_or_else(missing)?;
        let timeline = TimelineId(
            u32::from_str_radix(name, 16).map_err(|error| PortError::new("reading the timeline", error))?,
        );
        let history = match timeline.0 {
            1 => Vec::new(),
            _ => {
                let sql = format!("SELECT pg_read_file('pg_wal/{name}.history')");
                history(&self.value(&sql).await?.unwrap_or_default())
            }
        };
        Ok(MainLineage {
            system_id: row.parsed("system_id").ok_or_else(missing)?,
            timeline,
            flushed: row.parsed("flushed").ok_or_else(missing)?,
            history,
        })
    }

    /// What the stopped directory is to a main.
    pub(super) async fn compare_lineage(&self, main: &MainLineage) -> Answer<Lineage> {
        self.must_be_stopped()?;
        let control = self.control_file().await?;
        let timeline = control.own_timeline();
        let found = |verdict, end| Lineage {
            verdict,
            clean: control.is_clean(),
            system_id: control.system_id,
            timeline,
            end,
        };
        if control.system_id != main.system_id {
            return Ok(found(Verdict::OtherSystem, Lsn::default()));
        }
        let history = match own_history(&self.settings.data_dir, timeline) {
            Ok(history) => history,
            Err(words) => return Ok(found(Verdict::Unknown(words), Lsn::default())),
        };
        let label = std::fs::read_to_string(self.settings.data_dir.join("backup_label")).unwrap_or_default();
        let log = self.settings.data_dir.join("pg_wal");
        let mut needed = log_needed(&label, &control, main).into_iter();
        if let Some(file) = needed.find(|file| !log.join(file).exists()) {
            let words =
                format!("its recovery needs {file} of the log, which is neither here nor on main any more");
            return Ok(found(Verdict::Unknown(words), Lsn::default()));
        }
        let end = self.end_of_log(&control, &history).await?;
        Ok(found(verdict(&history, timeline, end, main), end))
    }

    /// Where the directory's log ends: read from the log itself, from the last checkpoint on.
    pub(super) async fn end_of_log(&self, control: &ControlFile, history: &[Switch]) -> Answer<Lsn> {
        // on a timeline that has no checkpoint yet, from where it began: the record at the switchpoint is its first
        let on_new_timeline = control.own_timeline() != control.timeline;
        let begin = match history.last() {
            Some(switch) if on_new_timeline => switch.switchpoint,
            _ => control.redo,
        };
        let end = self.end_after(begin, (control.own_timeline(), control.segment_size)).await?;
        end.ok_or_else(|| PortError(format!("reading the log from {begin} on: no whole record begins there")))
    }

    /// Where a timeline's log ends, after a place where a record ends; nothing if no whole one follows. The server may run.
    pub(super) async fn end_of_log_after(&self, begin: Lsn, timeline: TimelineId) -> Answer<Option<Lsn>> {
        let segment_size = self.control_file().await?.segment_size;
        self.end_after(begin, (timeline, segment_size)).await
    }

    async fn end_after(
        &self,
        begin: Lsn,
        (timeline, segment_size): (TimelineId, u64),
    ) -> Answer<Option<Lsn>> {
        let mut wal = Wal::new(&self.settings.data_dir, timeline, segment_size);
        let doing = format!("reading the log from {begin} on");
        let reading = tokio::task::spawn_blocking(move || wal.end_after(begin)).await;
        reading.map_err(|error| PortError::new(&doing, error))?.map_err(|error| PortError::new(&doing, error))
    }
}

/// The files of the log that a rewound directory must have itself to come to main's newest checkpoint, which the rewind
/// has brought along: main keeps no more than the log from there on. Without them a start never comes to its end.
fn log_needed(label: &str, control: &ControlFile, main: &MainLineage) -> Vec<String> {
    // START WAL LOCATION: 0/2302000 (file 000000010000000000000023)
    let begin = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "));
    let begin = begin.and_then(|begin| begin.split_whitespace().next()?.parse::<Lsn>().ok());
    let number_of = |at: Lsn| at.0 / control.segment_size;
    let name = |number: u64| {
        // of the file that two timelines have in common, the later one's is read
        let left = main.history.iter().find(|switch| number_of(switch.switchpoint) > number);
        let timeline = left.map_or(main.timeline, |switch| switch.timeline);
        let files = (1 << 32) / control.segment_size;
        format!("{:08X}{:08X}{:08X}", timeline.0, number / files, number % files)
    };
    begin.map_or_else(Vec::new, |begin| (number_of(begin)..number_of(control.redo)).map(name).collect())
}

pub(in crate::replication) fn own_history(
    data_dir: &Path,
    timeline: TimelineId,
) -> Result<Vec<Switch>, String> {
    if timeline.0 <= 1 {
        return Ok(Vec::new());
    }
    let file = data_dir.join(format!("pg_wal/{:08X}.history", timeline.0));
    let text = std::fs::read_to_string(&file).map_err(|error| {
        format!("how it came to timeline {timeline} is not known: {}: {error}", file.display())
    })?;
    Ok(history(&text))
}

/// Lines of a history file: a timeline, where it was left, why.
fn history(text: &str) -> Vec<Switch> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let timeline = TimelineId(words.next()?.parse().ok()?);
            Some(Switch { timeline, switchpoint: words.next()?.parse().ok()? })
        })
        .collect()
}

/// Follows both lines from the beginning to where they part.
fn verdict(own: &[Switch], own_timeline: TimelineId, own_end: Lsn, main: &MainLineage) -> Verdict {
    let shared = own.iter().zip(&main.history).take_while(|(own, main)| own == main).count();
    let timeline_after =
        |history: &[Switch], last: TimelineId| history.get(shared).map_or(last, |switch| switch.timeline);
    if timeline_after(own, own_timeline) != timeline_after(&main.history, main.timeline) {
        // both left the same place for timelines of different numbers
        let switchpoint = shared.checked_sub(1).map(|last| own[last].switchpoint);
        return match switchpoint {
            Some(switchpoint) => {
                Verdict::Diverged { switchpoint, bytes: own_end.bytes_ahead_of(switchpoint) }
            }
            None => Verdict::Unknown("the two began on different timelines".to_owned()),
        };
    }
    match (own.get(shared), main.history.get(shared)) {
        (None, None) if own_end <= main.flushed => Verdict::SameLine,
        (None, None) => Verdict::Ahead(format!(
            "both are on timeline {own_timeline}, and it reaches {own_end}, further than main with {}",
            main.flushed
        )),
        (None, Some(left)) if own_end <= left.switchpoint => Verdict::SameLine,
        (None, Some(left)) => Verdict::Diverged {
            switchpoint: left.switchpoint,
            bytes: own_end.bytes_ahead_of(left.switchpoint),
        },
        (Some(left), None) => Verdict::Ahead(format!(
            "it left main's timeline {} at {} and is on timeline {own_timeline}",
            main.timeline, left.switchpoint
        )),
        (Some(own_left), Some(main_left)) => {
            let switchpoint = own_left.switchpoint.min(main_left.switchpoint);
            Verdict::Diverged { switchpoint, bytes: own_end.bytes_ahead_of(switchpoint) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::control_file, *};

    fn main(timeline: u32, switches: &[(u32, u64)]) -> MainLineage {
        MainLineage {
            system_id: 7,
            timeline: TimelineId(timeline),
            flushed: Lsn(1_000),
            history: line(switches),
        }
    }

    fn line(switches: &[(u32, u64)]) -> Vec<Switch> {
        let switch =
            |(timeline, at): &(u32, u64)| Switch { timeline: TimelineId(*timeline), switchpoint: Lsn(*at) };
        switches.iter().map(switch).collect()
    }

    fn judge(own: &[(u32, u64)], timeline: u32, end: u64, main: &MainLineage) -> Verdict {
        verdict(&line(own), TimelineId(timeline), Lsn(end), main)
    }

    #[test]
    fn a_log_that_ends_where_main_left_its_timeline_is_a_part_of_mains() {
        let main = main(2, &[(1, 500)]);
        assert_eq!(judge(&[], 1, 500, &main), Verdict::SameLine);
        assert_eq!(judge(&[], 1, 508, &main), Verdict::Diverged { switchpoint: Lsn(500), bytes: 8 });
        assert_eq!(judge(&[(1, 500)], 2, 900, &main), Verdict::SameLine);
        assert!(matches!(judge(&[(1, 500)], 2, 1_008, &main), Verdict::Ahead(_)));
    }

    #[test]
    fn two_that_both_call_their_timeline_two_are_told_apart_by_where_it_began() {
        let main = main(2, &[(1, 500)]);
        assert_eq!(judge(&[(1, 400)], 2, 480, &main), Verdict::Diverged { switchpoint: Lsn(400), bytes: 80 });
    }

    #[test]
    fn what_left_a_timeline_later_than_main_parted_from_it_where_main_left() {
        let parted = Verdict::Diverged { switchpoint: Lsn(300), bytes: 400 };
        assert_eq!(judge(&[(1, 500)], 2, 700, &main(3, &[(1, 300)])), parted);
        assert_eq!(judge(&[(1, 500), (2, 600)], 3, 700, &main(2, &[(1, 300)])), parted);
        // main has a timeline of that number too, which is another
        assert_eq!(judge(&[(1, 500)], 2, 700, &main(3, &[(1, 300), (2, 650)])), parted);
    }

    #[test]
    fn a_rewound_directory_needs_the_log_from_its_label_to_mains_checkpoint() {
        let control = ControlFile { redo: Lsn(0x0050_1000), ..control_file::tests::some() };
        let main = main(2, &[(1, 0x0030_0500)]);
        let label =
            "START WAL LOCATION: 0/202000 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/202038\n";
        assert_eq!(
            log_needed(label, &control, &main),
            ["000000010000000000000002", "000000020000000000000003", "000000020000000000000004"]
        );
        assert!(log_needed("", &control, &main).is_empty(), "it was not rewound");
    }

    #[test]
    fn one_that_was_promoted_after_main_is_for_a_person() {
        assert!(matches!(judge(&[(1, 400)], 2, 480, &main(1, &[])), Verdict::Ahead(_)));
    }

    #[test]
    fn two_that_left_the_same_place_for_different_timelines_parted_there() {
        let main = main(3, &[(1, 500)]);
        assert_eq!(
            judge(&[(1, 500)], 2, 700, &main),
            Verdict::Diverged { switchpoint: Lsn(500), bytes: 200 }
        );
    }
}
