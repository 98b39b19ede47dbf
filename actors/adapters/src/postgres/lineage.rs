//! Compares a stopped data directory with a main: is its WAL a part of main's WAL, or where did the two part?

use std::{io, path::Path};

use interrex_actors::ports::{
    Answer, Lineage, MainLineage, MainServerPort, Parted, PortError, Switch, Verdict,
};
use interrex_events::{Lsn, TimelineId};

use super::{
    LocalPostgres,
    common_log::{Common, Compared},
    control_file::ControlFile,
    files,
    line::Line,
    wal::Wal,
};
use crate::runtime::RunAs;

impl LocalPostgres {
    /// The running main's own lineage.
    pub(super) async fn read_main_lineage(&self) -> Answer<MainLineage> {
        // the control file's timeline lags behind a promotion: the name of the WAL file does not (MEASURED M5)
        let sql = "SELECT system_identifier::text AS system_id, pg_current_wal_flush_lsn()::text AS flushed,
                          left(pg_walfile_name(pg_current_wal_lsn()), 8) AS timeline FROM pg_control_system()";
        let rows = self.rows(sql).await?;
        let missing = || PortError("PostgreSQL does not report the timeline that it writes".to_owned());
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

    /// Compares the stopped directory with a main.
    pub(super) async fn compare_lineage(
        &self,
        main: &MainLineage,
        server: &dyn MainServerPort,
    ) -> Answer<Lineage> {
        self.must_be_stopped().await?;
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
        let label = backup_label(&self.settings.data_dir);
        let log = self.settings.data_dir.join("pg_wal");
        let mut needed = log_needed(&label, &control, main).into_iter();
        if let Some(file) = needed.find(|file| !log.join(file).exists()) {
            let words = format!("its recovery needs the WAL file {file}, which is no longer here or on main");
            return Ok(found(Verdict::Unknown(words), Lsn::default()));
        }
        let end = self.end_of_log(&control, &history).await?;
        let Some(claim) = Claim::of(&history, timeline, end, main) else {
            return Ok(found(Verdict::Unknown("the two have no timeline in common".to_owned()), end));
        };
        let compared = Compared {
            own: &Line::new(&history, timeline),
            main: &Line::new(&main.history, main.timeline),
            begin: claim.begin,
            redo: control.redo,
            until: claim.until,
            segment_size: control.segment_size,
        };
        let verdict = match self.common_log(&compared, server).await {
            Ok(common) => claim.verdict(common),
            Err(error) => Verdict::Unknown(format!("its WAL could not be compared with main's WAL: {error}")),
        };
        Ok(found(verdict, end))
    }

    /// Where the WAL of the standby that runs here begins to differ from main's, although both have the same timeline numbers;
    /// nothing if it is the same, or if nothing is left to compare.
    pub(super) async fn parting_of_standby(
        &self,
        (timeline, received): (TimelineId, Lsn),
        main: &MainLineage,
        server: &dyn MainServerPort,
    ) -> Answer<Option<Lsn>> {
        let history = own_history(&self.settings.data_dir, timeline).map_err(PortError)?;
        let Some(claim) = Claim::of(&history, timeline, received, main) else { return Ok(None) };
        let compared = Compared {
            own: &Line::new(&history, timeline),
            main: &Line::new(&main.history, main.timeline),
            begin: claim.begin,
            // WAL that differs once differs to its end
            redo: claim.until,
            until: claim.until,
            segment_size: self.control_file().await?.segment_size,
        };
        Ok(match self.common_log(&compared, server).await? {
            Common::Until { at, .. } => Some(at),
            Common::Whole | Common::Unproved { .. } => None,
        })
    }

    /// Where the directory's WAL ends: read from the WAL itself, from the last checkpoint on.
    pub(super) async fn end_of_log(&self, control: &ControlFile, history: &[Switch]) -> Answer<Lsn> {
        // on a timeline that has no checkpoint yet, from where it began: the record at the switchpoint is its first
        let on_new_timeline = control.own_timeline() != control.timeline;
        let begin = match history.last() {
            Some(switch) if on_new_timeline => switch.switchpoint,
            _ => control.redo,
        };
        let end = self.end_after(begin, (control.own_timeline(), control.segment_size)).await?;
        end.ok_or_else(|| {
            PortError(format!("reading the WAL from {begin} on: no complete record begins there"))
        })
    }

    /// Where a timeline's WAL ends, after the end of a record; nothing if no complete record follows. The server may run.
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
        let doing = format!("reading the WAL from {begin} on");
        let reading = tokio::task::spawn_blocking(move || wal.end_after(begin)).await;
        reading.map_err(|error| PortError::new(&doing, error))?.map_err(|error| PortError::new(&doing, error))
    }
}

