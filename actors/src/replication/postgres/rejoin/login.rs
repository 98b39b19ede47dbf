//! A login for replication as a standby makes it: by libpq, with the passfile, as the servers' user.

use std::{path::Path, time::Duration};

use interrex_events::postgres::pinned_for_libpq;

use crate::{
    ports::{Answer, PortError, Source},
    replication::postgres::LocalPostgres,
    runtime::{self, RunAs},
};

/// When one login is given up.
const LIMIT: Duration = Duration::from_secs(5);

impl LocalPostgres {
    pub(super) async fn try_login(&self, source: &Source) -> Answer<Option<String>> {
        let psql = self.settings.bin_dir.join("psql");
        if !psql.is_file() {
            return Ok(None);
        }
        log_in_for_replication(&psql, self.settings.run_as, source).await.map(Some)
    }
}

/// The system identifier that a server tells whoever logs in for replication. It takes one of `max_wal_senders` for a moment;
/// no secret is on the command line.
///
/// # Errors
/// The server's refusal, or why there was no answer.
pub async fn log_in_for_replication(psql: &Path, run_as: RunAs, source: &Source) -> Answer<String> {
    let mut command = run_as.command(psql);
    let (variable, pinned) = pinned_for_libpq();
    command
        .env(variable, pinned)
        .args(["--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--command", "IDENTIFY_SYSTEM"])
        .arg("--dbname")
        // of a word that is there twice, the last one counts
        .arg(format!("{} replication=true connect_timeout=3", source.without_secrets()?));
    source.tell_passfile(&mut command);
    let answer = runtime::run(command, "logging in for replication", LIMIT).await?;
    match answer.split('|').next().map(str::trim) {
        Some(system_id) if !system_id.is_empty() => Ok(system_id.to_owned()),
        _ => Err(PortError(format!("it told no system identifier: {answer}"))),
    }
}
