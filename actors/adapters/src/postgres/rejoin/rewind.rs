//! Bringing a stopped directory to another main's line with `pg_rewind`.
//!
//! ```text
//! recovered from its crash ─> own files saved, sentinel ─> own files out ─> pg_rewind ─> own files back,
//!   standby.signal ─> all on the disk ─> sentinel removed
//! ```
//!
//! **Invariant:** from the first change to the last the sentinel stands, and without it the directory is whole.

use std::{io, time::Duration};

use interrex_actors::ports::{Answer, PortError, PostgresPort as _, Rewind};
use interrex_events::postgres::pinned_for_libpq;

use super::{
    Source, disk, own_files,
    places::Places,
    programs::{self, Ended, Process},
    sentinel::{self, Attempt, Phase, Sentinel},
};
use crate::postgres::{LocalPostgres, files, lineage::backup_label, recovery::sync_at_once};

/// `pg_rewind` says it with `--progress` right before its first change.
const CHANGES_BEGIN: &str = "need to copy";
/// It says so when it ends well and has changed nothing.
const NOTHING_TO_DO: &str = "no rewind required";
/// Lets a checkpoint remove nothing of the log; and tells a recovery of ours from one that a person started.
pub(super) const KEEP_ALL_LOG: &str = "wal_keep_size=1TB";

/// Why a rewind that was cut off is not tried again after the machine went down.
const REBOOTED: &str =
    "a rewind was cut off, and the machine went down since: what it had written may not be on the disk";
/// Why it is not tried again with another main.
const ANOTHER_MAIN: &str = "a rewind to another main was cut off: blocks of two mains are no directory";

/// What `pg_rewind` has told.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    begun: bool,
    nothing_to_do: bool,
}

/// Where a call begins.
enum Begin {
    /// The directory is whole and not rewound.
    Fresh,
    /// `pg_rewind` may try once more: it finds the same to copy as before, or fails.
    Again,
    /// There is nothing left to do.
    Ended(Rewind),
}

impl LocalPostgres {
    pub(super) async fn rewind_to(&self, source: &Source, limit: Duration) -> Answer<Rewind> {
        let places = Places::of(&self.settings.data_dir);
        let sentinel = Sentinel::beside(&places, self.settings.run_as);
        source.without_secrets()?;
        self.wait_for_orphan(&sentinel, source, limit).await;
        self.end_leftovers(&places).await?;
        self.must_be_in_place(&places)?;
        self.must_be_stopped()?;
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
        taken_out.map_err(|error| PortError::new("taking the node's own files out", error))?;
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

    /// Finds out how far an earlier call was.
    async fn begin(&self, places: &Places, sentinel: &Sentinel, source: &Source) -> Answer<Begin> {
        let doing = "looking how far the rewind is";
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

    /// Whether the directory is as a rewind leaves it: a start would rename the label.
    async fn is_rewound_and_not_started(&self, places: &Places) -> Answer<bool> {
        let label = backup_label(&places.data_dir);
        Ok(label.contains("BACKUP METHOD: pg_rewind")
            && self.is_standby_directory()
            && !self.control_file().await?.is_clean())
    }

    /// Up to the moment before the first change. An answer if it cannot come to that.
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
        let owner = self.settings.run_as;
        self.aside("preparing the rewind", move || {
            let control_sha256 = owner.act(|| sentinel::control_sha256(&data_dir))?;
            sentinel.raise(&data_dir, Attempt { boot: sentinel::boot()?, conninfo, control_sha256 })
        })
        .await?;
        Ok(None)
    }

    /// Closes a main's directory that was not closed, as `pg_rewind` would do itself. Apart from it, because a recovery
    /// that fails or is cut off leaves the directory whole.
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
            // it may be on main's line: a checkpoint that only it has would part the two where pg_rewind does not look
            return Ok(Ended::Badly(format!(
                "it was a standby or a base backup, and was not closed (control file: {})",
                control.state
            )));
        }
        // it takes a dead main that nobody has reaped yet for a living one, which was looked for already
        let doing = "recovering from the crash";
        // for good or not: the disk is busy with a copy
        let pid_file = places.data_dir.join("postmaster.pid");
        match self.settings.run_as.act(|| std::fs::remove_file(&pid_file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PortError::new(doing, error));
            }
            _ => {}
        }
        // the standby that it becomes begins at a checkpoint before its crash: the log since is needed, and main may have
        // removed it
        let mut command = self.settings.server_in(&places.data_dir, &["--single", "-c", KEEP_ALL_LOG]);
        if let Some(setting) = sync_at_once(&places.data_dir, self.settings.run_as) {
            command.args(["-c", setting]);
        }
        command.arg("template1");
        programs::run(command, doing, limit, |_| Ok(())).await
    }

    async fn pg_rewind(
        &self,
        sentinel: &Sentinel,
        source: &Source,
        limit: Duration,
    ) -> Answer<(Ended, Said)> {
        // without its fsync of every file: all of it gets to the disk at once afterwards
        let mut command = self.program("pg_rewind");
        command.args(["--no-ensure-shutdown", "--no-sync", "--progress", "--source-server"]);
        command.arg(source.without_secrets()?);
        if let Some(file) =
            self.settings.config_file.as_ref().filter(|_| names_its_file(&self.settings.data_dir))
        {
            command.arg("--config-file").arg(file);
        }
        programs::tell_passfile(source, &mut command);
        let (variable, pinned) = pinned_for_libpq();
        command.env(variable, pinned);
        let (ended, text) = programs::run_logged(command, "pg_rewind", limit, &sentinel.log()).await?;
        let said = Said { begun: text.contains(CHANGES_BEGIN), nothing_to_do: text.contains(NOTHING_TO_DO) };
        Ok((ended, said))
    }

    /// Lets a `pg_rewind` come to its end whose supervisor was killed: half of its work would be worth nothing.
    async fn wait_for_orphan(&self, sentinel: &Sentinel, source: &Source, limit: Duration) {
        let Ok(Some(Phase::Rewinding(attempt))) = sentinel.phase() else { return };
        if attempt.conninfo == source.conninfo {
            for process in Process::of(&["pg_rewind"]) {
                if process.is("pg_rewind", &[self.settings.data_dir.as_os_str()]) {
                    process.wait_gone(limit).await;
                }
            }
        }
    }

    /// Puts the node's own files back, then everything on the disk, and lets the directory be started: as a standby.
    /// Can be repeated.
    async fn finish_rewind(&self, places: &Places, sentinel: &Sentinel) -> Answer<()> {
        let (data_dir, sentinel) = (places.data_dir.clone(), sentinel.clone());
        let (signal, owner) = (data_dir.join("standby.signal"), self.settings.run_as);
        self.aside("finishing the rewind", move || {
            own_files::put_into(&data_dir, &sentinel.own_files(), owner)?;
            files::write(&signal, b"", owner)?;
            owner.act(|| disk::sync(&data_dir))?;
            sentinel.remove()
        })
        .await
    }
}

/// Whether `pg_rewind` of that version can be told where the configuration is: 15 and later.
fn names_its_file(data_dir: &std::path::Path) -> bool {
    let version = std::fs::read_to_string(data_dir.join("PG_VERSION")).unwrap_or_default();
    version.trim().parse::<u32>().is_ok_and(|major| major >= 15)
}