/// The WAL files that a rewound directory must have itself to reach main's newest checkpoint, which the rewind brought along: main
/// keeps only the WAL from that checkpoint on. Without these files a start never completes.
fn log_needed(label: &str, control: &ControlFile, main: &MainLineage) -> Vec<String> {
    // START WAL LOCATION: 0/2302000 (file 000000010000000000000023)
    let begin = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "));
    let begin = begin.and_then(|begin| begin.split_whitespace().next()?.parse::<Lsn>().ok());
    let number_of = |at: Lsn| at.0 / control.segment_size;
    let line = Line::new(&main.history, main.timeline);
    let name = |number: u64| line.files(number, control.segment_size).into_iter().next();
    begin
        .map_or_else(Vec::new, |begin| (number_of(begin)..number_of(control.redo)).filter_map(name).collect())
}

/// The label of the backup, or the rewind, that made a directory; empty if there is none. The name that a person gave a backup may
/// have any encoding.
pub(super) fn backup_label(data_dir: &Path) -> String {
    let label = std::fs::read(data_dir.join("backup_label")).unwrap_or_default();
    String::from_utf8_lossy(&label).into_owned()
}

pub(in crate::postgres) fn own_history(data_dir: &Path, timeline: TimelineId) -> Result<Vec<Switch>, String> {
    if timeline.0 <= 1 {
        return Ok(Vec::new());
    }
    let file = data_dir.join(format!("pg_wal/{:08X}.history", timeline.0));
    let text = std::fs::read(&file).map_err(|error| {
        format!("its history up to timeline {timeline} is not known: {}: {error}", file.display())
    })?;
    Ok(history(&String::from_utf8_lossy(&text)))
}

/// Puts the history of main's timeline into a directory that is to follow it by number: PostgreSQL refuses to start along a
/// timeline without its history. Durably.
pub(super) fn write_history(data_dir: &Path, main: &MainLineage, owner: RunAs) -> io::Result<()> {
    let known = own_history(data_dir, main.timeline);
    if known.is_ok_and(|known| known == main.history) {
        return Ok(());
    }
    let file = data_dir.join(format!("pg_wal/{:08X}.history", main.timeline.0));
    files::write(&file, history_file(&main.history).as_bytes(), owner)
}

/// A history file, as PostgreSQL writes it.
fn history_file(history: &[Switch]) -> String {
    let line = |switch: &Switch| format!("{}\t{}\tas main has it\n", switch.timeline, switch.switchpoint);
    history.iter().map(line).collect()
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

/// The comparison of two histories, and where each of the two ends.
struct Claim<'a> {
    own_timeline: TimelineId,
    own_end: Lsn,
    main: &'a MainLineage,
    /// Where the last timeline began that both know.
    begin: Lsn,
    /// Up to here both are the same.
    until: Lsn,
    /// Where the directory and main left that timeline, if they did.
    own_left: Option<Lsn>,
    main_left: Option<Lsn>,
}

impl<'a> Claim<'a> {
    /// Follows both lines from the beginning to where their histories differ; nothing if they differ at once.
    fn of(own: &[Switch], own_timeline: TimelineId, own_end: Lsn, main: &'a MainLineage) -> Option<Self> {
        let alike = own.iter().zip(&main.history).take_while(|(own, main)| own == main).count();
        let timeline_after =
            |history: &[Switch], last: TimelineId| history.get(alike).map_or(last, |switch| switch.timeline);
        let other_numbers = timeline_after(own, own_timeline) != timeline_after(&main.history, main.timeline);
        // if both left the same LSN for timelines of different numbers, the timeline before is the last that both know
        let last = if other_numbers { alike.checked_sub(1)? } else { alike };
        let left = |history: &[Switch]| history.get(last).map(|switch| switch.switchpoint);
        let (own_left, main_left) = (left(own), left(&main.history));
        let until = [own_end, main.flushed].into_iter().chain(own_left).chain(main_left).min();
        Some(Self {
            own_timeline,
            own_end,
            main,
            begin: last.checked_sub(1).map_or(Lsn(0), |before| own[before].switchpoint),
            until: until.unwrap_or_default(),
            own_left,
            main_left,
        })
    }

