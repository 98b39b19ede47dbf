//! Brings a stopped directory back to another main's WAL with `pg_rewind`.
//!
//! ```text
//! recovered from its crash ─> own files saved, sentinel ─> own files out ─> pg_rewind ─> own files back,
//!   standby.signal ─> all on the disk ─> sentinel removed
//! ```
//!
//! **Invariant:** the sentinel exists from the first change to the last, and without it the directory is complete.

use std::{io, time::Duration};

use interrex_actors::ports::{Answer, PortError, PostgresPort as _, Rewind};
use interrex_events::postgres::pinned_for_libpq;

use super::{
    Source, disk, own_files,
    places::Places,
    programs::{self, Ended},
    sentinel::{self, Attempt, Phase, Sentinel},
};
use crate::postgres::{LocalPostgres, files, lineage::backup_label, recovery::sync_at_once};

/// `pg_rewind` prints this with `--progress` right before its first change.
const CHANGES_BEGIN: &str = "need to copy";
/// It prints this when it succeeds and has changed nothing.
const NOTHING_TO_DO: &str = "no rewind required";
/// Keeps a checkpoint from removing WAL; and distinguishes our recovery from a recovery that a person started.
pub(super) const KEEP_ALL_LOG: &str = "wal_keep_size=1TB";

/// Why an interrupted rewind is not retried after the machine went down.
const REBOOTED: &str =
    "a rewind was interrupted and then the machine went down: its writes may not be on the disk";
/// Why it is not retried with another main.
const ANOTHER_MAIN: &str = "a rewind to another main was interrupted: blocks of two mains cannot be mixed";

/// What the output of `pg_rewind` shows.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    begun: bool,
    nothing_to_do: bool,
}

/// Where a call begins.
enum Begin {
    /// The directory is complete and not rewound.
    Fresh,
    /// `pg_rewind` may be retried: it finds the same files to copy as before, or fails.
    Again,
    /// There is nothing left to do.
    Ended(Rewind),
}

impl LocalPostgres {
    pub(super) async fn rewind_to(&self, source: &Source, limit: Duration) -> Answer<Rewind> {
        let places = Places::of(&self.settings.data_dir);
        let sentinel = Sentinel::beside(&places, self.user());
        source.without_secrets()?;
        self.wait_for_orphan(&sentinel, source, limit).await;
        self.end_leftovers(&places).await?;
        self.must_be_in_place(&places)?;
        self.must_be_stopped().await?;
        let is_first = match self.begin(&places, &sentinel, source).await? {
            Begin::Ended(rewind) => return Ok(rewind),
            Begin::Again => false,
            Begin::Fresh => {
                if let Some(ended) = self.prepare_rewind(&places, &sentinel, source, limit).await? {
                    return Ok(ended);
                }
                true
            }
        };
        let taken_out = own_files::take_out(&places.data_dir);
        taken_out.map_err(|error| {
            PortError::new("removing the node's own files from the data directory", error)
        })?;
        let (ended, said) = self.pg_rewind(&sentinel, source, limit).await?;
        let unchanged = said.nothing_to_do || (is_first && !said.begun);
        if unchanged {
            sentinel
                .note_unchanged()
                .map_err(|error| PortError::new("noting that nothing was rewound", error))?;
        }
        if unchanged || ended == Ended::Well {
            self.finish_rewind(&places, &sentinel).await?;
        }
        match ended {
            Ended::Well if unchanged => Ok(Rewind::NotNeeded),
            Ended::Well => Ok(Rewind::Rewound),
            Ended::CutOff(words) if unchanged => Err(PortError(format!("{words}; nothing was changed"))),
            Ended::CutOff(words) => Err(PortError(format!("{words}; the directory is half-rewound"))),
            Ended::Badly(words) => Ok(Rewind::Impossible(words)),
        }
    }

    /// Finds out how far an earlier call came.
    async fn begin(&self, places: &Places, sentinel: &Sentinel, source: &Source) -> Answer<Begin> {
        let doing = "checking the progress of the rewind";
        let told = |error| PortError::new(doing, error);
        match sentinel.phase().map_err(told)? {
            None => Ok(if self.is_rewound_and_not_started(places).await? {
                Begin::Ended(Rewind::Rewound)
            } else {
                Begin::Fresh
            }),
            Some(Phase::Unchanged) => {
                self.finish_rewind(places, sentinel).await?;
                Ok(Begin::Fresh)
            }
            Some(Phase::Rewinding(before)) => {
                if before.boot != sentinel::boot().map_err(told)? {
                    return Ok(Begin::Ended(Rewind::Impossible(REBOOTED.to_owned())));
                }
                if before.control_sha256 != sentinel::control_sha256(&places.data_dir).map_err(told)? {
                    self.finish_rewind(places, sentinel).await?;
                    return Ok(Begin::Ended(Rewind::Rewound));
                }
                if before.conninfo != source.conninfo {
                    return Ok(Begin::Ended(Rewind::Impossible(ANOTHER_MAIN.to_owned())));
                }
                Ok(Begin::Again)
            }
        }
    }

    /// Whether the directory is in the state after a rewind: a start would rename the label.
    async fn is_rewound_and_not_started(&self, places: &Places) -> Answer<bool> {
        let label = backup_label(&places.data_dir);
        Ok(label.contains("BACKUP METHOD: pg_rewind")
            && self.is_standby_directory()
            && !self.control_file().await?.is_clean())
    }

