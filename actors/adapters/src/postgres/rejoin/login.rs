//! A login for replication as a standby makes it: with libpq, with the passfile, as the servers' user.

use std::{path::Path, time::Duration};

use interrex_actors::ports::{Answer, NoReply, PortError, Source};
use interrex_events::{Address, postgres::pinned_for_libpq};

use super::programs;
use crate::{
    postgres::{LocalPostgres, admission::ask_for_a_session},
    runtime::{self, RunAs},
};

/// Time limit for one login.
const LIMIT: Duration = Duration::from_secs(5);
/// SQLSTATE of a server whose places, or whose WAL senders, are all used.
const TOO_MANY_CONNECTIONS: &str = "53300";

impl LocalPostgres {
    pub(super) async fn try_login(&self, source: &Source) -> Answer<Option<String>> {
        let psql = self.settings.bin_dir.join("psql");
        if !psql.is_file() {
            return Ok(None);
        }
        log_in_for_replication(&psql, self.settings.run_as, source).await.map(Some)
    }

    /// Decided from the code of the server's first answer: its text is translated.
    pub(super) async fn is_turned_away(&self, Address { host, port }: &Address) -> bool {
        let asked =
            ask_for_a_session((host, *port), &self.settings.replication_user, ("replication", "true"));
        match tokio::time::timeout(LIMIT, asked).await {
            // the server asks for a password, and refused the password that it got
            Ok(Ok(())) => true,
            Ok(Err(NoReply::Refused { code, .. })) => code != TOO_MANY_CONNECTIONS,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Logs in for replication and returns the server's system identifier. The login uses one of `max_wal_senders` for a moment; no
/// secret is on the command line.
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
        // if a keyword is there twice, the last one counts
        .arg(format!("{} replication=true connect_timeout=3", source.without_secrets()?));
    programs::tell_passfile(source, &mut command);
    let answer = runtime::run(command, "logging in for replication", LIMIT).await?;
    match answer.split('|').next().map(str::trim) {
        Some(system_id) if !system_id.is_empty() => Ok(system_id.to_owned()),
        _ => Err(PortError(format!("the server reported no system identifier: {answer}"))),
    }
}
