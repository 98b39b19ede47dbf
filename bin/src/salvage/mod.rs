//! `interrex salvage`: the rows that only an old main has, as files that a person reviews and applies.
//!
//! ```text
//! kept data directory ─cp─> scratch (a server nobody else can reach) ┐
//!      │                    └─ rows by the ids of the fork report ───┴─ stranded ─> files, summary
//!      └─ pg_waldump ─> fork report             new main, read-only ─┘
//! ```
//!
//! **Invariants:** the kept directory is only read; the new main is only read; however it ends, the scratch server is
//! stopped and its copy removed; the output folder is whole or not there. Redis is not looked at.

mod database;
mod files;
mod scratch;
mod stranded;
mod summary;
mod tables;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use interrex_actors::{
    replication::fork::{self, Fork, RelationChanges},
    runtime::{self, RunAs},
};
use interrex_events::{Lsn, TimelineId};
use tokio::signal::unix::{SignalKind, signal};

pub use self::summary::{LeftOut, Summary, TableSummary};
use self::{
    database::{Database, Server},
    files::{FileNames, TableFiles},
    scratch::{Scratch, failed},
    stranded::Comparison,
    tables::TableName,
};
use crate::config::{Config, read_secret};

/// When reading the old main's log is given up.
const LOG_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// When a small program is given up.
const PROGRAM_LIMIT: Duration = Duration::from_secs(30);
/// Interrex's own tables: the events are in the journals, and reach the new main from there.
const OWN_SCHEMA: &str = "interrex";
/// Databases with connections, but for templates.
const DATABASES: &str =
    "SELECT datname, oid FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";

/// Answer of a salvage.
type Done<T> = Result<T, SalvageError>;

/// Why a salvage did not come to its end. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// What was asked for cannot be done, or is not clear.
    #[error("{0}")]
    Usage(String),
    /// The system, a program or a server refused.
    #[error("{0}")]
    Failed(String),
    /// Somebody asked it to end.
    #[error("interrupted")]
    Interrupted,
}

/// What to salvage.
#[derive(Debug, Clone)]
pub struct SalvageOptions {
    /// The old main's data directory, or a copy of it; no server may run on it.
    pub kept: PathBuf,
    /// Folder for the files; it must be empty or not exist.
    pub output: PathBuf,
    /// The new main as `host:port`; by default the only server of the configuration that takes writes.
    pub main: Option<String>,
    /// Only these tables; all if there are none.
    pub tables: Vec<String>,
}

/// Salvages. `tell` is told what is being done.
///
/// # Errors
/// Nothing was written, and nothing of the scratch server is left, unless the message says so.
pub async fn salvage(options: &SalvageOptions, config: &Config, tell: impl Fn(&str)) -> Done<Summary> {
    let mut signals = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        signals.push(signal(kind).map_err(failed("listening for Ctrl-C"))?);
    }
    let kept = options.kept.canonicalize().map_err(failed(&format!("--kept {}", options.kept.display())))?;
    demand_stopped(&kept)?;
    let run_as = RunAs::resolve(config.node.run_as.as_deref(), &kept);
    let run_as = run_as.map_err(|error| SalvageError::Failed(error.to_string()))?;
    let programs = programs(config, &kept)?;
    let mut scratch = Scratch::beside(&kept, run_as, &programs)?;
    let mut work = Work {
        options,
        config,
        kept: &kept,
        run_as,
        programs: &programs,
        tell: &tell,
        names: FileNames::default(),
    };
    let interrupted =
        futures_util::future::select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv())));
    let done = tokio::select! {
        done = Box::pin(work.run(&mut scratch)) => done,
        _ = interrupted => Err(SalvageError::Interrupted),
    };
    let ended = scratch.end().await;
    let summary = done?;
    ended?;
    Ok(summary)
}

fn demand_stopped(kept: &Path) -> Done<()> {
    if !kept.join("PG_VERSION").is_file() {
        let words = format!("--kept {}: it is no PostgreSQL data directory", kept.display());
        return Err(SalvageError::Usage(words));
    }
    match runtime::processes_in(kept, "postgres").first() {
        Some(pid) => Err(SalvageError::Usage(format!(
            "--kept {}: a server runs on it (process {pid}); stop it first, or name the copy that a rejoin kept",
            kept.display()
        ))),
        None => Ok(()),
    }
}

