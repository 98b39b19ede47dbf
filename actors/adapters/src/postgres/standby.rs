//! Makes a stopped directory a standby: it can only start as a standby, and stays a standby until it is promoted.
//!
//! **Invariant:** with any other configuration files, only a promotion ends its recovery. Settings that could end it are overridden
//! in `postgresql.auto.conf`, which PostgreSQL reads last at every start.

use std::{io, path::Path};

use interrex_actors::ports::{Answer, MainLineage, PortError};

use super::{
    LocalPostgres, RETRIEVE_RETRY,
    auto_conf::{self, Setting},
    files, lineage,
};

/// Settings that a directory must not keep when it follows another main, in addition to the settings of a standby: where recovery
/// would end, and what would hinder it as a main.
const NOT_INHERITED: [&str; 4] = [
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "synchronous_standby_names",
    "default_transaction_read_only",
];

/// Settings that end a recovery if any configuration file sets them. An empty value is the same as no setting.
pub const ENDS_RECOVERY: [&str; 6] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    TRIGGER_FILE,
];
/// PostgreSQL from version [`WITHOUT_TRIGGER_FILE`] on does not know this setting, and refuses to start with it.
const TRIGGER_FILE: &str = "promote_trigger_file";
const WITHOUT_TRIGGER_FILE: u32 = 16;

/// Together with `standby.signal` it has no effect, but it stays after a promotion of the standby: then the next start would be a
/// recovery from an archive.
const RECOVERY_SIGNAL: &str = "recovery.signal";

impl LocalPostgres {
    /// The directory can only start as a standby from the first write on, even if the work is interrupted.
    pub(super) async fn turn_into_standby(
        &self,
        conninfo: &str,
        slot: &str,
        along: Option<&MainLineage>,
    ) -> Answer<()> {
        self.must_be_stopped().await?;
        let data_dir = &self.settings.data_dir;
        let make = || {
            self.mark_as_standby(data_dir)?;
            if let Some(main) = along {
                lineage::write_history(data_dir, main, self.user())?;
            }
            self.write_upstream(data_dir, (conninfo, slot), along)
        };
        make().map_err(|error| PortError::new(&format!("making {} a standby", data_dir.display()), error))
    }

    /// Writes the main that a directory follows, durably.
    pub(super) fn write_upstream(
        &self,
        data_dir: &Path,
        (conninfo, slot): (&str, &str),
        along: Option<&MainLineage>,
    ) -> io::Result<()> {
        let timeline = along.map_or_else(|| "latest".to_owned(), |main| main.timeline.to_string());
        let mut settings: Vec<Setting<'_>> = vec![
            ("primary_conninfo", conninfo),
            ("primary_slot_name", slot),
            ("recovery_target_timeline", timeline.as_str()),
            ("wal_retrieve_retry_interval", RETRIEVE_RETRY),
        ];
        for setting in stays_standby(files::major_version(data_dir, self.user())?) {
            settings.push(setting);
        }
        auto_conf::change(data_dir, &NOT_INHERITED, &settings, self.user())
    }

    /// Puts `standby.signal` into a directory, durably.
    pub(super) fn mark_as_standby(&self, data_dir: &Path) -> io::Result<()> {
        files::write(&data_dir.join("standby.signal"), b"", self.user())?;
        files::remove_file(&data_dir.join(RECOVERY_SIGNAL))
    }

    /// Called before each start of a standby: a person may have changed its settings, or may have made it without this program.
    pub(super) fn keep_a_standby(&self) -> Answer<()> {
        let data_dir = &self.settings.data_dir;
        let keep = || {
            let settings: Vec<Setting<'_>> =
                stays_standby(files::major_version(data_dir, self.user())?).collect();
            auto_conf::change(data_dir, &[], &settings, self.user())?;
            files::remove_file(&data_dir.join(RECOVERY_SIGNAL))
        };
        keep().map_err(|error| {
            PortError::new(
                &format!("making sure that {} starts as a standby and stays one", data_dir.display()),
                error,
            )
        })
    }

    /// Whether the directory could be made a standby; nothing is changed.
    ///
    /// # Errors
    /// Why it could not be made a standby, with the file's name.
    pub(super) fn is_fit_for_a_standby(&self) -> Answer<()> {
        let data_dir = &self.settings.data_dir;
        let look = || {
            files::major_version(data_dir, self.user())?;
            auto_conf::read(data_dir, self.user())?;
            files::try_to_write(data_dir, self.user())
        };
        look().map_err(|error| {
            PortError::new(&format!("{} could not be made a standby", data_dir.display()), error)
        })
    }
}

/// The settings with which only a promotion ends a standby's recovery, and with which it can be measured.
fn stays_standby(major_version: u32) -> impl Iterator<Item = Setting<'static>> {
    let is_known = move |name: &&str| *name != TRIGGER_FILE || major_version < WITHOUT_TRIGGER_FILE;
    let ends_nothing = ENDS_RECOVERY.into_iter().filter(is_known).map(|name| (name, ""));
    ends_nothing.chain([("recovery_target_action", "pause"), ("hot_standby", "on")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_does_not_know_a_setting_is_not_given_it() {
        for (version, known) in [(12, true), (15, true), (16, false), (18, false)] {
            assert_eq!(stays_standby(version).any(|(name, _)| name == TRIGGER_FILE), known, "{version}");
        }
    }
}
