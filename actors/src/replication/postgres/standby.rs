//! Making a stopped directory one that can only start as a standby, and what is a server's own in it.

use std::io;

use super::{LocalPostgres, RETRIEVE_RETRY, files};
use crate::ports::{Answer, PortError};

/// Settings that a directory must not bring along when it follows another main: its old upstream, where it would
/// end recovery by itself, and what would hinder it as a main.
const NOT_INHERITED: [&str; 14] = [
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "synchronous_standby_names",
    "default_transaction_read_only",
    "wal_retrieve_retry_interval",
];

impl LocalPostgres {
    /// Can only start as a standby from the first write on, whatever happens between the two.
    pub(super) fn turn_into_standby(&self, conninfo: &str, slot: &str) -> Answer<()> {
        self.must_be_stopped()?;
        let doing = format!("making {} a standby", self.settings.data_dir.display());
        self.mark_as_standby(&self.settings.data_dir).map_err(|error| PortError::new(&doing, error))?;
        self.write_upstream(&self.settings.data_dir, conninfo, slot)
            .map_err(|error| PortError::new(&doing, error))
    }

    /// Writes whom a directory follows, durably.
    pub(super) fn write_upstream(
        &self,
        data_dir: &std::path::Path,
        conninfo: &str,
        slot: &str,
    ) -> io::Result<()> {
        let file = data_dir.join("postgresql.auto.conf");
        let before = match self.settings.run_as.act(|| std::fs::read_to_string(&file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other?,
        };
        files::write(&file, following(&before, conninfo, slot).as_bytes(), self.settings.run_as)
    }

    /// Puts `standby.signal` into a directory, durably.
    pub(super) fn mark_as_standby(&self, data_dir: &std::path::Path) -> io::Result<()> {
        files::write(&data_dir.join("standby.signal"), b"", self.settings.run_as)
    }
}

/// `postgresql.auto.conf` of a standby: what stood in it, and the upstream.
fn following(before: &str, conninfo: &str, slot: &str) -> String {
    let mut lines: Vec<String> =
        before.lines().filter(|line| !is_not_inherited(line)).map(str::to_owned).collect();
    for (name, value) in [
        ("primary_conninfo", conninfo),
        ("primary_slot_name", slot),
        ("recovery_target_timeline", "latest"),
        ("wal_retrieve_retry_interval", RETRIEVE_RETRY),
    ] {
        lines.push(format!("{name} = '{}'", value.replace('\\', r"\\").replace('\'', "''")));
    }
    lines.join("\n") + "\n"
}

fn is_not_inherited(line: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '.';
    let name = line.trim_start().split(|letter| !is_part(letter)).next().unwrap_or_default();
    NOT_INHERITED.iter().any(|unwanted| unwanted.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_is_replaced_and_everything_else_stays() {
        let before = "# by hand\nwork_mem = '8MB'\nPrimary_Conninfo='host=old'\nsynchronous_standby_names = 'two'\n \
                      recovery_target_action 'promote'\n";
        let once = following(before, r"host=new password='it\'s'", "replica_1");
        assert_eq!(
            once,
            "# by hand\nwork_mem = '8MB'\nprimary_conninfo = 'host=new password=''it\\\\''s'''\n\
             primary_slot_name = 'replica_1'\nrecovery_target_timeline = 'latest'\n\
             wal_retrieve_retry_interval = '100ms'\n"
        );
        assert_eq!(following(&once, r"host=new password='it\'s'", "replica_1"), once, "can be repeated");
    }
}