/// Folder of the programs of the version that wrote the data directory.
fn programs(config: &Config, kept: &Path) -> Done<PathBuf> {
    let version = fs::read_to_string(kept.join("PG_VERSION")).map_err(failed("reading PG_VERSION"))?;
    let version = version.trim();
    let usual = [
        format!("/usr/lib/postgresql/{version}/bin"),
        format!("/usr/pgsql-{version}/bin"),
        "/usr/bin".into(),
    ];
    let mut folders = config.postgres.bin_dir.clone().into_iter().chain(usual.map(PathBuf::from));
    let complete = |folder: &PathBuf| {
        ["postgres", "pg_waldump", "pg_controldata"].iter().all(|name| folder.join(name).is_file())
    };
    folders.find(complete).ok_or_else(|| {
        SalvageError::Failed(format!(
            "the programs of PostgreSQL {version} (postgres, pg_waldump, pg_controldata) were not found: install them, \
             or set postgres.bin_dir to their folder"
        ))
    })
}

/// One salvage.
struct Work<'a> {
    options: &'a SalvageOptions,
    config: &'a Config,
    kept: &'a Path,
    run_as: RunAs,
    programs: &'a Path,
    tell: &'a dyn Fn(&str),
    names: FileNames,
}

impl Work<'_> {
    async fn run(&mut self, scratch: &mut Scratch) -> Done<Summary> {
        let output = self.output_beside()?;
        let main = self.main().await?;
        (self.tell)(&format!("copying {}", self.kept.display()));
        scratch.copy(self.kept).await?;
        (self.tell)("starting a server on the copy that nobody else can reach");
        let prepared = self.prepared_transactions().await?;
        let kept = scratch.start(&self.config.postgres.user, prepared).await?;
        let (system_identifier, parted) = parting(&kept, &main).await?;
        (self.tell)(&format!("reading the old main's log after {}", parted.1));
        let read = fork::read((self.programs, self.run_as), self.kept, parted, LOG_LIMIT).await;
        let mut fork = read.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let databases = self.databases(&kept, &mut fork).await?;

        let mut summary = Summary {
            kept: self.kept.to_owned(),
            main: main.place(),
            system_identifier,
            fork: fork.report.clone(),
            tables_read: 0,
            tables: Vec::new(),
            left_out: Vec::new(),
            inserts: 0,
            conflicts: 0,
            output: self.options.output.clone(),
        };
        for (database, tables) in databases {
            let sessions = (kept.connect(&database).await?, main.connect(&database).await);
            stranded::tell_committed(&sessions.0, &fork.committed).await?;
            for table in tables {
                (self.tell)(&format!("comparing {}", table.in_words()));
                let main = sessions.1.as_ref().map_err(ToString::to_string);
                self.compare(&table, (&sessions.0, main), output.path(), &mut summary).await?;
            }
        }
        self.hand_over(output, &summary)?;
        Ok(summary)
    }

    /// A folder that becomes the output once it is whole.
    fn output_beside(&self) -> Done<tempfile::TempDir> {
        let output = &self.options.output;
        let taken = match fs::read_dir(output) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        };
        if taken {
            let words = format!("--output {}: it must be an empty folder, or not exist", output.display());
            return Err(SalvageError::Usage(words));
        }
        let parent =
            output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let doing = format!("making a folder beside {}", output.display());
        tempfile::Builder::new().prefix(".interrex-salvage-").tempdir_in(parent).map_err(failed(&doing))
    }

    /// The new main: the one that was named, or the only one of the configuration that takes writes.
    async fn main(&self) -> Done<Server> {
        let postgres = &self.config.postgres;
        let password = match &postgres.password_file {
            Some(file) => Some(read_secret(file, "postgres.password_file", 1).map_err(SalvageError::Failed)?),
            None => None,
        };
        let server = |place: &str| {
            let (host, port) = place.rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Some(Server::main((host, port.parse().ok()?), &postgres.user, password.clone()))
        };
        if let Some(place) = &self.options.main {
            return server(place)
                .ok_or_else(|| SalvageError::Usage(format!("--main {place}: write it as HOST:PORT")));
        }
        let own = format!("{}:{}", postgres.host, postgres.port);
        let places = std::iter::once(own).chain(self.config.peers.iter().map(|peer| peer.postgres.clone()));
        let mut mains = Vec::new();
        for server in places.filter_map(|place| server(&place)) {
            let Ok(session) = server.connect(&postgres.database).await else { continue };
            if session.value("SELECT pg_is_in_recovery()").await.is_ok_and(|answer| answer == "f") {
                mains.push(server);
            }
        }
        match (mains.pop(), mains.pop()) {
            (Some(main), None) => Ok(main),
            (None, _) => Err(SalvageError::Failed(
                "no server of the configuration takes writes: name the new main with --main HOST:PORT"
                    .to_owned(),
            )),
            (Some(one), Some(other)) => Err(SalvageError::Usage(format!(
                "both {} and {} take writes: name the new main with --main HOST:PORT",
                one.place(),
                other.place()
            ))),
        }
    }

    /// As many prepared transactions as the kept server allowed: recovery may find them.
    async fn prepared_transactions(&self) -> Done<u32> {
        let mut command = self.run_as.command(self.programs.join("pg_controldata"));
        command.arg("-D").arg(self.kept).env("LC_ALL", "C");
        let text = runtime::run(command, "pg_controldata", PROGRAM_LIMIT).await;
        let text = text.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let setting = text.lines().find_map(|line| line.strip_prefix("max_prepared_xacts setting:"));
        Ok(setting.and_then(|number| number.trim().parse().ok()).unwrap_or_default())
    }

    /// The tables to compare, database by database; and the names of the relations in the fork report.
    async fn databases(&self, kept: &Server, fork: &mut Fork) -> Done<Vec<(String, Vec<TableName>)>> {
        let mut databases = Vec::new();
        for row in kept.connect("postgres").await?.ask(DATABASES).await? {
            let [Some(database), Some(number)] = row.as_slice() else { continue };
            let session = kept.connect(database).await?;
            name_relations(&session, (database, number), fork).await?;
            databases.push((database.clone(), tables::tables(&session, database).await?));
        }
        let wanted = &self.options.tables;
        if wanted.is_empty() {
            return Ok(databases);
        }
        let known = |text: &String| {
            databases.iter().any(|(_, tables)| tables.iter().any(|table| table.is_meant_by(text)))
        };
        if let Some(unknown) = wanted.iter().find(|text| !known(text)) {
            return Err(SalvageError::Usage(format!("--table {unknown}: the kept copy has no such table")));
        }
        for (_, tables) in &mut databases {
            tables.retain(|table| wanted.iter().any(|text| table.is_meant_by(text)));
        }
        databases.retain(|(_, tables)| !tables.is_empty());
        Ok(databases)
    }

    async fn compare(
        &mut self,
        table: &TableName,
        (kept, main): (&Database, Result<&Database, String>),
        folder: &Path,
        summary: &mut Summary,
    ) -> Done<()> {
        summary.tables_read += 1;
        let columns = tables::columns(kept, table).await?;
        let reason = match &main {
            _ if table.schema == OWN_SCHEMA => {
                Some("it is Interrex's own, and the journals hold it".to_owned())
            }
            _ if columns.iter().all(|column| column.key.is_none()) => {
                Some("it has no primary key".to_owned())
            }
            Err(words) => Some(format!("the new main does not let us in ({words})")),
            Ok(main) => match tables::columns(main, table).await? {
                there if there == columns => None,
                there if there.is_empty() => Some("the new main has no such table".to_owned()),
                _ => Some("its columns or its key are others on the new main".to_owned()),
            },
        };
        match (reason, main) {
            (None, Ok(main)) => {
                let mut files = TableFiles::new(folder, self.names.of(table), table, &columns);
                let found = Comparison { table, columns: &columns, kept, main }.write(&mut files).await?;
                summary.inserts += found.inserts;
                summary.conflicts += found.conflicts;
                if found.rows > 0 {
                    summary.tables.push(found);
                }
            }
            (reason, _) => {
                let rows = stranded::count(kept, table).await?;
                let reason = reason.unwrap_or_default();
                summary.left_out.push(LeftOut { table: table.in_words(), reason, rows });
            }
        }
        Ok(())
    }

    /// The output is whole: it gets its name.
    fn hand_over(&self, output: tempfile::TempDir, summary: &Summary) -> Done<()> {
        let json = serde_json::to_string_pretty(summary)
            .map_err(|error| SalvageError::Failed(format!("writing summary.json: {error}")))?;
        for (name, text) in [("README.txt", summary.readme()), ("summary.json", json + "\n")] {
            let doing = format!("writing {name}");
            let mut file = files::create(&output.path().join(name)).map_err(failed(&doing))?;
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&doing))?;
        }
        let doing = format!("naming the output {}", self.options.output.display());
        fs::rename(output.path(), &self.options.output).map_err(failed(&doing))?;
        // under its new name it is nobody's to remove
        let _ = output.keep();
        Ok(())
    }
}

