//! A real login for replication, as a standby makes it: by libpq, with the passfile, as the servers' user.

use interrex_actors::ports::Source;
use interrex_adapters::{postgres::log_in_for_replication, runtime::RunAs};
use interrex_events::{Address, postgres::conninfo_value};

use super::machine::{program, programs_folder};
use crate::{
    config::Config,
    daemon::{OnThisMachine, Runtimes as _},
    doctor::finding::Measured,
};

const NO_PSQL: &str =
    "there is no psql next to PostgreSQL's programs or on the PATH: install PostgreSQL's client package";

/// The system identifier that the server reports to a standby. No secret is on the command line: libpq reads the passfile.
pub(super) async fn attempt(
    config: &Config,
    run_as: RunAs,
    address: &Address,
) -> Measured<Result<String, String>> {
    let postgres = &config.postgres;
    let Address { host, port } = address;
    let psql = program(&programs_folder(config)?, "psql").ok_or(NO_PSQL)?;
    let source = Source {
        conninfo: format!(
            "host={} port={port} user={}",
            conninfo_value(host),
            conninfo_value(&postgres.replication_user)
        ),
        passfile: postgres.replication_passfile.clone(),
    };
    let runtime = OnThisMachine.postgres(config, run_as);
    let folder = psql.parent().unwrap_or(&psql);
    match log_in_for_replication(&*runtime, folder, &source).await {
        Ok(system_id) => Ok(Ok(system_id.ok_or(NO_PSQL)?)),
        Err(refusal) => Ok(Err(refusal.to_string())),
    }
}
