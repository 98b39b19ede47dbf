//! What happened: the facts of a cluster, and the store that keeps them.
//!
//! ```text
//! Draft ──journal──> Record ──open──> Envelope ──> folds (projections), deciders (actors)
//!  (a fact)          (stamped, chained,  (as the
//!                     stored as is)       program reads it)
//! ```
//!
//! **Invariant:** this crate knows no actor, no clock of its own and no network but the event store's two
//! databases, each behind a cargo feature (`journal`, `postgres`). `export` is files to carry away.

mod address;
mod base;
mod chain;
#[cfg(feature = "postgres")]
pub mod cluster_events;
mod envelope;
mod event;
#[cfg(feature = "export")]
pub mod export;
mod hlc;
mod ids;
#[cfg(feature = "journal")]
pub mod journal;
mod position;
#[cfg(feature = "postgres")]
pub mod postgres;
mod record_ref;

pub use address::{Address, NotAnAddress, check_host};
pub use base::{Base, Bases};
pub use chain::{Broken, ChainHash, ChainWalk, ChainWalks, Head};
pub use envelope::{Cause, Draft, Envelope, Lineage, Place, Record};
pub use event::*;
pub use hlc::{Hlc, HlcClock, TooFarAhead};
pub use ids::{ClusterId, Epoch, EventId, Lsn, NodeId, NodeSeq, NotAnLsn, RunId, TimelineId};
pub use position::Position;
pub use record_ref::{RecordRef, Seen};
