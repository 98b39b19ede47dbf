//! PostgreSQL on the scratch copy of a data directory. Only this salvage can reach it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use super::{
    super::scratch::{LOOK, Scratch, failed},
    Done, SalvageError,
    database::Server,
};

/// Time limit for the server's crash recovery.
const START_LIMIT: Duration = Duration::from_secs(3_600);
/// Files that would start the copy as a standby or with other settings, or keep it from starting.
const NOT_OF_THE_COPY: [&str; 5] =
    ["postgresql.auto.conf", "postmaster.pid", "postmaster.opts", "standby.signal", "recovery.signal"];

/// A PostgreSQL on the scratch copy.
pub(super) struct ScratchServer<'a> {
    pub(super) scratch: &'a mut Scratch,
    pub(super) programs: &'a Path,
}

impl ScratchServer<'_> {
    /// Copies the kept directory, without files that would make it more than a single server.
    pub(super) async fn copy(&mut self, kept: &Path) -> Done<()> {
        self.scratch.copy(kept).await?;
        let data_dir = self.scratch.data_dir();
        // with the servers' user's rights: only that user's own files can be removed
        let stripped = self.scratch.run_as().act(|| strip(&data_dir));
        stripped.map_err(failed("removing files that the scratch copy must not have"))
    }

    /// Starts a server on the copy, and waits until it has recovered and answers.
    pub(super) async fn start(&mut self, user: &str, prepared_transactions: u32) -> Done<Server> {
        let doing = "starting a server on the scratch copy";
        let settings = self.write_settings(prepared_transactions).map_err(failed(doing))?;
        let log = self.scratch.log_file(doing)?;
        let mut command = self.scratch.run_as().command(self.programs.join("postgres"));
        command.arg("-D").arg(self.scratch.data_dir()).arg("-c");
        command.arg(format!("config_file={}", settings.display()));
        command.stdout(Stdio::null()).stderr(log);
        self.scratch.spawn(command, doing)?;
        let server = Server::on_socket(&self.scratch.sockets(), user);
        let answering = async {
            loop {
                let Err(error) = server.connect("postgres").await else { return Ok(()) };
                if !self.scratch.runs() {
                    return Err(SalvageError::Failed(format!(
                        "{doing}: the server ended: {}",
                        self.last_words()
                    )));
                }
                // the server answers and refuses: waiting does not help
                if error.is_final() {
                    return Err(error.into());
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        match tokio::time::timeout(START_LIMIT, answering).await {
            Ok(answered) => answered.map(|()| server),
            Err(_) => Err(SalvageError::Failed(format!("{doing}: no answer within {START_LIMIT:?}"))),
        }
    }

    /// Its own settings, instead of the kept copy's: no network, no archive, no replication, no workers.
    fn write_settings(&self, prepared_transactions: u32) -> io::Result<PathBuf> {
        // only a user who may enter the folder of the socket can connect
        let hba = self.scratch.write_settings("hba.conf", "local all all trust\n")?;
        let ident = self.scratch.write_settings("ident.conf", "")?;
        let has_tablespaces = fs::read_dir(self.scratch.data_dir().join("pg_tblspc"))?.next().is_some();
        // tablespaces are folders of the copy, no links
        let tablespaces = if has_tablespaces { "allow_in_place_tablespaces = on\n" } else { "" };
        let settings = format!(
            "listen_addresses = ''\n\
             port = {port}\n\
             unix_socket_directories = {sockets}\n\
             unix_socket_permissions = 0700\n\
             hba_file = {hba}\n\
             ident_file = {ident}\n\
             archive_mode = off\n\
             max_wal_senders = 0\n\
             max_logical_replication_workers = 0\n\
             autovacuum = off\n\
             fsync = off\n\
             full_page_writes = off\n\
             restart_after_crash = off\n\
             huge_pages = off\n\
             shared_buffers = '64MB'\n\
             max_connections = 10\n\
             max_prepared_transactions = {prepared_transactions}\n\
             lc_messages = 'C'\n\
             {tablespaces}",
            port = Server::SOCKET_PORT,
            sockets = quoted(&self.scratch.sockets()),
            hba = quoted(&hba),
            ident = quoted(&ident),
        );
        self.scratch.write_settings("postgresql.conf", &settings)
    }

    fn last_words(&self) -> String {
        let log = self.scratch.log();
        // our own attempts to connect are not the reason
        let says_why = |line: &&str| {
            ["ERROR:", "FATAL:", "PANIC:"].iter().any(|word| line.contains(word))
                && !line.contains("the database system is")
        };
        let why = log.lines().find(says_why).or_else(|| log.lines().last());
        why.unwrap_or("it wrote no message").to_owned()
    }
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}

fn strip(data_dir: &Path) -> io::Result<()> {
    for name in NOT_OF_THE_COPY {
        remove(&data_dir.join(name))?;
    }
    // a slot would keep the WAL of the copy, and a client could read from a logical slot
    for slot in fs::read_dir(data_dir.join("pg_replslot")).into_iter().flatten().flatten() {
        remove(&slot.path())?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}
