//! Limits that a standby must not have less of than its main: with less it refuses to start, or pauses its replay
//! (MEASURED M17).

use interrex_actors::ports::{Answer, PortError, StandbyLimits};

use super::LocalPostgres;

/// As they are in force.
const IN_FORCE: &str = "SELECT name, setting FROM pg_settings WHERE name LIKE 'max%'";

/// As the configuration files have them.
const AT_NEXT_START: &str = "\
SELECT name, coalesce((SELECT setting FROM pg_file_settings AS file WHERE file.name = limits.name
                       ORDER BY seqno DESC LIMIT 1), boot_val) AS setting
FROM pg_settings AS limits WHERE name LIKE 'max%'";

impl LocalPostgres {
    /// Those that this server has now: what a standby of it needs.
    pub(super) async fn limits_now(&self) -> Answer<StandbyLimits> {
        self.read_limits(IN_FORCE).await
    }

    /// Those that it would start with.
    pub(super) async fn limits_at_its_next_start(&self) -> Answer<StandbyLimits> {
        self.read_limits(AT_NEXT_START).await
    }

    async fn read_limits(&self, sql: &str) -> Answer<StandbyLimits> {
        let rows = self.rows(sql).await?;
        let setting = |name: &str| rows.iter().find(|row| row.get("name") == Some(name))?.get("setting");
        StandbyLimits::read(setting).map_err(|name| PortError(format!("PostgreSQL's {name} is no number")))
    }
}
