//! Waiting for new events, until Ctrl-C or until the reader is gone.

use std::{io, time::Duration};

use interrex_events::{
    Record,
    journal::{JournalReader, Selection},
};

use super::{failure::Failure, waiting::nobody_reads};

/// How often the journal is read: fast enough for the eye, and no load for the disk.
const INTERVAL: Duration = Duration::from_millis(200);

/// Hands over every selected event that is recorded from now on, a batch at a time.
pub(super) fn follow(
    reader: &JournalReader,
    mut selection: Selection,
    mut show: impl FnMut(&[Record]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Other {
        what: "cannot wait for new events".to_owned(),
        source: Some(error.into()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let interrupted = tokio::signal::ctrl_c();
        let unread = nobody_reads();
        tokio::pin!(interrupted, unread);
        loop {
            let records = reader.read(&selection)?;
            if let Some(newest) = records.last() {
                selection.after = Some(newest.place());
                show(&records)?;
            }
            tokio::select! {
                interrupted = &mut interrupted => return interrupted.map_err(failed),
                () = &mut unread => return Ok(()),
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    })
}
