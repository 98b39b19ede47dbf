//! kill -9 at any moment: while it opens, while it appends, while it empties its log.

use std::{path::Path, time::Duration};

use fastrand::Rng;
use interrex::sandbox::Done;
use interrex_tests::run;
use tokio::{task::JoinSet, time::timeout};

use crate::{
    Acknowledged, assert_sound, from_environment, seed,
    writer::{Said, Writer, command},
};

/// Crashes of one journal: its chain is walked at each start, so that many crashes of one would be slow.
const CRASHES_OF_A_JOURNAL: usize = 25;
/// Journals that are written to at the same time.
const SIDE_BY_SIDE: usize = 4;

/// What a number of crashes came to.
#[derive(Debug, Default)]
struct Summary {
    crashes: usize,
    before_it_was_open: usize,
    acknowledged: usize,
}

#[test]
fn every_acknowledged_event_survives_hundreds_of_kills_and_nothing_is_torn_or_doubled() {
    run(async {
        let crashes = from_environment("INTERREX_CRASHES").unwrap_or(500);
        let mut rng = Rng::with_seed(seed());
        let mut side_by_side = JoinSet::new();
        let mut all = Summary::default();
        let journals = (crashes as usize).div_ceil(CRASHES_OF_A_JOURNAL);
        for _ in 0..journals {
            if side_by_side.len() == SIDE_BY_SIDE {
                all.add(&side_by_side.join_next().await.unwrap().unwrap()?);
            }
            side_by_side.spawn_local(crash_one_journal(rng.fork()));
        }
        while let Some(summary) = side_by_side.join_next().await {
            all.add(&summary.unwrap()?);
        }
        println!("{all:?}");
        assert!(all.crashes as u64 >= crashes);
        // else it was killed where there was nothing to lose
        assert!(all.before_it_was_open < all.crashes / 2 && all.acknowledged > all.crashes * 20, "{all:?}");
        Ok(())
    });
}

async fn crash_one_journal(mut rng: Rng) -> Done<Summary> {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal.db");
    let mut acknowledged = Acknowledged::new();
    let mut summary = Summary::default();
    for _ in 0..CRASHES_OF_A_JOURNAL {
        let said = crash(&journal, &mut rng).await?;
        assert_nothing_is_lost(&said, &acknowledged);
        summary.crashes += 1;
        summary.before_it_was_open += usize::from(said.opened.is_none());
        summary.acknowledged += said.stored.len();
        acknowledged.extend(said.stored);
    }
    // as the last one left it, and as an orderly end leaves it
    assert_sound(&journal, &acknowledged);
    let mut last = command(&journal);
    last.args(["--appends", "3"]);
    let ended = Writer::start(last)?.end().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.message);
    assert_nothing_is_lost(&ended.said, &acknowledged);
    acknowledged.extend(ended.said.stored);
    assert_sound(&journal, &acknowledged);
    Ok(summary)
}

/// Starts a writer, and kills it: some time after its start, or after so many events.
async fn crash(journal: &Path, rng: &mut Rng) -> Done<Said> {
    let mut writer = Writer::start(command(journal))?;
    if rng.u8(..) < 64 {
        let moment = Duration::from_micros(rng.u64(..60_000));
        // that it still writes when the time is up is what is wanted
        let _ = timeout(moment, writer.hear(usize::MAX)).await;
    } else {
        writer.hear(rng.usize(1..400)).await?;
    }
    writer.kill().await
}

/// What it found when it opened the journal is what was acknowledged before, or more.
#[track_caller]
fn assert_nothing_is_lost(said: &Said, acknowledged: &Acknowledged) {
    let (Some(found), Some((seq, _))) = (said.opened, acknowledged.last_key_value()) else { return };
    assert!(found.node_seq >= *seq, "it found {found:?}, and {seq} was acknowledged");
    assert!(
        acknowledged.get(&found.node_seq).is_none_or(|hash| *hash == found.hash),
        "{found:?} is another one"
    );
    assert!(said.stored.keys().all(|stored| *stored > found.node_seq), "a number was given twice");
}

impl Summary {
    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.before_it_was_open += other.before_it_was_open;
        self.acknowledged += other.acknowledged;
    }
}
