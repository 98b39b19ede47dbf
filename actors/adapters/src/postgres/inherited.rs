//! Settings that a base backup inherits from the old main and that would hinder a new main.
//!
//! The values of the server itself count: its configuration files, and above them the command line with which it was started.
//! `pg_settings` does not show them, because the value of a session, a role or a database hides them there; and those values
//! belong to the person who set them.

use interrex_actors::ports::{Answer, PortError, ReadOnlySetting};
use interrex_events::postgres::{Row, shown};
use tokio::time::timeout;

use super::{LOOK, LocalPostgres, RELOAD_LIMIT};

/// The value that each setting must have on a main.
const WANTED: [(&str, &str); 2] = [("synchronous_standby_names", ""), (READ_ONLY, "off")];

/// The setting with which people often fence a server by hand.
pub const READ_ONLY: &str = "default_transaction_read_only";

/// SQL: the newest line of the configuration files for each of these settings.
fn in_files() -> String {
    format!(
        "SELECT DISTINCT ON (lower(name)) lower(name) AS name, {setting} AS setting FROM pg_file_settings
         WHERE lower(name) IN ('synchronous_standby_names', '{READ_ONLY}') AND error IS NULL
         ORDER BY lower(name), seqno DESC",
        setting = shown("setting")
    )
}

/// SQL: the command line of the server, which it writes to a file at each start; as bytes, because a path may have any encoding.
pub const STARTED_WITH: &str =
    "SELECT encode(pg_read_binary_file('postmaster.opts', 0, 65536, true), 'escape')";

/// SQL: settings of databases and roles that make clients read-only, and the statements that undo them. Such a setting
/// replicates.
#[must_use]
pub fn read_only_by_setting() -> String {
    format!(
        "SELECT {undone_by} AS undone_by, every_role
         FROM (SELECT concat_ws(' ', CASE
                 WHEN rolname IS NOT NULL THEN format('ALTER ROLE %I', rolname)
                      || CASE WHEN datname IS NULL THEN '' ELSE format(' IN DATABASE %I', datname) END
                 WHEN datname IS NOT NULL THEN format('ALTER DATABASE %I', datname)
                 ELSE 'ALTER ROLE ALL' END, 'RESET {READ_ONLY}') AS statement,
               rolname IS NULL AS every_role
               FROM pg_db_role_setting
               CROSS JOIN unnest(setconfig) AS line
               LEFT JOIN pg_database ON pg_database.oid = setdatabase
               LEFT JOIN pg_roles ON pg_roles.oid = setrole
               WHERE CASE WHEN line ~* '^{READ_ONLY}=' THEN split_part(line, '=', 2)::boolean ELSE false END) AS found
         ORDER BY every_role DESC, undone_by",
        undone_by = shown("statement")
    )
}

impl LocalPostgres {
    /// Messages about hindering settings on the command line, which no file overrides.
    pub(super) async fn hindered_by_command_line(&self) -> Answer<Vec<String>> {
        let started_with = self.value(STARTED_WITH).await?.unwrap_or_default();
        let found = WANTED.into_iter().filter_map(|(name, wanted)| {
            let value = on_command_line(&started_with, name)?;
            (!is_as_wanted(value, wanted)).then(|| {
                format!(
                    "{name} is `{value}` on the command line with which PostgreSQL was started, and no configuration file \
                     overrides that: start PostgreSQL without {name}"
                )
            })
        });
        Ok(found.collect())
    }

    /// Clears the hindering settings of the configuration files. Returns what was cleared.
    pub(super) async fn clear_inherited(&self) -> Answer<Vec<String>> {
        let forced = self.hindered_by_command_line().await?;
        if !forced.is_empty() {
            return Err(PortError(forced.join("; ")));
        }
        let mut cleared = Vec::new();
        for row in &self.rows(&in_files()).await? {
            let (name, value) = (row.get("name").unwrap_or_default(), row.get("setting").unwrap_or_default());
            if let Some((name, wanted)) = WANTED.into_iter().find(|(known, _)| *known == name)
                && !is_as_wanted(value, wanted)
            {
                self.rows(&format!("ALTER SYSTEM SET {name} = '{wanted}'")).await?;
                cleared.push(format!("{name} (was `{value}`)"));
            }
        }
        if !cleared.is_empty() {
            self.reload().await?;
        }
        Ok(cleared)
    }

    /// Makes the server read its files again, and waits until it has. Sessions read them after the server itself.
    async fn reload(&self) -> Answer<()> {
        let loaded = async || self.value("SELECT pg_conf_load_time()").await;
        let before = loaded().await?;
        self.rows("SELECT pg_reload_conf()").await?;
        let reloaded = async {
            while loaded().await? == before {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(RELOAD_LIMIT, reloaded).await.unwrap_or_else(|_| {
            Err(PortError(format!(
                "PostgreSQL did not reload its configuration files within {RELOAD_LIMIT:?}; look for errors: SELECT * FROM \
                 pg_file_settings WHERE error IS NOT NULL"
            )))
        })
    }

    /// The settings of databases and roles that make clients read-only.
    pub(super) async fn find_read_only(&self) -> Answer<Vec<ReadOnlySetting>> {
        let rows = self.rows(&read_only_by_setting()).await?;
        let setting = |row: &Row| ReadOnlySetting {
            undone_by: row.get("undone_by").unwrap_or_default().to_owned(),
            every_role: row.get("every_role") == Some("t"),
        };
        Ok(rows.iter().map(setting).collect())
    }
}

/// Whether a value, as it was written, is the value that a main must have.
fn is_as_wanted(value: &str, wanted: &str) -> bool {
    match wanted {
        "off" => !is_on(value),
        _ => value.trim().eq_ignore_ascii_case(wanted),
    }
}

/// Whether a value that the server accepted means `on`, in any spelling.
#[must_use]
pub fn is_on(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    value == "on"
        || value == "1"
        || (!value.is_empty() && ("true".starts_with(&value) || "yes".starts_with(&value)))
}

/// The value of a setting on a command line in the form of `postmaster.opts`: every argument in quotation marks. The last value
/// counts.
#[must_use]
pub fn on_command_line<'a>(started_with: &'a str, name: &str) -> Option<&'a str> {
    let mut words = started_with.split('"').skip(1).step_by(2);
    let mut found = None;
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--").or_else(|| word.strip_prefix("-c")) {
            Some("") => words.next().unwrap_or_default(),
            Some(assignment) => assignment,
            None => continue,
        };
        if let Some((written, value)) = assignment.split_once('=')
            && written.trim().replace('-', "_").eq_ignore_ascii_case(name)
        {
            found = Some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_read_in_every_way_of_writing_a_setting() {
        let of = |words: &str| {
            let line = format!("/usr/lib/postgresql/15/bin/postgres \"-D\" \"/data\" {words}\n");
            on_command_line(&line, READ_ONLY).map(str::to_owned)
        };
        assert_eq!(of(""), None);
        assert_eq!(of(r#""-c" "work_mem=8MB""#), None);
        for written in [
            r#""-c" "default_transaction_read_only=on""#,
            r#""-cdefault_transaction_read_only=on""#,
            r#""--default-transaction-read-only=on""#,
            r#""-c" "Default_Transaction_Read_Only=off" "-c" "default_transaction_read_only=on""#,
        ] {
            assert_eq!(of(written).as_deref(), Some("on"), "{written}");
        }
    }

    #[test]
    fn on_is_on_however_it_is_written() {
        assert!(["on", "true", "T", "yes", "y", "1"].into_iter().all(is_on));
        assert!(!["off", "false", "no", "0", "of", ""].into_iter().any(is_on));
    }
}
