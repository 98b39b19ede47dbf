//! The projections in PostgreSQL, kept in the transaction that continues the stream, so that they always agree
//! with it.
//!
//! ```text
//! Relay: append ─> Projector: fold in story order ─> upsert what changed ─> checkpoint ─> commit
//!                     └ checkpoint does not match: rebuild next to the old table, swap the view
//! ```
//!
//! A projection whose table cannot take in an event is paused there, and says so; the others go on.

mod checkpoint;
mod folded;
mod rebuild;
mod tables;

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use interrex_events::{
    Envelope, Event, Place, Position, ProjectionPaused, RunId,
    cluster_events::{self, Relay, StoreError, StreamHead},
};
use tokio_postgres::{Client, Transaction};

use self::folded::Folded;
pub use self::{
    checkpoint::{Checkpoint, paused},
    rebuild::Rebuilt,
    tables::Table,
};
use crate::{Cluster, Entry, InStoryOrder, Taken};

/// Events that one page of a rebuild or a fold holds in memory.
const PAGE: usize = 2_000;

/// What events changed: what has to be written.
#[derive(Debug, Default)]
struct Changes {
    entries: Vec<Entry>,
    runs: BTreeSet<RunId>,
}

impl Changes {
    fn note(&mut self, cluster: &Cluster, envelope: &Envelope) {
        self.entries.push(Entry::of(envelope, &cluster.nodes, &cluster.runs));
        self.runs.extend(envelope.run_id);
    }
}

/// Keeps the projections. What it folded is remembered, for as long as it fits the stream: from relay to relay, over a
/// broken connection, and from the years as a standby into the reign as main. What a transaction appended that came to
/// nothing is taken out of it again.
#[derive(Debug, Default)]
pub struct Projector {
    folded: Folded,
    /// Folded in a transaction that has not ended, or whose end is unknown.
    pending: Option<Pending>,
    read: u64,
}

/// What a transaction appended, folded.
#[derive(Debug)]
struct Pending {
    before: StreamHead,
    head: StreamHead,
    appended: Vec<Place>,
    story: InStoryOrder<Cluster>,
}

impl Projector {
    /// Takes what a relay appended into the projections, in the relay's own transaction. The projections that
    /// were paused by it.
    ///
    /// # Errors
    /// PostgreSQL failed: nothing of the transaction may be committed.
    pub async fn project(
        &mut self,
        relay: &mut Relay<'_>,
        appended: &[(Position, interrex_events::Record)],
    ) -> Result<Vec<ProjectionPaused>, StoreError> {
        let before = relay.before();
        let mut standing = Vec::new();
        for table in Table::ALL {
            let checkpoint = checkpoint::read(relay.transaction(), table).await?;
            standing.extend(checkpoint.filter(|it| it.stands_at(table, before)).map(|it| (table, it)));
        }
        settle_requests(relay.transaction(), appended).await?;
        if standing.is_empty() {
            // all of them wait for a rebuild: a fold of the whole stream for each page would be for nothing
            return Ok(Vec::new());
        }
        self.bring_to(before, relay.transaction().client()).await?;
        // taken, not copied, for it holds the runs of years
        let mut story = std::mem::take(&mut self.folded).into_story();
        let mut changes = Changes::default();
        let events = appended.iter().map(|(_, record)| record.open());
        let taken = catch_unwind(AssertUnwindSafe(|| {
            story.take(events, |cluster, envelope| changes.note(cluster, envelope))
        }));
        let head = relay.head();
        let places = appended.iter().map(|(_, record)| record.place()).collect();
        // before anything is written: a caller that gives this up may go on from what was folded
        let story = match taken {
            Ok(Taken::Folded) => {
                &self.pending.insert(Pending { before, head, appended: places, story }).story
            }
            Ok(Taken::TooEarly) => {
                self.folded = Folded::whole(before, story);
                return Ok(Vec::new());
            }
            Err(_) => &InStoryOrder::default(),
        };
        let mut paused = Vec::new();
        for (table, checkpoint) in standing {
            let problem = match &taken {
                Ok(Taken::Folded) => {
                    tables::write(relay.transaction(), table, &checkpoint, story.folded(), &changes).await?
                }
                // left behind on purpose: the next look finds that it does not match, and rebuilds it
                Ok(Taken::TooEarly) => continue,
                Err(panic) => Err(panic_message(&**panic)),
            };
            match problem {
                Ok(()) => checkpoint::advance(relay.transaction(), table, head).await?,
                Err(error) => {
                    checkpoint::pause(relay.transaction(), table, &error).await?;
                    let Position { epoch, pos } = before.position;
                    paused.push(ProjectionPaused {
                        projection: table.name().to_owned(),
                        epoch,
                        pos: pos + 1,
                        error,
                    });
                }
            }
        }
        Ok(paused)
    }