    /// The verdict, from the comparison of both WALs.
    fn verdict(&self, common: Common) -> Verdict {
        let Self { own_end, main, until, .. } = *self;
        let own_is_a_part = self.own_left.is_none() && own_end <= until;
        // but not if it left main's end for its own timeline, which happens if main takes no writes
        let main_is_a_part =
            self.main_left.is_none() && main.flushed <= until && self.own_left != Some(until);
        let parted =
            |switchpoint, exact| Parted { switchpoint, bytes: own_end.bytes_ahead_of(switchpoint), exact };
        let diverged = |by_rewind| Verdict::Diverged { parted: parted(until, true), by_rewind };
        match common {
            Common::Until { at, exact } => {
                let by_rewind = Err(format!(
                    "both have the same timeline number after {at}, and pg_rewind would not see the difference"
                ));
                Verdict::Diverged { parted: parted(at, exact), by_rewind }
            }
            Common::Whole if own_is_a_part => Verdict::SameLine,
            Common::Unproved { why, .. } if own_is_a_part => Verdict::Unknown(why),
            Common::Whole | Common::Unproved { .. } if main_is_a_part => {
                let words = format!(
                    "it is on timeline {} and reaches {own_end}, and it has all of main's WAL, up to {}",
                    self.own_timeline, main.flushed
                );
                Verdict::Ahead { parted: parted(until, true), words }
            }
            Common::Unproved { why, same_timeline: false } => diverged(Err(why)),
            Common::Whole | Common::Unproved { .. } => diverged(self.pg_rewind_finds_it()),
        }
    }

