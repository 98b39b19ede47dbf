//! Where the kept copy and the new main parted: decided from both histories, with the code that a rejoin uses.

use interrex_actors::ports::{HandoverPort as _, Lineage, MainLineage, PortError, Verdict};
use interrex_adapters::postgres::LocalPostgres;
use interrex_events::{Address, Lsn, TimelineId};

use super::{Done, SalvageError};

/// The place from which on only the kept copy has its WAL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parting {
    /// Both servers' system identifier.
    pub(super) system_id: u64,
    /// The kept copy's newest timeline.
    pub(super) timeline: TimelineId,
    /// The last LSN that both share; the end of the kept copy's WAL if the new main has all of it.
    pub(super) switchpoint: Lsn,
    /// How many prepared transactions the kept server allowed: recovery may find that many.
    pub(super) prepared_transactions: u32,
}

impl Parting {
    /// Compares a stopped directory with the main at an address. Neither is changed.
    pub(super) async fn find(kept: &LocalPostgres, main: &Address) -> Done<Self> {
        let failed = |error: PortError| SalvageError::Failed(error.to_string());
        let server = kept.main_server(main);
        let lineage = server.lineage().await;
        let main =
            lineage.map_err(|error| SalvageError::Failed(format!("the new main at {main}: {error}")))?;
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
        // main continued from its end, or from later: main has all of its WAL
        Verdict::SameLine if kept.timeline != main.timeline => Ok(kept.end),
        Verdict::SameLine => Err(format!(
            "the kept copy and the new main did not part: the kept copy's WAL up to {} is on the same timeline and a part of the \
             new main's WAL",
            kept.end
        )),
        Verdict::OtherSystem => Err(format!(
            "the kept copy has another system identifier ({}) than the new main ({}): they were never the same cluster",
            kept.system_id, main.system_id
        )),
        Verdict::Unknown(words) => {
            Err(format!("it is not known where the kept copy and the new main parted: {words}"))
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