    /// The transaction of the last [`Projector::project`] was committed.
    pub fn committed(&mut self, head: StreamHead) {
        if let Some(pending) = self.pending.take() {
            self.folded = Folded::whole(head, pending.story);
        }
    }

    /// Brings the fold to a head, from where the last transaction left it, however that ended.
    async fn bring_to(&mut self, head: StreamHead, client: &Client) -> Result<(), StoreError> {
        if let Some(pending) = &self.pending {
            let committed = folded::fits(pending.head, head, client).await?;
            if let Some(mut pending) = self.pending.take() {
                if committed {
                    self.folded = Folded::whole(pending.head, pending.story);
                } else if pending.story.take_back(&pending.appended) {
                    self.folded = Folded::whole(pending.before, pending.story);
                }
            }
        }
        folded::bring_to(&mut self.folded, head, client, &mut self.read).await
    }

    /// Continues the fold with what a stream holds, on main or on a standby, and changes nothing there: a later
    /// [`Projector::project`] has only the rest to fold. Nothing happens where there is no stream, or one of another
    /// version of the schema. Given up half-way, it is continued by the next.
    ///
    /// # Errors
    /// PostgreSQL failed; what was folded before that is kept.
    pub async fn follow(&mut self, client: &Client) -> Result<(), StoreError> {
        if !cluster_events::is_current(client).await? {
            return Ok(());
        }
        let head = cluster_events::stream_head(client).await?;
        self.bring_to(head, client).await
    }

    /// How many events were read back from the stream so far to be folded: not those that were appended, and not
    /// those that a rebuild read.
    #[must_use]
    pub fn events_read(&self) -> u64 {
        self.read
    }

    /// Rebuilds every projection whose checkpoint does not match the stream, or whose rebuild was requested. A projection
    /// that cannot be rebuilt keeps neither the others nor the stream waiting; readers still see what they saw before.
    ///
    /// # Errors
    /// PostgreSQL failed otherwise than by refusing a rebuild.
    pub async fn mend(&mut self, client: &mut Client) -> Result<Mended, StoreError> {
        let head = cluster_events::stream_head(client).await?;
        let mut amiss = Vec::new();
        for table in Table::ALL {
            let checkpoint = checkpoint::read(client, table).await?;
            if let Some(reason) = checkpoint::what_is_amiss(table, checkpoint.as_ref(), head) {
                amiss.push((table, reason, checkpoint));
            }
        }
        let mut mended = Mended::default();
        // the stream is read once for all of them, and once for each where that was refused
        let mut rounds = if amiss.is_empty() { Vec::new() } else { vec![amiss] };
        while let Some(round) = rounds.pop() {
            match rebuild::rebuild(client, &round).await {
                Ok((rebuilt, head, story)) => {
                    self.folded = Folded::whole(head, story);
                    mended.rebuilt.extend(rebuilt);
                }
                Err(StoreError::Postgres(error)) if error.as_db_error().is_some() && !client.is_closed() => {
                    if round.len() > 1 {
                        rounds.extend(round.into_iter().map(|table| vec![table]));
                    } else if let Some((table, ..)) = round.first() {
                        let message = cluster_events::in_words(&error);
                        mended.refused.push(format!("{table} cannot be rebuilt: {message}"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(mended)
    }
}

/// What became of projections that had to be rebuilt.
#[derive(Debug, Default)]
pub struct Mended {
    /// Those that were.
    pub rebuilt: Vec<Rebuilt>,
    /// The projections that were not rebuilt, and why.
    pub refused: Vec<String>,
}

/// Requests whose answers are in the stream now are done with, whatever the projections show.
async fn settle_requests(
    transaction: &Transaction<'_>,
    appended: &[(Position, interrex_events::Record)],
) -> Result<(), StoreError> {
    let answered = appended.iter().filter(|(_, record)| record.kind == "settings_changed");
    let answered: Vec<_> = answered
        .filter_map(|(_, record)| match record.open().event {
            Event::SettingsChanged(changed) => Some(changed.request),
            _ => None,
        })
        .collect();
    if !answered.is_empty() {
        let sql = "DELETE FROM interrex.settings_requests WHERE id = ANY ($1)";
        transaction.execute(sql, &[&answered]).await?;
    }
    Ok(())
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the fold failed: {}", text.as_deref().unwrap_or("it panicked"))
}
