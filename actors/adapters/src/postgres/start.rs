//! The start of the server: `postgres` itself, which outlives the supervisor.
//!
//! Without `pg_ctl`, which first asks each program for its version, and checks only ten times a second whether the server is ready.

use interrex_actors::ports::{Answer, PortError, PostgresPort as _};

use super::{
    LOOK, LocalPostgres, START_LIMIT,
    server_log::{self, Collected},
    status_file::{State, StatusFile},
};
use crate::runtime::Instance;

impl LocalPostgres {
    /// Starts the server, and waits until it is ready. Returns whether this call started it.
    pub(super) async fn start_postmaster(&self) -> Answer<bool> {
        let runtime = &self.settings.runtime;
        if runtime.find().await.is_some() {
            return Ok(false);
        }
        self.must_be_startable()?;
        if self.is_standby_directory() {
            self.keep_a_standby()?;
        }
        self.settings
            .make_folders_in_run()
            .map_err(|error| PortError::new("making the socket's folder", error))?;
        let collected = Collected::now(&self.settings.data_dir);
        let (begin, status_file) = (runtime.output_end(), self.status_file());
        let mut server = self.settings.server();
        // as from pg_ctl: the server's own commands may use it
        server.env("PGDATA", self.inside(&self.settings.data_dir));
        let started = runtime.start(&server).await?;
        tokio::select! {
            () = self.is_started(&started, &status_file) => return Ok(true),
            () = runtime.gone(&started) => {}
            () = tokio::time::sleep(START_LIMIT) => {
                return Err(PortError(format!("PostgreSQL, {started}, was not ready within {START_LIMIT:?}; it may still be \
                                              starting: see its log ({})", runtime.output_name())));
            }
        }
        // a supervisor that died may have begun a start, which continued and was first
        if runtime.find().await.is_some() {
            return Ok(false);
        }
        let output = runtime.output_since(begin);
        let (message, place) = match collected.last_complaint_since(&self.settings.data_dir, self.user()) {
            Some((message, file)) if server_log::complaint_in(&output).is_none() => {
                (message, file.display().to_string())
            }
            _ => (server_log::last_message(&output).to_owned(), runtime.output_name()),
        };
        Err(PortError(format!("PostgreSQL did not start ({place}): {message}")))
    }

    async fn is_started(&self, started: &Instance, status_file: &StatusFile) {
        // of two starts at once, the file may be the other's
        while status_file.state_since() != Some(State::Started)
            || self.settings.runtime.find().await.as_ref() != Some(started)
        {
            tokio::time::sleep(LOOK).await;
        }
    }
}
