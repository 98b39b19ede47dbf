//! PostgreSQL's part: the rows by the ids of the fork report, looked up on the new main.

mod database;
mod files;
mod parting;
mod server;
mod stranded;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use interrex_actors::{
    replication::{
        fork::{self, Fork, RelationChanges},
        postgres::{LocalPostgres, PostgresSettings},
    },
    runtime::{self, RunAs},
};
use interrex_events::Address;

use self::{
    database::{Database, Server},
    files::{FileNames, TableFiles},
    parting::Parting,
    server::ScratchServer,
    stranded::Comparison,
    tables::TableName,
};
use super::{
    Done, LeftOut, PostgresSummary, SalvageError, SalvageOptions,
    scratch::{Scratch, failed},
};
use crate::{
    config::{Config, read_secret},
    daemon::postgres_settings,
};

/// When reading the old main's log is given up.
const LOG_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Databases with connections, but for templates.
const DATABASES: &str =
    "SELECT datname, oid FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";

/// The data directory that was kept, and where it is read.
pub(super) struct Kept {
    folder: PathBuf,
    programs: PathBuf,
    pub(super) scratch: Scratch,
}

impl Kept {
    /// Looks whether it can be read. Nothing runs or is copied yet.
    pub(super) fn open(folder: &Path, config: &Config) -> Done<Self> {
        let doing = format!("--kept {}", folder.display());
        let folder = folder.canonicalize().map_err(failed(&doing))?;
        demand_stopped(&folder)?;
        let run_as = RunAs::resolve(config.node.run_as.as_deref(), &folder);
        let run_as = run_as.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let programs = programs(config, &folder)?;
        let scratch = Scratch::beside(&folder, run_as)?;
        Ok(Self { folder, programs, scratch })
    }

    /// The folder where a rejoin, or its script, leaves checksums of it.
    pub(super) fn checksums(&self) -> Option<&Path> {
        self.folder.parent().filter(|_| self.folder.ends_with("pgdata"))
    }
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

/// The comparison with a new main.
pub(super) struct Work<'a> {
    options: &'a SalvageOptions,
    config: &'a Config,
    tell: &'a dyn Fn(&str),
    names: FileNames,
}

impl<'a> Work<'a> {
    pub(super) fn new(options: &'a SalvageOptions, config: &'a Config, tell: &'a dyn Fn(&str)) -> Self {
        Self { options, config, tell, names: FileNames::default() }
    }

    /// Writes what only the kept copy has into the folder.
    pub(super) async fn compare_with(
        &mut self,
        main: &Server,
        kept: &mut Kept,
        output: &Path,
    ) -> Done<PostgresSummary> {
        let Kept { folder, programs, scratch } = kept;
        let run_as = scratch.run_as();
        let settings = postgres_settings(self.config, programs.clone(), run_as, self.password()?);
        let stopped = LocalPostgres::new(PostgresSettings { data_dir: folder.clone(), ..settings });
        let parting = Parting::find(&stopped, &main.address).await?;
        let mut server = ScratchServer { scratch, programs };
        (self.tell)(&format!("copying {}", folder.display()));
        server.copy(folder).await?;
        (self.tell)("starting a server on the copy that nobody else can reach");
        let scratch = server.start(&self.config.postgres.user, parting.prepared_transactions).await?;
        (self.tell)(&format!("reading the old main's log after {}", parting.switchpoint));
        let parted = (parting.timeline, parting.switchpoint);
        let read = fork::read((programs, run_as), folder, parted, LOG_LIMIT).await;
        let mut fork = read.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let databases = self.databases(&scratch, &mut fork).await?;

        let mut summary = PostgresSummary {
            kept: folder.clone(),
            main: main.place(),
            system_identifier: parting.system_id.to_string(),
            fork: fork.report.clone(),
            tables_read: 0,
            tables: Vec::new(),
            left_out: Vec::new(),
            inserts: 0,
            conflicts: 0,
        };
        for (database, tables) in databases {
            let sessions = (scratch.connect(&database).await?, main.connect(&database).await);
            stranded::tell_committed(&sessions.0, &fork.committed).await?;
            for table in tables {
                (self.tell)(&format!("comparing {}", table.in_words()));
                let main = sessions.1.as_ref().map_err(ToString::to_string);
                self.compare(&table, (&sessions.0, main), output, &mut summary).await?;
            }
        }
        Ok(summary)
    }

    /// The new main: the one that was named, or the only one of the configuration that takes writes.
    pub(super) async fn main(&self) -> Done<Server> {
        let postgres = &self.config.postgres;
        let password = self.password()?;
        let server = |place: Address| Server::main(place, &postgres.user, password.clone());
        if let Some(place) = &self.options.main {
            return Ok(server(place.clone()));
        }
        let own = Address::new(&postgres.host, postgres.port);
        let places = std::iter::once(own).chain(self.config.peers.iter().map(|peer| peer.postgres.clone()));
        let mut mains = Vec::new();
        for server in places.map(server) {
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

    fn password(&self) -> Done<Option<interrex_actors::secret::Secret>> {
        let Some(file) = &self.config.postgres.password_file else { return Ok(None) };
        read_secret(file, "postgres.password_file", 1).map(Some).map_err(SalvageError::Failed)
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
        summary: &mut PostgresSummary,
    ) -> Done<()> {
        summary.tables_read += 1;
        let columns = tables::columns(kept, table).await?;
        let reason = match &main {
            _ if table.is_own => Some("it is Interrex's own, and the journals hold it".to_owned()),
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
