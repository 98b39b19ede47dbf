//! Main's server as `pg_rewind` and `pg_basebackup` are told of it: never with a password, which every user could read.

use interrex_events::postgres::conninfo_value;

use crate::{
    ports::{Answer, PortError, PostgresPort as _, Source},
    replication::postgres::{LocalPostgres, files},
};

/// The password file for a rewind, beside the file of the upstream.
const PASSFILE: &str = "rewind.pgpass";

impl LocalPostgres {
    /// With the login of this node's supervisor, which the two have in common.
    pub(super) fn source_of_rewind(&self, address: &str) -> Answer<Source> {
        let settings = &self.settings;
        let (host, port) = address.rsplit_once(':').unwrap_or((address, "5432"));
        let conninfo = format!(
            "host={host} port={port} user={} dbname={} connect_timeout=10",
            conninfo_value(&settings.user),
            conninfo_value(&settings.database)
        );
        let Some(password) = &settings.password else { return Ok(Source { conninfo, passfile: None }) };
        let passfile = settings.upstream_file.with_file_name(PASSFILE);
        let line = format!("{host}:{port}:*:{}:{}\n", escaped(&settings.user), escaped(password));
        files::write(&passfile, line.as_bytes(), settings.run_as)
            .map_err(|error| PortError::new(&format!("writing {}", passfile.display()), error))?;
        Ok(Source { conninfo, passfile: Some(passfile) })
    }

    /// As a standby would connect.
    pub(super) fn source_of_copy(&self, address: &str) -> Source {
        Source { conninfo: self.conninfo_of(address), passfile: self.settings.replication_passfile.clone() }
    }
}

/// A field of a password file.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}
