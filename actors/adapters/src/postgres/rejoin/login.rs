//! A login for replication as a standby makes it: with libpq, with the passfile, as the servers' user.

use std::{path::Path, time::Duration};

use interrex_actors::ports::{Answer, NoReply, PortError, Source};
use interrex_events::{Address, postgres::pinned_for_libpq};

use super::programs;
use crate::{
    postgres::{LocalPostgres, admission::ask_for_a_session},
    runtime::{Program, Runtime},
};

/// Time limit for one login.
const LIMIT: Duration = Duration::from_secs(5);
/// SQLSTATE of a server whose places, or whose WAL senders, are all used.
const TOO_MANY_CONNECTIONS: &str = "53300";

impl LocalPostgres {
    pub(super) async fn try_login(&self, source: &Source) -> Answer<Option<String>> {
        let runtime = &*self.settings.runtime;
        log_in_for_replication(runtime, &self.settings.bin_dir, source).await
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

/// Logs in for replication with `psql` of this folder, and returns the server's system identifier; nothing if there is no `psql`.
/// The login uses one of `max_wal_senders` for a moment; no secret is on the command line.
///
/// # Errors
/// The server's refusal, or why there was no answer.
pub async fn log_in_for_replication(
    runtime: &dyn Runtime,
    programs: &Path,
    source: &Source,
) -> Answer<Option<String>> {
    let mut psql = Program::new(programs.join("psql"));
    if !runtime.has_program(&psql.path).await {
        return Ok(None);
    }
    let (variable, pinned) = pinned_for_libpq();
    psql.env(variable, pinned)
        .args(["--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--command", "IDENTIFY_SYSTEM"])
        .arg("--dbname")
        // if a keyword is there twice, the last one counts
        .arg(format!("{} replication=true connect_timeout=3", source.without_secrets()?));
    programs::tell_passfile(runtime, source, &mut psql);
    let answer = runtime.output_of(&psql, "logging in for replication", LIMIT).await?;
    match answer.split('|').next().map(str::trim) {
        Some(system_id) if !system_id.is_empty() => Ok(Some(system_id.to_owned())),
        _ => Err(PortError(format!("the server reported no system identifier: {answer}"))),
    }
}