/// Both servers' system identifier, and where their ways parted: the kept one's timeline, and its end on the other.
async fn parting(kept: &Server, main: &Server) -> Done<(String, (TimelineId, Lsn))> {
    const SYSTEM: &str = "SELECT system_identifier FROM pg_control_system()";
    const TIMELINE: &str = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
    let (kept, main) = (kept.connect("postgres").await?, main.connect("postgres").await?);
    if main.value("SELECT pg_is_in_recovery()").await? != "f" {
        return Err(SalvageError::Usage(
            "the server named as new main is a standby: it takes no writes".to_owned(),
        ));
    }
    let (ours, theirs) = (kept.value(SYSTEM).await?, main.value(SYSTEM).await?);
    if ours != theirs {
        return Err(SalvageError::Usage(format!(
            "the kept copy belongs to another system ({ours}) than the new main ({theirs}): they were never one"
        )));
    }
    let number = |text: &str| {
        u32::from_str_radix(text, 16).map_err(|_| SalvageError::Failed(format!("`{text}` is no timeline")))
    };
    let newest = main.value(TIMELINE).await?;
    let timeline = number(&kept.value(TIMELINE).await?)?;
    if number(&newest)? == timeline {
        return Err(SalvageError::Usage(format!(
            "the kept copy and the new main are both on timeline {timeline}: their ways did not part"
        )));
    }
    let history = main.value(&format!("SELECT pg_read_file('pg_wal/{newest}.history')")).await?;
    let switchpoint = end_of_timeline(&history, timeline).ok_or_else(|| {
        SalvageError::Usage(format!(
            "the new main's history does not know timeline {timeline} of the kept copy: it does not descend from it"
        ))
    })?;
    Ok((ours, (TimelineId(timeline), switchpoint)))
}

