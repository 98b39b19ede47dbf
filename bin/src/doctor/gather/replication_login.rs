//! A real login for replication, as a standby makes it: by libpq, with the passfile, as the servers' user.

use std::time::Duration;

use interrex_actors::runtime::{self, RunAs};

use super::{
    host_and_port,
    machine::{program, programs_folder},
};
use crate::{config::Config, doctor::finding::Measured};

/// When one login is given up.
const LIMIT: Duration = Duration::from_secs(5);

/// The system identifier that the server tells a standby. No secret is on the command line: libpq reads the passfile.
pub(super) async fn attempt(
    config: &Config,
    run_as: RunAs,
    address: &str,
) -> Measured<Result<String, String>> {
    let postgres = &config.postgres;
    let (host, port) = host_and_port(address)?;
    let psql = program(&programs_folder(config)?, "psql").ok_or(
        "there is no psql beside PostgreSQL's programs or on the PATH: install PostgreSQL's client package",
    )?;
    let mut command = run_as.command(&psql);
    // what the caller has set for its own logins is not what a standby has
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command
        .args(["--no-psqlrc", "--no-password", "--no-align", "--tuples-only", "--command", "IDENTIFY_SYSTEM"])
        .arg("--dbname")
        .arg(format!(
            "host={} port={port} user={} replication=true connect_timeout=3",
            quoted(host),
            quoted(&postgres.replication_user)
        ));
    if let Some(file) = &postgres.replication_passfile {
        command.env("PGPASSFILE", file);
    }
    let answer = match runtime::run(command, "logging in", LIMIT).await {
        Ok(answer) => answer,
        Err(refusal) => return Ok(Err(refusal.to_string())),
    };
    let system_id = answer.split('|').next().unwrap_or_default().trim();
    if system_id.is_empty() {
        return Err(format!("{address} told no system identifier: {answer}"));
    }
    Ok(Ok(system_id.to_owned()))
}

/// A value in libpq's connection string.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}
