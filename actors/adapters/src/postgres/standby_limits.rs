//! Limits that must not be lower on a standby than on its main: with lower limits it refuses to start, or pauses its replay
//! (MEASURED M17).

use interrex_actors::ports::{Answer, PortError, StandbyLimits};

use super::LocalPostgres;

/// SQL: the limits in force.
const IN_FORCE: &str = "SELECT name, setting FROM pg_settings WHERE name LIKE 'max%'";

/// SQL: the limits in the configuration files.
const AT_NEXT_START: &str = "\
SELECT name, coalesce((SELECT setting FROM pg_file_settings AS file WHERE file.name = limits.name
                       ORDER BY seqno DESC LIMIT 1), boot_val) AS setting
FROM pg_settings AS limits WHERE name LIKE 'max%'";

impl LocalPostgres {
    /// The limits of this server now: its standbys need at least these.
    pub(super) async fn limits_now(&self) -> Answer<StandbyLimits> {
        self.read_limits(IN_FORCE).await
    }

    /// The limits with which it would start.
    pub(super) async fn limits_at_its_next_start(&self) -> Answer<StandbyLimits> {
        self.read_limits(AT_NEXT_START).await
    }

    async fn read_limits(&self, sql: &str) -> Answer<StandbyLimits> {
        let rows = self.rows(sql).await?;
        let setting = |name: &str| rows.iter().find(|row| row.get("name") == Some(name))?.get("setting");
        StandbyLimits::read(setting).map_err(|name| PortError(format!("PostgreSQL's {name} is not a number")))
    }
}
