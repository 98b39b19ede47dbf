//! A login for replication as a standby makes it: by libpq, with the passfile, as the servers' user.

use std::{path::Path, time::Duration};

use interrex_actors::ports::{Answer, NoReply, PortError, Source};
use interrex_events::{Address, postgres::pinned_for_libpq};

use super::programs;
use crate::{
    postgres::{LocalPostgres, admission::ask_for_a_session},
    runtime::{self, RunAs},
};

/// When one login is given up.
const LIMIT: Duration = Duration::from_secs(5);
/// SQLSTATE of a server whose places, or whose walsenders, are all taken.
const TOO_MANY_CONNECTIONS: &str = "53300";

impl LocalPostgres {
    pub(super) async fn try_login(&self, source: &Source) -> Answer<Option<String>> {
        let psql = self.settings.bin_dir.join("psql");
        if !psql.is_file() {
            return Ok(None);
        }
        log_in_for_replication(&psql, self.settings.run_as, source).await.map(Some)
    }

    /// By the code of the server's first answer: its text is translated.
    pub(super) async fn is_turned_away(&self, Address { host, port }: &Address) -> bool {
        let asked =
            ask_for_a_session((host, *port), &self.settings.replication_user, ("replication", "true"));
        match tokio::time::timeout(LIMIT, asked).await {
            // it asks for a password, and did not like the one that it got
            Ok(Ok(())) => true,
            Ok(Err(NoReply::Refused { code, .. })) => code != TOO_MANY_CONNECTIONS,
            Ok(Err(_)) | Err(_) => false,
        }
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
    programs::tell_passfile(source, &mut command);
    let answer = runtime::run(command, "logging in for replication", LIMIT).await?;
    match answer.split('|').next().map(str::trim) {
        Some(system_id) if !system_id.is_empty() => Ok(system_id.to_owned()),
        _ => Err(PortError(format!("it told no system identifier: {answer}"))),
    }
}
