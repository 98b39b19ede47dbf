//! PostgreSQL's part: the rows of the transactions of the fork report, compared with the new main.

mod database;
mod files;
mod parting;
mod server;
mod stranded;
mod tables;

use std::{
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use interrex_actors::{
    env::{Env as _, SystemEnv},
    ports::RelationChanges,
};
use interrex_adapters::{
    postgres::{
        LocalPostgres, PostgresSettings,
        fork::{self, Fork},
    },
    runtime::{self, Postmaster, Processes, RunAs, Runtime},
};
use interrex_events::Address;

use self::{
    database::{Database, DatabaseError, Name, Server, Told, name_in_hex},
    files::{FileNames, TableFiles},
    parting::Parting,
    server::ScratchServer,
    stranded::{Comparison, TableError},
    tables::{Column, LeftOutFor, TableName},
};
use super::{
    Done, LargeObjects, LeftOut, PostgresSummary, SalvageError, SalvageOptions,
    scratch::{Scratch, failed},
};
use crate::{
    config::{Config, read_secret},
    daemon::postgres_settings,
};

/// Time limit for reading the old main's WAL.
const LOG_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// Databases that allow connections, except templates.
const DATABASES: &str = "FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname";

/// Name of the data directory in the folder that a rejoin keeps it in.
const PGDATA: &str = "pgdata";

/// The kept data directory, and its scratch copy.
pub(super) struct Kept {
    folder: PathBuf,
    programs: PathBuf,
    pub(super) scratch: Scratch,
}

impl Kept {
    /// Checks that it can be read. Nothing is started or copied yet.
    pub(super) fn open(folder: &Path, config: &Config) -> Done<Self> {
        let doing = format!("--kept {}", folder.display());
        let folder = data_dir_in(folder).canonicalize().map_err(failed(&doing))?;
        demand_stopped(&folder)?;
        let run_as = RunAs::resolve(config.node.run_as.as_deref(), &folder);
        let run_as = run_as.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let programs = programs(config, &folder)?;
        let scratch = Scratch::beside(&folder, run_as)?;
        Ok(Self { folder, programs, scratch })
    }

    /// Notes that an output folder has all its stranded rows.
    pub(super) fn note_salvaged(&self, output: &Path) -> std::io::Result<()> {
        let now = SystemEnv.moment().wall;
        let output = std::path::absolute(output)?;
        interrex_adapters::postgres::note_salvaged(&self.folder, &output, now, self.scratch.run_as())
            .map(drop)
    }

    /// The folder in which a rejoin, or its script, leaves checksums.
    pub(super) fn checksums(&self) -> Option<&Path> {
        self.folder.parent().filter(|_| self.folder.ends_with(PGDATA))
    }
}

/// A rejoin keeps the data directory as `pgdata` in the folder that it names.
fn data_dir_in(folder: &Path) -> PathBuf {
    let within = folder.join(PGDATA);
    let is_around = !folder.join("PG_VERSION").exists() && within.join("PG_VERSION").is_file();
    if is_around { within } else { folder.to_owned() }
}

fn demand_stopped(kept: &Path) -> Done<()> {
    let found = fs::metadata(kept.join("PG_VERSION"));
    if let Err(error) = &found
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        let doing = format!("--kept {}", kept.display());
        return Err(SalvageError::Failed(format!(
            "{doing}: the folder cannot be read: {error}; run interrex salvage as root, or as its owner"
        )));
    }
    if !found.is_ok_and(|found| found.is_file()) {
        let words = format!(
            "--kept {}: not a PostgreSQL data directory, and there is none in it named {PGDATA}; name the folder that the rejoin \
             reported",
            kept.display()
        );
        return Err(SalvageError::Usage(words));
    }
    match runtime::processes_in(kept, "postgres").first() {
        Some(pid) => Err(SalvageError::Usage(format!(
            "--kept {}: a server runs on this directory (process {pid}); stop the server first, or name the copy that a rejoin \
             kept",
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

    /// Writes the rows that only the kept copy has into the folder.
    pub(super) async fn compare_with(
        &mut self,
        main: &Server,
        kept: &mut Kept,
        output: &Path,
    ) -> Done<PostgresSummary> {
        let Kept { folder, programs, scratch } = kept;
        let run_as = scratch.run_as();
        let runtime: Rc<dyn Runtime> = Rc::new(Processes::new(run_as, "/dev/null", Postmaster::of(folder)));
        let settings = postgres_settings(self.config, programs.clone(), runtime.clone(), self.password()?);
        let stopped = LocalPostgres::new(PostgresSettings { data_dir: folder.clone(), ..settings });
        let parting = Parting::find(&stopped, &main.address).await?;
        let mut server = ScratchServer { scratch, programs };
        (self.tell)(&format!("copying {}", folder.display()));
        server.copy(folder).await?;
        (self.tell)("starting a server on the copy, without a network");
        let scratch = server.start(&self.config.postgres.user, parting.prepared_transactions).await?;
        (self.tell)(&format!("reading the old main's WAL after {}", parting.switchpoint));
        let parted = (parting.timeline, parting.switchpoint);
        let read = fork::read((&*runtime, programs), folder, parted, LOG_LIMIT).await;
        let mut fork = read.map_err(|error| SalvageError::Failed(error.to_string()))?;
        let mut summary = PostgresSummary {
            kept: folder.clone(),
            main: main.place(),
            system_identifier: parting.system_id.to_string(),
            fork: fork.report.clone(),
            tables_read: 0,
            tables: Vec::new(),
            left_out: Vec::new(),
            large_objects: Vec::new(),
            inserts: 0,
            conflicts: 0,
        };
        let databases = self.databases(&scratch, &mut fork, &mut summary).await?;
        summary.fork = fork.report.clone();
        for (database, tables) in databases {
            self.compare_database((&scratch, main), (&database, &tables), &fork, output, &mut summary).await;
        }
        Ok(summary)
    }

    /// Compares one database. An error in it, or in one of its tables, does not stop the others.
    async fn compare_database(
        &mut self,
        (scratch, main): (&Server, &Server),
        (database, tables): (&str, &[TableName]),
        fork: &Fork,
        output: &Path,
        summary: &mut PostgresSummary,
    ) {
        let mut sessions = Sessions::open(scratch, main, database, fork).await;
        for (place, table) in tables.iter().enumerate() {
            if sessions.as_ref().is_ok_and(Sessions::is_over) {
                sessions = Sessions::open(scratch, main, database, fork).await;
            }
            let open = match &sessions {
                Ok(open) => open,
                Err(error) => {
                    let trouble = |table: &TableName| LeftOut::trouble(table.in_words(), error);
                    summary.left_out.extend(tables[place..].iter().map(trouble));
                    return;
                }
            };
            (self.tell)(&format!("comparing {}", table.in_words()));
            summary.tables_read += 1;
            if let Err(error) = self.compare(table, open, output, summary).await {
                summary.left_out.push(LeftOut::trouble(table.in_words(), error));
                // its open transaction is rolled back; a lost session is opened again
                let _ = open.kept.ask("ROLLBACK").await;
            }
        }
        if let Ok(open) = &sessions
            && self.options.tables.is_empty()
        {
            match stranded::large_objects(&open.kept).await {
                Ok((0, _)) => {}
                Ok((objects, examples)) => {
                    let database = database.to_owned();
                    summary.large_objects.push(LargeObjects { database, objects, examples });
                }
                Err(error) => {
                    summary.left_out.push(LeftOut::trouble(format!("{database}.pg_largeobject"), error));
                }
            }
        }
    }

    /// The new main: the named server, or the only server of the configuration that takes writes.
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

    fn password(&self) -> Done<Option<interrex_adapters::secret::Secret>> {
        let Some(file) = &self.config.postgres.password_file else { return Ok(None) };
        read_secret(file, "postgres.password_file", 1).map(Some).map_err(SalvageError::Failed)
    }

    /// The tables to compare, by database; also names the relations in the fork report. An error in one database is reported in the
    /// summary.
    async fn databases(
        &self,
        kept: &Server,
        fork: &mut Fork,
        summary: &mut PostgresSummary,
    ) -> Done<Vec<(String, Vec<TableName>)>> {
        let mut databases = Vec::new();
        let session = kept.connect("postgres").await?;
        let numbers = session.ask(&format!("SELECT oid {DATABASES}")).await?;
        let names = session.names(&format!("SELECT {} {DATABASES}", name_in_hex("datname"))).await?;
        for (name, number) in names.into_iter().flatten().zip(numbers.into_iter().flatten().flatten()) {
            let mut left_out = |reason: &dyn std::fmt::Display| {
                summary.left_out.push(LeftOut::trouble(format!("{}.*", name.shown()), reason));
            };
            let Name::Text(database) = &name else {
                left_out(&"the name of the database is not UTF-8, so that no connection to it is possible");
                continue;
            };
            match self.tables_of(kept, (database, &number), fork).await {
                Ok(tables) => databases.push((database.clone(), tables)),
                Err(error) => left_out(&error),
            }
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

    async fn tables_of(
        &self,
        kept: &Server,
        (database, number): (&str, &str),
        fork: &mut Fork,
    ) -> Result<Vec<TableName>, DatabaseError> {
        let session = kept.connect(database).await?;
        name_relations(&session, (database, number), fork).await?;
        tables::tables(&session, database).await
    }

    async fn compare(
        &mut self,
        table: &TableName,
        sessions: &Sessions,
        folder: &Path,
        summary: &mut PostgresSummary,
    ) -> Result<(), TableError> {
        let Sessions { kept, main } = sessions;
        let mut left_out = |reason: &str, rows, files| {
            let (table, reason) = (table.in_words(), reason.to_owned());
            summary.left_out.push(LeftOut { table, reason, rows, files, failed: false });
        };
        match table.left_out {
            Some(LeftOutFor::Own) => {
                let rows = stranded::count(kept, table).await?;
                left_out(
                    "it is Interrex's own table, and the journals hold its events",
                    Some(rows),
                    Vec::new(),
                );
                return Ok(());
            }
            Some(LeftOutFor::Unlogged) => {
                left_out(
                    "it is unlogged: its rows are not in the WAL, and a crash empties it",
                    None,
                    Vec::new(),
                );
                return Ok(());
            }
            Some(LeftOutFor::ForeignCode) => {
                summary.left_out.push(LeftOut::trouble(table.in_words(), tables::FOREIGN_CODE));
                return Ok(());
            }
            Some(LeftOutFor::Name) => {
                let reason = "its name is not UTF-8: start a server on a copy of the kept directory, rename the table there, stop \
                              the server, and salvage that copy";
                summary.left_out.push(LeftOut::trouble(table.in_words(), reason));
                return Ok(());
            }
            None => {}
        }
        let columns = tables::columns(kept, table).await?;
        let reason = match main {
            _ if columns.iter().all(|column| column.key.is_none()) => {
                Some("it has no primary key".to_owned())
            }
            _ if columns.iter().any(|column| column.key.is_some() && column.plain_type.is_none()) => {
                let why = "its key has a composite type, whose constraints would run their owner's code as a superuser";
                Some(why.to_owned())
            }
            Err(words) => Some(format!("the new main refused the connection ({words})")),
            Ok(main) => match tables::columns(main, table).await? {
                there if there == columns => None,
                there if there.is_empty() => Some("the new main has no such table".to_owned()),
                _ => Some("its columns or its key differ on the new main".to_owned()),
            },
        };
        let work = TableWork { name: self.names.of(table), table, columns: &columns, kept, folder };
        match (reason, main) {
            (None, Ok(main)) => {
                let found = work.told(async |comparison, files| comparison.write(main, files).await).await?;
                summary.inserts += found.inserts;
                summary.conflicts += found.conflicts;
                if found.rows > 0 {
                    summary.tables.push(found);
                }
            }
            (reason, _) => {
                let all = work.told(async |comparison, files| comparison.write_all(files).await).await?;
                left_out(&reason.unwrap_or_default(), Some(all.0), all.1);
            }
        }
        Ok(())
    }
}

/// A session on each server, in the same database.
struct Sessions {
    kept: Database,
    /// Or why there is no session.
    main: Result<Database, String>,
}

impl Sessions {
    async fn open(
        scratch: &Server,
        main: &Server,
        database: &str,
        fork: &Fork,
    ) -> Result<Self, DatabaseError> {
        let kept = scratch.connect(database).await?;
        stranded::tell_committed(&kept, &fork.committed).await?;
        let main = main.connect(database).await.map_err(|error| error.to_string());
        Ok(Self { kept, main })
    }

    /// Whether a session was lost.
    fn is_over(&self) -> bool {
        self.kept.is_over() || self.main.as_ref().is_ok_and(Database::is_over)
    }
}

/// What is needed to write a table's files.
struct TableWork<'a> {
    name: String,
    table: &'a TableName,
    columns: &'a [Column],
    kept: &'a Database,
    folder: &'a Path,
}

impl TableWork<'_> {
    /// Writes the files with all values as text. If a value is not valid text, writes them again with such values as bytes. A table
    /// that fails leaves no file.
    async fn told<T>(
        &self,
        write: impl AsyncFn(&Comparison<'_>, &mut TableFiles<'_>) -> Result<T, TableError>,
    ) -> Result<T, TableError> {
        let mut told = Told::Text;
        loop {
            let Self { table, columns, kept, .. } = *self;
            let mut files = TableFiles::new(self.folder, self.name.clone(), (table, columns), told.clone());
            let error = match write(&Comparison { table, columns, kept, told: &told }, &mut files).await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            files.discard();
            if told != Told::Text || !error.is_about_encoding() {
                return Err(error);
            }
            kept.ask("ROLLBACK").await?;
            told = Told::Bytes(kept.value("SELECT getdatabaseencoding()").await?);
        }
    }
}

async fn name_relations(
    session: &Database,
    (database, number): (&str, &str),
    fork: &mut Fork,
) -> Result<(), DatabaseError> {
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
        "SELECT encode(pg_relation_filenode(c.oid)::text::bytea, 'hex'), {}, {} FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE pg_relation_filenode(c.oid) = ANY ('{{{}}}'::oid[])",
        name_in_hex("n.nspname"),
        name_in_hex("c.relname"),
        files.join(",")
    );
    let mut names = std::collections::HashMap::new();
    for row in session.names(&sql).await? {
        if let [file, schema, name] = row.as_slice() {
            names.insert(file.shown().to_owned(), format!("{database}.{}.{}", schema.shown(), name.shown()));
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
    fn the_folder_that_a_rejoin_names_will_do_and_so_will_the_data_directory_in_it() {
        let kept = tempfile::tempdir().unwrap();
        let data_dir = kept.path().join(PGDATA);
        assert_eq!(data_dir_in(kept.path()), kept.path());
        assert!(demand_stopped(kept.path()).unwrap_err().to_string().contains("none in it named pgdata"));
        fs::create_dir(&data_dir).unwrap();
        fs::write(data_dir.join("PG_VERSION"), "15").unwrap();
        assert_eq!(data_dir_in(kept.path()), data_dir);
        assert_eq!(data_dir_in(&data_dir), data_dir);
        // a data directory stays what it is, whatever lies in it
        fs::write(kept.path().join("PG_VERSION"), "15").unwrap();
        assert_eq!(data_dir_in(kept.path()), kept.path());
    }
}