/// Where a timeline ends, by a history file: lines of number, position and reason.
fn end_of_timeline(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()?.parse() == Ok(timeline)).then(|| words.next()?.parse().ok())?
    })
}

async fn name_relations(session: &Database, (database, number): (&str, &str), fork: &mut Fork) -> Done<()> {
    let Ok(number) = number.parse::<u32>() else { return Ok(()) };
    let is_here = |relation: &RelationChanges| relation.database == number;
    let files: Vec<String> = fork
        .report
        .relations
        .iter()
        .filter(|relation| is_here(relation))
        .map(|relation| relation.file.to_string())
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "SELECT pg_relation_filenode(c.oid), n.nspname || '.' || c.relname FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE pg_relation_filenode(c.oid) = ANY ('{{{}}}'::oid[])",
        files.join(",")
    );
    let mut names = std::collections::HashMap::new();
    for row in session.ask(&sql).await? {
        if let [Some(file), Some(name)] = row.as_slice() {
            names.insert(file.clone(), format!("{database}.{name}"));
        }
    }
    fork.report.name_relations(|relation| {
        let name = is_here(relation).then(|| names.get(&relation.file.to_string()).cloned()).flatten();
        name.or_else(|| relation.name.clone())
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_file_tells_where_each_timeline_ended() {
        let history =
            "# a comment\n1\t0/3000060\tno recovery target specified\n\n2\t0/50000A0\tno recovery target\n";
        assert_eq!(end_of_timeline(history, 1), Some(Lsn(0x0300_0060)));
        assert_eq!(end_of_timeline(history, 2), Some(Lsn(0x0500_00A0)));
        assert_eq!(end_of_timeline(history, 3), None);
    }
}
