//! Where the kept copy and the new main parted: told from both histories, by what a rejoin decides with too.

use interrex_actors::ports::{HandoverPort as _, Lineage, MainLineage, PortError, Verdict};
use interrex_adapters::postgres::LocalPostgres;
use interrex_events::{Address, Lsn, TimelineId};

use super::{Done, SalvageError};

/// From where on the kept copy's log is its own.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parting {
    /// Both servers' system identifier.
    pub(super) system_id: u64,
    /// The kept copy's newest timeline.
    pub(super) timeline: TimelineId,
    /// The last place that both share; where that is all of the kept copy's log, its end.
    pub(super) switchpoint: Lsn,
    /// As many prepared transactions as the kept server allowed: recovery may find them.
    pub(super) prepared_transactions: u32,
}

impl Parting {
    /// Compares a stopped directory with the main at a place. Neither is changed.
    pub(super) async fn find(kept: &LocalPostgres, main: &Address) -> Done<Self> {
        let failed = |error: PortError| SalvageError::Failed(error.to_string());
        let server = kept.main_server(main);
        let lineage = server.lineage().await;
        let main = lineage.map_err(|error| SalvageError::Failed(format!("the new main, {main}: {error}")))?;
        let kept_lineage = kept.lineage_against(&main, &*server).await.map_err(failed)?;
        let control = kept.control_file().await.map_err(failed)?;
        Ok(Self {
            system_id: main.system_id,
            timeline: kept_lineage.timeline,
            switchpoint: switchpoint(&kept_lineage, &main).map_err(SalvageError::Usage)?,
            prepared_transactions: control.max_prepared_transactions,
        })
    }
}

fn switchpoint(kept: &Lineage, main: &MainLineage) -> Result<Lsn, String> {
    match &kept.verdict {
        Verdict::Diverged { parted, .. } | Verdict::Ahead { parted, .. } => Ok(parted.switchpoint),
        // main went on from its end, or from later: nothing of it is lost
        Verdict::SameLine if kept.timeline != main.timeline => Ok(kept.end),
        Verdict::SameLine => Err(format!(
            "the kept copy's log up to {} is a part of the new main's, and on the same timeline: their ways did not part",
            kept.end
        )),
        Verdict::OtherSystem => Err(format!(
            "the kept copy belongs to another system ({}) than the new main ({}): they were never one",
            kept.system_id, main.system_id
        )),
        Verdict::Unknown(words) => {
            Err(format!("where the kept copy and the new main parted cannot be told: {words}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use interrex_actors::ports::Parted;

    use super::*;

    fn of(verdict: Verdict, timeline: u32) -> Result<Lsn, String> {
        let main = MainLineage { system_id: 7, timeline: TimelineId(2), flushed: Lsn(900), history: vec![] };
        let timeline = TimelineId(timeline);
        switchpoint(&Lineage { verdict, clean: true, system_id: 7, timeline, end: Lsn(500) }, &main)
    }

    #[test]
    fn the_log_is_read_from_where_the_two_parted_whatever_their_timelines_are_called() {
        for timeline in 1..=3 {
            let parted = Parted { switchpoint: Lsn(400), bytes: 100, exact: true };
            let diverged = Verdict::Diverged { parted, by_rewind: Err("no".to_owned()) };
            assert_eq!(of(diverged, timeline), Ok(Lsn(400)));
            let ahead = Verdict::Ahead { parted, words: "more".to_owned() };
            assert_eq!(of(ahead, timeline), Ok(Lsn(400)));
        }
    }

    #[test]
    fn what_main_took_over_as_a_whole_has_nothing_that_it_lacks() {
        assert_eq!(of(Verdict::SameLine, 1), Ok(Lsn(500)));
        assert!(of(Verdict::SameLine, 2).unwrap_err().contains("did not part"));
        assert!(of(Verdict::Unknown("no history".to_owned()), 3).unwrap_err().ends_with("no history"));
    }
}