    /// Whether `pg_rewind` sees that they parted, and where: it compares numbers of timelines and where those began.
    fn pg_rewind_finds_it(&self) -> Result<(), String> {
        if self.own_timeline == self.main.timeline {
            return Err(format!(
                "both have timeline {}, and pg_rewind would not see the difference",
                self.own_timeline
            ));
        }
        let left = self.own_left.into_iter().chain(self.main_left).min();
        if left != Some(self.until) {
            return Err(format!("pg_rewind would not see that they parted at {}", self.until));
        }
        Ok(())
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

    fn judge_by(
        common: Common,
        (own, timeline, end): (&[(u32, u64)], u32, u64),
        main: &MainLineage,
    ) -> Verdict {
        Claim::of(&line(own), TimelineId(timeline), Lsn(end), main).unwrap().verdict(common)
    }

    fn judge(own: &[(u32, u64)], timeline: u32, end: u64, main: &MainLineage) -> Verdict {
        judge_by(Common::Whole, (own, timeline, end), main)
    }

    /// Where the two parted, what only the directory has, and whether pg_rewind finds that place.
    fn diverged(verdict: &Verdict) -> Option<(u64, u64, bool)> {
        let Verdict::Diverged { parted, by_rewind } = verdict else { return None };
        Some((parted.switchpoint.0, parted.bytes, by_rewind.is_ok()))
    }

    #[test]
    fn a_log_that_ends_where_main_left_its_timeline_is_a_part_of_mains() {
        let main = main(2, &[(1, 500)]);
        assert_eq!(judge(&[], 1, 500, &main), Verdict::SameLine);
        assert_eq!(diverged(&judge(&[], 1, 508, &main)), Some((500, 8, true)));
        assert_eq!(judge(&[(1, 500)], 2, 900, &main), Verdict::SameLine);
        let ahead = judge(&[(1, 500)], 2, 1_008, &main);
        assert!(matches!(ahead, Verdict::Ahead { parted, .. } if parted.switchpoint == Lsn(1_000)));
    }

    #[test]
    fn two_that_both_call_their_timeline_two_are_told_apart_by_where_it_began_and_pg_rewind_does_not() {
        let main = main(2, &[(1, 500)]);
        assert_eq!(diverged(&judge(&[(1, 400)], 2, 480, &main)), Some((400, 80, false)));
    }

    #[test]
    fn two_that_left_the_same_place_for_timelines_of_the_same_number_are_told_apart_by_their_log() {
        let found = Common::Until { at: Lsn(500), exact: true };
        let of = |own: &[(u32, u64)], timeline, switches: &[(u32, u64)], mains| {
            diverged(&judge_by(found.clone(), (own, timeline, 700), &main(mains, switches)))
        };
        let by_copy = Some((500, 200, false));
        assert_eq!(of(&[(1, 500)], 2, &[(1, 500)], 2), by_copy);
        assert_eq!(of(&[(1, 500), (2, 600)], 3, &[(1, 500)], 2), by_copy);
        assert_eq!(of(&[(1, 500)], 2, &[(1, 500), (2, 800)], 3), by_copy, "pg_rewind finds nothing to do");
        // a standby that was started without its standby.signal
        assert_eq!(of(&[], 1, &[], 1), by_copy);
    }

    #[test]
    fn what_cannot_be_proved_to_be_the_same_line_is_not_called_that() {
        let unproved = |same_timeline| Common::Unproved { why: "no log".to_owned(), same_timeline };
        let main = main(3, &[(1, 500), (2, 600)]);
        let own: &[(u32, u64)] = &[(1, 500)];
        assert_eq!(judge_by(unproved(true), (own, 2, 600), &main), Verdict::Unknown("no log".to_owned()));
        for same_timeline in [true, false] {
            let verdict = judge_by(unproved(same_timeline), (own, 2, 700), &main);
            assert_eq!(diverged(&verdict), Some((600, 100, same_timeline)));
        }
    }

    #[test]
    fn what_left_a_timeline_later_than_main_parted_from_it_where_main_left() {
        assert_eq!(diverged(&judge(&[(1, 500)], 2, 700, &main(3, &[(1, 300)]))), Some((300, 400, true)));
        let same_number = Some((300, 400, false));
        assert_eq!(
            diverged(&judge(&[(1, 500), (2, 600)], 3, 700, &main(2, &[(1, 300)]))),
            Some((300, 400, true))
        );
        // main has a timeline of that number too, which is another
        assert_eq!(
            diverged(&judge(&[(1, 500)], 2, 700, &main(3, &[(1, 300), (2, 650)]))),
            Some((300, 400, true))
        );
        assert_eq!(diverged(&judge(&[(1, 500)], 2, 700, &main(2, &[(1, 300)]))), same_number);
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
    fn a_history_that_is_written_is_read_as_it_was_and_another_ones_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pg_wal")).unwrap();
        for main in [main(0x1A, &[(1, 300), (0x19, 700)]), main(0x1A, &[(2, 0x1_0000_0000)]), main(1, &[])] {
            write_history(folder.path(), &main, RunAs::Myself).unwrap();
            assert_eq!(own_history(folder.path(), main.timeline), Ok(main.history));
        }
        assert!(!folder.path().join("pg_wal/00000001.history").exists(), "the first has none");
    }

    #[test]
    fn one_that_was_promoted_by_hand_parted_from_main_where_it_left_mains_timeline() {
        let main = main(1, &[]);
        assert_eq!(diverged(&judge(&[(1, 400)], 2, 480, &main)), Some((400, 80, true)));
        assert_eq!(diverged(&judge(&[(1, 1_000)], 2, 1_080, &main)), Some((1_000, 80, true)), "main is idle");
        let lost = judge(&[(1, 1_040)], 2, 1_080, &main);
        assert!(
            matches!(lost, Verdict::Ahead { parted, .. } if parted.switchpoint == Lsn(1_000)),
            "{lost:?}"
        );
    }

    #[test]
    fn two_that_left_the_same_place_for_different_timelines_parted_there() {
        assert_eq!(diverged(&judge(&[(1, 500)], 2, 700, &main(3, &[(1, 500)]))), Some((500, 200, true)));
        assert!(Claim::of(&line(&[(1, 500)]), TimelineId(2), Lsn(700), &main(4, &[(3, 400)])).is_none());
    }
}