    /// Prepares everything up to the first change. Returns a result if the rewind is not possible.
    async fn prepare_rewind(
        &self,
        places: &Places,
        sentinel: &Sentinel,
        source: &Source,
        limit: Duration,
    ) -> Answer<Option<Rewind>> {
        match self.close_after_crash(places, limit).await? {
            Ended::Well => {}
            Ended::Badly(words) => return Ok(Some(Rewind::Impossible(words))),
            Ended::CutOff(words) => return Err(PortError(words)),
        }
        let (data_dir, sentinel, conninfo) =
            (places.data_dir.clone(), sentinel.clone(), source.conninfo.clone());
        let owner = self.user();
        self.aside("preparing the rewind", move || {
            let control_sha256 = owner.act(|| sentinel::control_sha256(&data_dir))?;
            sentinel.raise(&data_dir, Attempt { boot: sentinel::boot()?, conninfo, control_sha256 })
        })
        .await?;
        Ok(None)
    }

    /// Recovers a main's directory that was not shut down cleanly, as `pg_rewind` itself would do. Before `pg_rewind`, because a
    /// recovery that fails or is interrupted leaves the directory complete.
    pub(super) async fn close_after_crash(&self, places: &Places, limit: Duration) -> Answer<Ended> {
        let control = self.control_file().await?;
        if control.is_clean() {
            return Ok(Ended::Well);
        }
        let was_standby = control.state == "in archive recovery"
            || ["standby.signal", "recovery.signal", "backup_label"]
                .iter()
                .any(|name| places.data_dir.join(name).exists());
        if was_standby {
            // it may have only main's WAL: a checkpoint of its own would part the two where pg_rewind does not look
            return Ok(Ended::Badly(format!(
                "it was a standby or a base backup, and was not shut down cleanly (control file: {})",
                control.state
            )));
        }
        // postgres would take a dead main that is not reaped yet for a living one; living processes were excluded before
        let doing = "recovering from the crash";
        // durable or not: the disk is busy with a copy
        let pid_file = places.data_dir.join("postmaster.pid");
        match self.user().act(|| std::fs::remove_file(&pid_file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PortError::new(doing, error));
            }
            _ => {}
        }
        // the later standby begins at a checkpoint before its crash: the WAL since then is needed, and main may have removed it
        let mut command = self.settings.server_in(&places.data_dir, &["--single", "-c", KEEP_ALL_LOG]);
        if let Some(setting) = sync_at_once(&places.data_dir, self.user()) {
            command.args(["-c", setting]);
        }
        command.arg("template1");
        programs::run(&*self.settings.runtime, command, doing, limit, |_| Ok(())).await
    }

    async fn pg_rewind(
        &self,
        sentinel: &Sentinel,
        source: &Source,
        limit: Duration,
    ) -> Answer<(Ended, Said)> {
        // without its fsync of every file: everything is synced at once afterwards
        let mut command = self.program("pg_rewind");
        command.args(["--no-ensure-shutdown", "--no-sync", "--progress", "--source-server"]);
        command.arg(source.without_secrets()?);
        if let Some(file) =
            self.settings.config_file.as_ref().filter(|_| names_its_file(&self.settings.data_dir))
        {
            command.arg("--config-file").arg(self.inside(file));
        }
        let runtime = &*self.settings.runtime;
        programs::tell_passfile(runtime, source, &mut command);
        let (variable, pinned) = pinned_for_libpq();
        command.env(variable, pinned);
        let (ended, text) =
            programs::run_logged(runtime, command, "pg_rewind", limit, &sentinel.log()).await?;
        let said = Said { begun: text.contains(CHANGES_BEGIN), nothing_to_do: text.contains(NOTHING_TO_DO) };
        Ok((ended, said))
    }

    /// Waits for a `pg_rewind` whose supervisor was killed: half of its work would be useless.
    async fn wait_for_orphan(&self, sentinel: &Sentinel, source: &Source, limit: Duration) {
        let Ok(Some(Phase::Rewinding(attempt))) = sentinel.phase() else { return };
        if attempt.conninfo == source.conninfo {
            let (runtime, data_dir) = (&self.settings.runtime, self.inside(&self.settings.data_dir));
            for leftover in runtime.leftovers(&["pg_rewind"]).await {
                if leftover.is("pg_rewind", &[data_dir.as_os_str()]) {
                    // a rewind that takes longer is ended
                    let _ = tokio::time::timeout(limit, runtime.gone(&leftover.instance)).await;
                }
            }
        }
    }

    /// Puts the node's own files back, syncs everything to the disk, and allows the directory to start, as a standby. Can be
    /// repeated.
    async fn finish_rewind(&self, places: &Places, sentinel: &Sentinel) -> Answer<()> {
        let (data_dir, sentinel) = (places.data_dir.clone(), sentinel.clone());
        let (signal, owner) = (data_dir.join("standby.signal"), self.user());
        self.aside("finishing the rewind", move || {
            own_files::put_into(&data_dir, &sentinel.own_files(), owner)?;
            files::write(&signal, b"", owner)?;
            owner.act(|| disk::sync(&data_dir))?;
            sentinel.remove()
        })
        .await
    }
}

/// Whether `pg_rewind` of that version has `--config-file`: 15 and later.
fn names_its_file(data_dir: &std::path::Path) -> bool {
    let version = std::fs::read_to_string(data_dir.join("PG_VERSION")).unwrap_or_default();
    version.trim().parse::<u32>().is_ok_and(|major| major >= 15)
}
