//! The tables to which files belong, according to another server.
//!
//! A file's number has a meaning only within its database, so each database is asked with its own login: main's other session may
//! be busy with a CHECKPOINT for minutes.

use std::{cell::RefCell, collections::BTreeMap, time::Duration};

use futures_util::{StreamExt as _, stream};
use interrex_actors::ports::{FileNode, Held, HeldOnMain, NoReply};
use interrex_events::{
    cluster_events::{self, IS_OWN_TABLE},
    postgres::{self, Row, shown},
};
use tokio_postgres::Client;

use super::{LocalPostgres, PostgresSettings};
use crate::postgres::sessions::{READS, connect};

/// Time limit for all queries together: a rejoin waits for them.
pub(super) const LIMIT: Duration = Duration::from_secs(1);
/// The most databases that are asked at the same time: each takes a login.
const AT_ONCE: usize = 4;

/// What files contain on a server. Answers that did not come in time are missing.
pub(super) async fn held_in(server: &LocalPostgres, files: &[FileNode]) -> HeldOnMain {
    let held = RefCell::new(HeldOnMain::default());
    let because = match tokio::time::timeout(LIMIT, ask(server, files, &held)).await {
        Ok(Ok(())) => None,
        Ok(Err(words)) => Some(words),
        Err(_) => Some(format!("no answer within {LIMIT:?}")),
    };
    let mut held = held.into_inner();
    held.not_asked = held.not_asked.or(because);
    held
}

async fn ask(server: &LocalPostgres, files: &[FileNode], held: &RefCell<HeldOnMain>) -> Result<(), String> {
    let mut of_database: BTreeMap<u32, Vec<FileNode>> = BTreeMap::new();
    for file in files {
        of_database.entry(file.database).or_default().push(*file);
    }
    if of_database.is_empty() {
        return Ok(());
    }
    let settings = &server.settings;
    let first = server.client().await.map_err(|error| error.to_string())?;
    let names = database_names(&first, of_database.keys()).await?;
    let asking = of_database.into_iter().map(|(number, files)| {
        let (first, name) = (&first, names.get(&number));
        async move {
            // shared files have no rows of users; a database that does not exist has no rows at all
            let Some(name) = name else {
                let what = if number == 0 { Held::NoTableOfUsers } else { Held::Nothing };
                held.borrow_mut().found.extend(files.into_iter().map(|file| (file, what.clone())));
                return;
            };
            let Name { shown: name, can_be_entered } = name;
            let told = if *name == settings.database {
                tables(first, name, &files).await
            } else if !can_be_entered {
                Err("its name is not UTF-8, so that no session to it is possible".to_owned())
            } else {
                match log_in(settings, name).await {
                    Ok(session) => tables(&session, name, &files).await,
                    Err(refusal) => Err(refusal.to_string()),
                }
            };
            match told {
                Ok(found) => held.borrow_mut().found.extend(found),
                Err(words) => held.borrow_mut().not_asked = Some(format!("database {name}: {words}")),
            }
        }
    });
    stream::iter(asking).for_each_concurrent(AT_ONCE, |asked| asked).await;
    Ok(())
}

async fn log_in(settings: &PostgresSettings, database: &str) -> Result<Client, NoReply> {
    let login = (settings.user.as_str(), settings.password.as_deref());
    connect(READS, (&settings.host, settings.port), login, database).await
}

async fn rows(session: &Client, sql: &str) -> Result<Vec<Row>, String> {
    postgres::rows(session, sql).await.map_err(|error| cluster_events::in_words(&error))
}

/// A database's name.
struct Name {
    shown: String,
    can_be_entered: bool,
}

async fn database_names(
    session: &Client,
    numbers: impl Iterator<Item = &u32>,
) -> Result<BTreeMap<u32, Name>, String> {
    let (name, numbers) = (shown("datname"), array(numbers));
    let sql = format!("SELECT oid, {name}, {name} = datname FROM pg_database WHERE oid = ANY ({numbers})");
    let found = rows(session, &sql).await?;
    let database = |row: &Row| {
        let name = Name { shown: row.get(1)?.to_owned(), can_be_entered: row.get(2) == Some("t") };
        Some((row.parsed(0)?, name))
    };
    Ok(found.iter().filter_map(database).collect())
}

/// All files of one database in one query.
async fn tables(
    session: &Client,
    database: &str,
    files: &[FileNode],
) -> Result<Vec<(FileNode, Held)>, String> {
    let sql = format!(
        "SELECT f.place, {name}, \
                c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND NOT {IS_OWN_TABLE} \
         FROM unnest({}, {}) WITH ORDINALITY AS f (tablespace, file, place) \
         JOIN pg_class c ON c.oid = pg_filenode_relation(f.tablespace, f.file) \
         JOIN pg_namespace n ON n.oid = c.relnamespace",
        array(files.iter().map(|file| &file.tablespace)),
        array(files.iter().map(|file| &file.file)),
        name = shown("(n.nspname || '.' || c.relname)"),
    );
    let mut held: Vec<_> = files.iter().map(|file| (*file, Held::Nothing)).collect();
    for row in rows(session, &sql).await? {
        // places are counted from one
        let place = row.parsed::<usize>(0).and_then(|place| place.checked_sub(1));
        let (Some(place), Some(name)) = (place, row.get(1)) else { continue };
        let table = || Held::Table { database: database.to_owned(), name: name.to_owned() };
        if let Some((_, what)) = held.get_mut(place) {
            *what = if row.get(2) == Some("t") { table() } else { Held::NoTableOfUsers };
        }
    }
    Ok(held)
}

fn array<'a>(numbers: impl Iterator<Item = &'a u32>) -> String {
    let numbers: Vec<String> = numbers.map(u32::to_string).collect();
    format!("'{{{}}}'::oid[]", numbers.join(","))
}
