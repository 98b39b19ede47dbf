//! Redis' part: every key of the kept folder, compared with the new main's Redis.
//!
//! A key that expires meanwhile also expires on the scratch server, and is counted there: its time is over on both sides.
//! The scratch server loads all kept keys into memory.

mod comparison;
mod files;
mod server;
mod session;
mod source;
mod value;

use std::path::{Path, PathBuf};

use interrex_adapters::runtime::{self, RunAs};
use interrex_events::Address;

use self::{comparison::Comparison, files::DatabaseFiles, session::Server, source::Source};
use super::{
    DatabaseSummary, Done, LeftOutKeys, RedisSummary, SalvageError,
    scratch::{Scratch, failed},
};
use crate::config::{Config, read_secret};

/// Name of the server's program.
const PROGRAM: &str = "redis-server";

/// The kept folder, and its scratch copy.
pub(super) struct Kept {
    folder: PathBuf,
    source: Source,
    pub(super) scratch: Scratch,
}

impl Kept {
    /// Checks that it can be read. Nothing is started or copied yet.
    pub(super) fn open(folder: &Path) -> Done<Self> {
        let named = format!("--kept-redis {}", folder.display());
        let folder = folder.canonicalize().map_err(failed(&named))?;
        let source = Source::of(&folder).map_err(failed(&named))?.map_err(SalvageError::Usage)?;
        if let Some(pid) = runtime::processes_in(&folder, PROGRAM).first() {
            return Err(SalvageError::Usage(format!(
                "{named}: a Redis runs on this folder (process {pid}); stop Redis first, or name the copy that a rejoin kept"
            )));
        }
        let run_as = RunAs::owner_of(&folder).map_err(failed(&named))?;
        let scratch = Scratch::beside(outermost(&folder), run_as)?;
        Ok(Self { folder, source, scratch })
    }

    /// The folder in which a rejoin left checksums, if a rejoin made the kept copy.
    pub(super) fn checksums(&self) -> &Path {
        &self.folder
    }
}

/// Rejoins count the kept copies in their folder and remove the oldest: a scratch copy must be outside it.
fn outermost(folder: &Path) -> &Path {
    let kept_copies =
        |parent: &&Path| parent.extension().is_some_and(|extension| extension == "kept") && parent.is_dir();
    folder.parent().filter(kept_copies).unwrap_or(folder)
}

/// The new main's Redis: the named one, or the only Redis of the configuration that is a master.
pub(super) async fn main(named: Option<&Address>, config: &Config) -> Done<Server> {
    let own = config.redis.as_ref();
    let password = match own.and_then(|redis| redis.password_file.as_ref()) {
        Some(file) => Some(read_secret(file, "redis.password_file", 1).map_err(SalvageError::Failed)?),
        None => None,
    };
    let server = |place: Address| Server::main(place, password.clone());
    if let Some(place) = named {
        let server = server(place.clone());
        return match is_master(&server).await? {
            true => Ok(server),
            false => Err(SalvageError::Usage(format!(
                "--main-redis {place}: this Redis is a replica; name the new main's Redis, from which it replicates"
            ))),
        };
    }
    let own = own.map(|redis| Address::new(&redis.host, redis.port));
    let places = own.into_iter().chain(config.peers.iter().filter_map(|peer| peer.redis.clone()));
    let (mut masters, mut others) = (Vec::new(), Vec::new());
    for server in places.map(server) {
        match is_master(&server).await {
            Ok(true) => masters.push(server),
            Ok(false) => others.push(format!("{} is a replica", server.place())),
            Err(error) => others.push(error.to_string()),
        }
    }
    match (masters.pop(), masters.pop()) {
        (Some(main), None) => Ok(main),
        (None, _) => Err(SalvageError::Failed(format!(
            "no Redis of the configuration is a master ({}): name the new main's Redis with --main-redis HOST:PORT",
            if others.is_empty() { "the configuration names no Redis".to_owned() } else { others.join("; ") }
        ))),
        (Some(one), Some(other)) => Err(SalvageError::Usage(format!(
            "both {} and {} are masters: name the new main's Redis with --main-redis HOST:PORT",
            one.place(),
            other.place()
        ))),
    }
}

async fn is_master(server: &Server) -> Done<bool> {
    let replication = server.connect().await?.info("replication").await?;
    Ok(replication.field("role") == Some("master"))
}

/// Writes the keys that only the kept copy has into the folder.
pub(super) async fn compare(
    kept: &mut Kept,
    main: &Server,
    config: &Config,
    tell: &dyn Fn(&str),
    output: &Path,
) -> Done<RedisSummary> {
    let Kept { folder, source, scratch } = kept;
    let program = config.redis.as_ref().and_then(|redis| redis.program.clone());
    let program = program.unwrap_or_else(|| PROGRAM.into());
    tell(&format!("copying {} of {}", source.name(), folder.display()));
    scratch.copy_only(folder, source.name()).await?;
    tell("starting a Redis on the copy, without a network");
    let server = server::start(scratch, &program, source, tell).await?;
    let (kept, main_session) = (server.connect().await?, main.connect().await?);
    let mut summary = RedisSummary {
        kept: folder.clone(),
        source: source.name().to_owned(),
        main: main.place(),
        databases: Vec::new(),
        left_out: Vec::new(),
        keys: 0,
        missing: 0,
        conflicts: 0,
        other_expiry: 0,
        expired: 0,
    };
    for (database, keys) in kept.info("keyspace").await?.databases() {
        tell(&format!("comparing database {database} of Redis"));
        kept.select(database).await?;
        match main_session.select(database).await {
            Err(error) if error.is_about_too_few_databases() => {
                let reason = format!("the new main has no such database ({error})");
                summary.left_out.push(LeftOutKeys { database, reason, keys, example: None });
                continue;
            }
            selected => selected?,
        }
        let files = DatabaseFiles::new(output, database);
        let (found, left_out) = Comparison::new(&kept, &main_session, files, database).run(tell).await?;
        summary.add(found);
        summary.left_out.extend(left_out);
    }
    summary.expired = kept.expired().await?;
    Ok(summary)
}

impl RedisSummary {
    fn add(&mut self, found: DatabaseSummary) {
        self.keys += found.keys;
        self.missing += found.missing;
        self.conflicts += found.conflicts;
        self.other_expiry += found.other_expiry;
        self.databases.push(found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scratch_copy_lies_outside_of_the_folder_of_kept_copies() {
        let folder = tempfile::tempdir().unwrap();
        let copies = folder.path().join("redis.kept");
        std::fs::create_dir_all(copies.join("20261123T100000Z")).unwrap();
        assert_eq!(outermost(&copies.join("20261123T100000Z")), copies);
        assert_eq!(outermost(&folder.path().join("redis")), folder.path().join("redis"));
    }
}
