//! The connection of `pg_rewind` and `pg_basebackup` to main: never with a password, which every user could read.

use interrex_actors::ports::{Answer, PortError, PostgresPort as _, Source};
use interrex_events::{Address, postgres::conninfo_value};

use crate::postgres::{LocalPostgres, files};

/// The password file for a rewind, next to the file of the upstream.
const PASSFILE: &str = "rewind.pgpass";

impl LocalPostgres {
    /// With the login of this node's supervisor, which both servers have.
    pub(super) fn source_of_rewind(&self, address: &Address) -> Answer<Source> {
        let settings = &self.settings;
        let Address { host, port } = address;
        let conninfo = format!(
            "host={host} port={port} user={} dbname={} connect_timeout=10",
            conninfo_value(&settings.user),
            conninfo_value(&settings.database)
        );
        let Some(password) = &settings.password else { return Ok(Source { conninfo, passfile: None }) };
        let passfile = settings.upstream_file.with_file_name(PASSFILE);
        let line = line(address, &settings.user, password);
        files::write(&passfile, line.as_bytes(), self.user())
            .map_err(|error| PortError::new(&format!("writing {}", passfile.display()), error))?;
        Ok(Source { conninfo, passfile: Some(passfile) })
    }

    /// As a standby would connect.
    pub(super) fn source_of_copy(&self, address: &Address) -> Source {
        Source { conninfo: self.conninfo_of(address), passfile: self.settings.replication_passfile.clone() }
    }
}

/// A line of a password file.
fn line(Address { host, port }: &Address, user: &str, password: &str) -> String {
    format!("{}:{port}:*:{}:{}\n", escaped(host), escaped(user), escaped(password))
}

/// A field of a password file.
fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_colon_of_an_address_or_a_password_ends_a_field() {
        let line = line(&Address::new("fd00::1", 5432), "interrex", r"a:b\c");
        assert_eq!(line, "fd00\\:\\:1:5432:*:interrex:a\\:b\\\\c\n");
    }
}
