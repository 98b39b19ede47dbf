//! The fold of the stream, kept between relays, connections and epochs: if it fits the stream it is continued, never repeated.
//!
//! ```text
//! nothing that fits ─> read page by page in story order, up to a head ─> whole
//! whole             ─> continued page by page in order of `pos`
//!                         └ an event belongs before what is settled: nothing fits any more
//! ```
//!
//! A caller may give up between any two pages: what was folded until then is kept.

use interrex_events::{
    Place,
    cluster_events::{self, Found, StoreError, StreamHead},
};
use tokio_postgres::Client;

use super::PAGE;
use crate::{Cluster, InStoryOrder, Taken};

/// A fold of the stream up to a head.
#[derive(Debug, Clone, Default)]
pub(super) struct Folded {
    up_to: StreamHead,
    progress: Progress,
    story: InStoryOrder<Cluster>,
}

/// How much of that it is.
#[derive(Debug, Clone, Copy, Default)]
enum Progress {
    /// The story up to a place, from the beginning.
    Told(Option<Place>),
    /// All of it.
    #[default]
    Whole,
}

impl Folded {
    /// A fold that is whole.
    pub(super) fn whole(up_to: StreamHead, story: InStoryOrder<Cluster>) -> Self {
        Self { up_to, progress: Progress::Whole, story }
    }

    /// The fold, ready for what comes next.
    pub(super) fn into_story(self) -> InStoryOrder<Cluster> {
        self.story
    }

    fn begin(up_to: StreamHead) -> Self {
        Self { up_to, progress: Progress::Told(None), story: InStoryOrder::default() }
    }
}

/// Brings a fold to a head of the stream. `read` counts the events that had to be read for it.
pub(super) async fn bring_to(
    folded: &mut Folded,
    head: StreamHead,
    client: &Client,
    read: &mut u64,
) -> Result<(), StoreError> {
    if !fits(folded.up_to, head, client).await? {
        *folded = Folded::begin(head);
    }
    while let Some(page) = next_page(folded, head, client).await? {
        *read += page.len() as u64;
        // a fold that panics half-way leaves nothing that could be taken for whole
        let before = std::mem::replace(folded, Folded::begin(head));
        if let Some(after) = before.take(&page, head) {
            *folded = after;
        }
    }
    Ok(())
}

/// Whether a fold is one of this stream: the event where it ends is still there. The same proves a checkpoint.
pub(super) async fn fits(end: StreamHead, head: StreamHead, client: &Client) -> Result<bool, StoreError> {
    if end == head {
        return Ok(true);
    }
    if end.position.pos == 0 || end.position > head.position {
        return Ok(false);
    }
    let there = cluster_events::at(client, end.position).await?;
    Ok(there.is_some_and(|found| found.record.hash == end.hash))
}

/// What is to be folded next, or nothing more.
async fn next_page(
    folded: &Folded,
    head: StreamHead,
    client: &Client,
) -> Result<Option<Vec<Found>>, StoreError> {
    let end = folded.up_to.position.pos;
    let page = match folded.progress {
        Progress::Told(after) => cluster_events::story_page(client, after, end, PAGE as u32).await?,
        Progress::Whole if folded.up_to == head => return Ok(None),
        Progress::Whole => {
            let mut page = cluster_events::page(client, end, PAGE as u32).await?;
            page.retain(|found| found.position <= head.position);
            page
        }
    };
    Ok(Some(page))
}

impl Folded {
    /// Takes in the next page; an empty one is the last. Nothing, if the fold has to begin again.
    fn take(mut self, page: &[Found], head: StreamHead) -> Option<Self> {
        let last = page.last().map(|found| {
            (found.record.place(), StreamHead { position: found.position, hash: found.record.hash })
        });
        let taken = self.story.take(page.iter().map(|found| found.record.open()), |_, _| {});
        if taken == Taken::TooEarly {
            return None;
        }
        match (self.progress, last) {
            (Progress::Told(_), Some((place, _))) => self.progress = Progress::Told(Some(place)),
            (Progress::Told(_), None) => self.progress = Progress::Whole,
            (Progress::Whole, last) => self.up_to = last.map_or(head, |(_, end)| end),
        }
        Some(self)
    }
}
