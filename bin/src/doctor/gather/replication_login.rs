//! A real login for replication, as a standby makes it: by libpq, with the passfile, as the servers' user.

use interrex_actors::ports::Source;
use interrex_adapters::{postgres::log_in_for_replication, runtime::RunAs};
use interrex_events::{Address, postgres::conninfo_value};

use super::machine::{program, programs_folder};
use crate::{config::Config, doctor::finding::Measured};

/// The system identifier that the server reports to a standby. No secret is on the command line: libpq reads the passfile.
pub(super) async fn attempt(
    config: &Config,
    run_as: RunAs,
    address: &Address,
) -> Measured<Result<String, String>> {
    let postgres = &config.postgres;
    let Address { host, port } = address;
    let psql = program(&programs_folder(config)?, "psql").ok_or(
        "there is no psql next to PostgreSQL's programs or on the PATH: install PostgreSQL's client package",
    )?;
    let source = Source {
        conninfo: format!(
            "host={} port={port} user={}",
            conninfo_value(host),
            conninfo_value(&postgres.replication_user)
        ),
        passfile: postgres.replication_passfile.clone(),
    };
    Ok(log_in_for_replication(&psql, run_as, &source).await.map_err(|refusal| refusal.to_string()))
}
