//! Events in a file of their own, to be carried elsewhere, kept, and read again by any tool.
//!
//! ```text
//! {"interrex_export":1,"cluster_id":...,"node":2,...,"heads":[...]}    the header: what is here, and where it ends
//! {"event_id":...,"payload":{...},"prev_hash":...,"hash":...}          a record a line, exactly as stored, in story order
//! ...
//! ```
//!
//! The header says where every chain begins and ends, so that a file that was cut off is noticed, and its reader checks
//! each chain on the way. A file is plain, or compressed with gzip or zstd; a reader recognises it by its first bytes.

mod chains;
mod packing;
mod read;
#[cfg(test)]
mod tests;
mod write;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use self::{
    chains::Survey,
    packing::Packing,
    read::{ExportReader, looks_like_an_export},
    write::ExportWriter,
};
use crate::{Broken, ClusterId, Head, NodeId, NodeSeq, RunId};

/// Version of the file's shape, in the header's `interrex_export`.
pub const EXPORT_VERSION: u32 = 1;

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportHeader {
    /// Version of the file's shape; it also identifies the file.
    pub interrex_export: u32,
    /// The cluster.
    pub cluster_id: ClusterId,
    /// The node whose store was exported.
    pub node: NodeId,
    /// When.
    pub exported_at: DateTime<Utc>,
    /// How many records follow.
    pub events: u64,
    /// What of the store was asked for.
    pub part: Part,
    /// For each node, what its first event here is chained to; 0 is the beginning of its journal.
    pub begins: Vec<Head>,
    /// For each node, its newest event here.
    pub heads: Vec<Head>,
}

/// The part of a store that was exported; if no field is set, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Only this run's events: what others recorded between them is left out, and the chains have gaps.
    pub run: Option<RunId>,
    /// Only from this moment on.
    pub since: Option<DateTime<Utc>>,
    /// Only up to this moment.
    pub until: Option<DateTime<Utc>>,
}

impl Part {
    /// Whether events were left out between two of the same node, so that each is checked by itself.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.run.is_some()
    }
}

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// It is not there, or the system or its compression failed.
    #[error("cannot read {file}: {detail}")]
    Unreadable {
        /// The file.
        file: String,
        /// The system's message.
        detail: String,
    },
    /// It begins otherwise.
    #[error(
        "{0} is no export of this program: its first line is not the header that `interrex export` writes"
    )]
    NotAnExport(String),
    /// It was written by a newer version.
    #[error(
        "the export {file} has version {found}, and this program knows version {EXPORT_VERSION}; use the newer program"
    )]
    Newer {
        /// The file.
        file: String,
        /// Its version.
        found: u32,
    },
    /// A line is no record.
    #[error("line {line} of the export {file} is no event: {detail}")]
    NoRecord {
        /// The file.
        file: String,
        /// Which line, from 1.
        line: u64,
        /// Why not.
        detail: String,
    },
    /// A record is not what was recorded, or not the next one.
    #[error("line {line} of the export {file} is wrong: {broken}")]
    Broken {
        /// The file.
        file: String,
        /// Which line, from 1.
        line: u64,
        /// What is wrong.
        broken: Broken,
    },
    /// It ends before its header says.
    #[error(
        "the export {file} was cut off: it should go up to event {} of node {}, and ends at event {found}; copy it again",
        promised.node_seq,
        promised.node_id
    )]
    CutOff {
        /// The file.
        file: String,
        /// What the header says.
        promised: Head,
        /// The newest event of that node in the file.
        found: NodeSeq,
    },
}
