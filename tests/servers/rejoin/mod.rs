//! An old main's directory comes back behind the new main, whatever is cut off on the way.

mod forks;
mod killed;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use interrex::{
    config::Config,
    salvage::{SalvageOptions, salvage},
    sandbox::{ALPHA, BETA, NodePlan, until},
};
use interrex_actors::{
    ports::{
        Answer, HandoverPort as _, KeepRequest, Kept, KeptBy, Lineage, PostgresPort as _, RejoinPort as _,
        Rewind, Source, StopMode, Verdict,
    },
    wire::CopyProgress,
};
use interrex_adapters::{postgres::LocalPostgres, runtime};
use interrex_events::Address;
use rustix::process::Signal;

use crate::pair::{LIMIT, Pair, on_one_thread, slot};

/// A file that `pg_rewind` copies and recovery does not touch.
const COPIED_BY_A_REWIND: &str = "base/1/pg_filenode.map";

/// How many rows only alpha has.
const STRANDED: u64 = 3;

/// An old main with rows that the new one lacks, killed; and the new one, which has written since.
struct Parted {
    pair: Pair,
}

impl Parted {
    async fn make() -> Self {
        let pair = Pair::start().await;
        let rows = "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 5000) AS i";
        for sql in ["CREATE TABLE t (i int PRIMARY KEY, x text)", rows] {
            pair.sandbox.psql(ALPHA, sql).await.unwrap();
        }
        pair.sandbox.psql(ALPHA, "ALTER SYSTEM SET work_mem = '7MB'").await.unwrap();
        pair.sandbox.psql(BETA, "ALTER SYSTEM SET work_mem = '9MB'").await.unwrap();
        let flushed = pair.alpha.main_lineage().await.unwrap().flushed;
        pair.beta_has(flushed).await;
        pair.beta.leave_upstream().await.unwrap();
        until("the receiver has ended", LIMIT, async || match pair.beta.replay_state().await {
            Ok(state) if !state.receiving => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
        pair.sandbox
            .psql(ALPHA, "INSERT INTO t SELECT -i, 'stranded' FROM generate_series(1, 3) AS i")
            .await
            .unwrap();
        let parted = Self { pair };
        let hba = parted.data_dir().join("pg_hba.conf");
        fs::write(&hba, fs::read_to_string(&hba).unwrap() + "# alpha's own\n").unwrap();
        parted.kill_alpha().await;
        parted.promote_beta().await;
        parted
    }

    /// Alpha follows beta, which is main by a switchover.
    async fn following() -> Self {
        let parted = Self { pair: Pair::start().await };
        let Pair { sandbox, alpha, .. } = &parted.pair;
        let rows = "INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 5000) AS i";
        for sql in ["CREATE TABLE t (i int PRIMARY KEY, x text)", rows, "ALTER SYSTEM SET work_mem = '7MB'"] {
            sandbox.psql(ALPHA, sql).await.unwrap();
        }
        let hba = parted.data_dir().join("pg_hba.conf");
        fs::write(&hba, fs::read_to_string(&hba).unwrap() + "# alpha's own\n").unwrap();
        let proof = alpha.hand_down(LIMIT).await.unwrap();
        parted.pair.beta_has(proof.end).await;
        parted.promote_beta().await;
        parted
    }

    async fn alpha_follows(&self) {
        let Pair { alpha, beta, .. } = &self.pair;
        alpha.become_standby(&self.pair.conninfo(alpha, BETA), &slot(ALPHA), None).await.unwrap();
        alpha.start().await.unwrap();
        self.pair.streams(BETA, ALPHA).await;
        let flushed = beta.main_lineage().await.unwrap().flushed;
        until("alpha has it", LIMIT, async || match alpha.received().await {
            Ok(received) if received.replayed >= flushed => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
    }

    /// What alpha's stopped directory is to beta.
    async fn lineage(&self) -> Lineage {
        let main = self.pair.beta.main_lineage().await.unwrap();
        self.pair.alpha.lineage_against(&main, &*self.pair.server(BETA)).await.unwrap()
    }

    async fn kill_alpha(&self) {
        let pid_file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap();
        runtime::signal(pid_file.lines().next().unwrap().parse().unwrap(), Signal::KILL);
        self.pair.alpha.stop(StopMode::Immediate).await.unwrap();
    }

    async fn promote_beta(&self) {
        let beta = &self.pair.beta;
        beta.promote().await.unwrap();
        beta.ensure_slot(ALPHA).await.unwrap();
        beta.checkpoint().await.unwrap();
        let sql = "UPDATE t SET x = 'beta' WHERE i % 100 = 0";
        self.pair.sandbox.psql(BETA, sql).await.unwrap();
    }

    fn node(&self) -> &NodePlan {
        self.pair.sandbox.node(ALPHA).unwrap()
    }

    fn data_dir(&self) -> PathBuf {
        self.node().data_dir()
    }

    fn request(&self, second: i64) -> KeepRequest {
        KeepRequest {
            into: self.node().folder.join("kept"),
            reason: "a test".to_owned(),
            switchpoint: None,
            stranded: None,
            before_rewind: false,
            at: DateTime::<Utc>::from_timestamp(second, 0).unwrap(),
        }
    }

    /// Beta for a rewind: as the superuser.
    fn superuser(&self) -> Source {
        let secrets = self.node().secrets_dir();
        let passfile = secrets.join("superuser.pgpass");
        let text = format!("*:*:*:interrex:{}\n", self.pair.sandbox.superuser_password());
        fs::write(&passfile, text).unwrap();
        fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
        let owner = fs::metadata(secrets.join("replication.pgpass")).unwrap();
        chown(&passfile, Some(owner.uid()), Some(owner.gid())).unwrap();
        let port = self.pair.sandbox.node(BETA).unwrap().postgres_port;
        let conninfo = format!("host=127.0.0.1 port={port} user=interrex dbname=postgres");
        Source { conninfo, passfile: Some(passfile) }
    }

    /// Beta for a base backup: as the user that replicates.
    fn replicator(&self) -> Source {
        Source { conninfo: self.pair.conninfo(&self.pair.alpha, BETA), passfile: None }
    }

    async fn rewind(&self) -> Answer<Rewind> {
        self.pair.alpha.rewind(&self.superuser(), LIMIT).await
    }

    async fn base_backup(&self, by: &LocalPostgres, request: &KeepRequest) -> Answer<Kept> {
        by.base_backup(&self.replicator(), &slot(ALPHA), request, &|_| {}, LIMIT).await
    }

    /// Alpha with one program replaced by a script; `REAL` in it is the real one.
    fn alpha_whose(&self, program: &str, script: &str) -> LocalPostgres {
        let folder = self.node().folder.join(format!("with-other-{program}"));
        let real = self.pair.sandbox.postgres_programs();
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(real).unwrap() {
            let name = entry.unwrap().file_name();
            if name != program {
                symlink(real.join(&name), folder.join(&name)).unwrap();
            }
        }
        let script = script.replace("REAL", real.join(program).to_str().unwrap());
        fs::write(folder.join(program), format!("#!/bin/sh\n{script}\n")).unwrap();
        for path in [folder.clone(), folder.join(program)] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        self.pair.alpha_with(&folder)
    }

    /// How many rows that beta lacks `interrex salvage` finds in a kept copy.
    async fn salvaged(&self, kept: &Path) -> u64 {
        let options = SalvageOptions {
            kept: Some(kept.join("pgdata")),
            kept_redis: None,
            output: self.node().folder.join("salvaged"),
            main: Some(Address::new("127.0.0.1", self.pair.sandbox.node(BETA).unwrap().postgres_port)),
            main_redis: None,
            tables: Vec::new(),
        };
        let config = Config::load(&self.node().config()).unwrap();
        salvage(&options, &config, |_| {}).await.unwrap().postgres.unwrap().inserts
    }

    async fn must_not_start(&self, why: &str) {
        let error = self.pair.alpha.start().await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }

    /// Alpha follows beta, has its rows and none of its own, and its own configuration.
    async fn comes_back(&self) {
        let Pair { sandbox, alpha, .. } = &self.pair;
        assert!(alpha.is_standby_directory());
        alpha.become_standby(&self.pair.conninfo(alpha, BETA), &slot(ALPHA), None).await.unwrap();
        alpha.start().await.unwrap();
        self.pair.streams(BETA, ALPHA).await;
        let rows = "SELECT md5(string_agg(t::text, ',' ORDER BY i)) FROM t";
        let wanted = sandbox.psql_value(BETA, rows).await.unwrap();
        until("alpha has beta's rows", LIMIT, async || match sandbox.psql_value(ALPHA, rows).await {
            Ok(found) if found == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await
        .unwrap();
        assert_eq!(sandbox.psql_value(ALPHA, "SHOW work_mem").await.unwrap(), "7MB");
        let hba = fs::read_to_string(self.data_dir().join("pg_hba.conf")).unwrap();
        assert!(hba.ends_with("# alpha's own\n"), "{hba}");
        assert!(!self.data_dir().with_extension("rewinding").exists());
        assert!(!self.data_dir().with_extension("incoming").exists());
    }
}

/// Why a rewind was impossible; its answer, if it was not.
fn impossible(rewind: Answer<Rewind>) -> String {
    match rewind {
        Ok(Rewind::Impossible(why)) => why,
        other => format!("{other:?}"),
    }
}

/// Sizes of all files in a folder, by name.
fn fingerprint(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(
                    path.strip_prefix(folder).unwrap().to_owned(),
                    fs::metadata(&path).unwrap().len(),
                );
            }
        }
    }
    files
}

#[test]
fn what_diverged_is_kept_and_a_rewind_brings_the_directory_back() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let alpha = &parted.pair.alpha;
        let lineage = parted.lineage().await;
        assert!(matches!(lineage.verdict, Verdict::Diverged { .. }), "{lineage:?}");

        let request = parted.request(1);
        let of_no_use = ["pg_wal/0000000100000000000000F0", "base/1/pgsql_tmp/pgsql_tmp1.0"];
        for file in of_no_use {
            let file = parted.data_dir().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, [0; 16]).unwrap();
        }
        // beyond the end that is found, and log all the same: something before it is damaged
        let beyond = "pg_wal/0000000100000000000000F1";
        let segment_size = parted.pair.alpha.control_file().await.unwrap().segment_size;
        let place = (0xF1 * segment_size).to_ne_bytes();
        fs::write(parted.data_dir().join(beyond), [[0; 8], place].concat()).unwrap();
        let kept = alpha.keep_copy(&request, &|_| {}).await.unwrap();
        let (whole, copied) = (fingerprint(&parted.data_dir()), fingerprint(&kept.folder.join("pgdata")));
        let left_out: Vec<&str> = whole
            .keys()
            .filter(|file| !copied.contains_key(*file))
            .filter_map(|file| file.to_str())
            .collect();
        assert!(whole.iter().all(|(file, size)| copied.get(file).is_none_or(|copied| copied == size)));
        assert!(of_no_use.iter().all(|file| left_out.contains(file)), "{left_out:?}");
        assert!(!left_out.contains(&beyond), "{left_out:?}");
        let end = format!("pg_wal/00000001{:016X}", lineage.end.0 / segment_size);
        let is_room = |file: &str| file.starts_with("pg_wal/") && file > end.as_str();
        let may_be =
            |file: &str| file.starts_with("pg_dynshmem/") || of_no_use.contains(&file) || is_room(file);
        assert!(left_out.iter().all(|file| may_be(file)), "{left_out:?}");
        fs::remove_dir_all(parted.data_dir().join("base/1/pgsql_tmp")).unwrap();
        assert_eq!(kept.manifest.end, Some(lineage.end));
        assert_eq!((kept.manifest.kept_by, kept.manifest.state.as_str()), (KeptBy::Copy, "in production"));
        for (path, name) in
            [(&request.into, "kept"), (&kept.folder, "copy"), (&kept.folder.join("pgdata"), "its data")]
        {
            let metadata = fs::metadata(path).unwrap();
            let owner = fs::metadata(parted.data_dir()).unwrap().uid();
            assert_eq!((metadata.uid(), metadata.mode() & 0o777), (owner, 0o700), "{name}");
        }
        assert_eq!(alpha.keep_copy(&request, &|_| {}).await.unwrap(), kept, "asked again");
        assert_eq!(
            alpha.keep_copy(&parted.request(2), &|_| {}).await.unwrap(),
            kept,
            "the same data at another time"
        );

        assert_eq!(parted.rewind().await, Ok(Rewind::Rewound));
        assert_eq!(alpha.keep_copy(&request, &|_| {}).await.unwrap(), kept, "asked late");
        let lineage = parted.lineage().await;
        assert_eq!(lineage.verdict, Verdict::SameLine);
        parted.comes_back().await;
        assert_eq!(parted.salvaged(&kept.folder).await, STRANDED);
    });
}

#[test]
fn a_rewind_that_failed_half_way_cannot_be_started_and_gives_way_to_a_base_backup() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let alpha = &parted.pair.alpha;
        let kept = alpha.keep_copy(&parted.request(1), &|_| {}).await.unwrap();
        let read_only = parted.data_dir().join(COPIED_BY_A_REWIND);
        fs::set_permissions(&read_only, fs::Permissions::from_mode(0o400)).unwrap();
        let why = impossible(parted.rewind().await);
        assert!(why.contains("Permission denied"), "{why}");
        parted.must_not_start("a rewind of it was begun and has not ended").await;

        let request = parted.request(2);
        let told = RefCell::new(Vec::new());
        let progress = |progress: CopyProgress| told.borrow_mut().push(progress);
        let replaced =
            alpha.base_backup(&parted.replicator(), &slot(ALPHA), &request, &progress, LIMIT).await.unwrap();
        let last = *told.borrow().last().unwrap();
        assert!(last.done_bytes > 1_000_000 && last.done_bytes <= last.total_bytes, "{last:?}");
        assert!(replaced.manifest.half_rewound && replaced.folder.join("pgdata/PG_VERSION").exists());
        let again = parted.base_backup(alpha, &request).await.unwrap();
        assert_eq!(again, replaced, "the step is repeated, not the backup");
        parted.comes_back().await;
        assert_eq!(alpha.prune_kept(&request.into, 1, None).await.unwrap(), [replaced.folder]);
        assert!(kept.folder.join("pgdata/PG_VERSION").exists());
    });
}

#[test]
fn a_rewind_that_was_cut_off_is_tried_again_and_gives_way_if_pg_rewind_says_so() {
    on_one_thread(async {
        let parted = Parted::make().await;
        // it dies by SIGXFSZ at the first larger file
        let limited = parted.alpha_whose("pg_rewind", "ulimit -f 1000\nexec REAL \"$@\"");
        let error = limited.rewind(&parted.superuser(), LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("half-rewound"), "{error}");
        parted.must_not_start("a rewind of it was begun").await;
        assert!(
            matches!(parted.pair.alpha.keep_copy(&parted.request(1), &|_| {}).await, Err(error) if error.0.contains("too late"))
        );
        // the log was copied over first, so that pg_rewind finds no way any more, and says so
        let why = impossible(parted.rewind().await);
        assert!(why.contains("could not read WAL record"), "{why}");
        parted.must_not_start("a rewind of it was begun").await;
        parted.base_backup(&parted.pair.alpha, &parted.request(1)).await.unwrap();
        parted.comes_back().await;
    });
}

#[test]
fn a_rewind_whose_end_nobody_heard_is_finished_and_never_done_twice() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let dies = parted.alpha_whose("pg_rewind", "REAL \"$@\"\nkill -9 $$");
        let error = dies.rewind(&parted.superuser(), LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("signal: 9"), "{error}");
        let noted = parted.data_dir().with_extension("rewinding").join("phase.json");
        let phase = fs::read_to_string(&noted).unwrap();
        let boot = phase.split("\"boot\":\"").nth(1).unwrap().split('"').next().unwrap();
        fs::write(&noted, phase.replace(boot, "another")).unwrap();
        let why = impossible(parted.rewind().await);
        assert!(why.contains("then the machine went down"), "{why}");
        fs::write(&noted, phase).unwrap();

        assert_eq!(parted.rewind().await, Ok(Rewind::Rewound));
        let after = fingerprint(&parted.data_dir());
        assert_eq!(parted.rewind().await, Ok(Rewind::Rewound), "asked again");
        assert_eq!(fingerprint(&parted.data_dir()), after);
        parted.comes_back().await;
        parted.kill_alpha().await;
        let why = impossible(parted.rewind().await);
        assert!(why.contains("it was a standby"), "a recovery of its own would part it from main: {why}");
    });
}

#[test]
fn a_rewind_that_is_cancelled_leaves_no_process_and_one_that_was_left_is_ended() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let hangs = "echo 'need to copy 1 MB' >&2\nwhile true; do sleep 0.05; done";
        let hanging = parted.alpha_whose("pg_rewind", hangs);
        let source = parted.superuser();
        let working = || {
            let folder = parted.data_dir();
            let of_it = |pid: &i32| {
                fs::read_to_string(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|text| text.contains(folder.to_str().unwrap()))
            };
            let entries = fs::read_dir("/proc").unwrap().flatten();
            let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            pids.filter(|pid| runtime::is_alive(*pid, "pg_rewind")).find(of_it)
        };
        tokio::select! {
            ended = hanging.rewind(&source, LIMIT) => panic!("it ended: {ended:?}"),
            began = until("it works", LIMIT, async || working().map(drop).ok_or("no process".to_owned())) => began.unwrap(),
        }
        until("it has ended", LIMIT, async || working().map_or(Ok(()), |pid| Err(format!("process {pid}"))))
            .await
            .unwrap();
        parted.must_not_start("a rewind of it was begun").await;

        // as a killed supervisor leaves it, but for ever
        let program = parted.node().folder.join("with-other-pg_rewind/pg_rewind");
        let mut left = std::process::Command::new(program).arg("-D").arg(parted.data_dir()).spawn().unwrap();
        let limit = Duration::from_secs(3);
        assert_eq!(parted.pair.alpha.rewind(&source, limit).await, Ok(Rewind::Rewound));
        assert!(left.try_wait().unwrap().is_some(), "it was left at work");
        parted.comes_back().await;
    });
}

#[test]
fn a_rewind_that_cannot_begin_changes_nothing() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let nobody = Source { conninfo: "host=127.0.0.1 port=1 dbname=postgres".to_owned(), passfile: None };
        let error = parted.pair.alpha.rewind(&nobody, LIMIT).await.unwrap_err().to_string();
        assert!(error.contains("nothing was changed"), "{error}");
        let lineage = parted.lineage().await;
        assert!(matches!(lineage.verdict, Verdict::Diverged { .. }), "{lineage:?}");
        assert!(parted.pair.alpha.is_standby_directory());
        assert_eq!(parted.rewind().await, Ok(Rewind::Rewound));
        parted.comes_back().await;
    });
}

#[test]
fn a_base_backup_that_dies_half_way_leaves_the_old_directory_and_can_be_repeated() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let request = parted.request(1);
        let before = fingerprint(&parted.data_dir());
        let limited = parted.alpha_whose("pg_basebackup", "ulimit -f 1000\nexec REAL \"$@\"");
        parted.base_backup(&limited, &request).await.unwrap_err();
        assert_eq!(fingerprint(&parted.data_dir()), before);
        // as a killed supervisor leaves it
        fs::create_dir_all(parted.data_dir().with_extension("incoming").join("base")).unwrap();
        let kept = parted.base_backup(&parted.pair.alpha, &request).await.unwrap();
        assert_eq!(fingerprint(&kept.folder.join("pgdata")), before);
        assert!(!kept.manifest.half_rewound);
        parted.comes_back().await;
        assert_eq!(parted.salvaged(&kept.folder).await, STRANDED);
    });
}

#[test]
fn a_crash_between_the_two_renames_is_healed() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let (alpha, request) = (&parted.pair.alpha, parted.request(1));
        let kept = parted.base_backup(alpha, &request).await.unwrap();
        let data_dir = parted.data_dir();
        let unfinished = PathBuf::from(format!("{}.unfinished", kept.folder.display()));
        let complete = data_dir.with_extension("incoming-complete");
        let swap = format!(r#"{{"at":"{}","folder":"{}"}}"#, request.at.to_rfc3339(), kept.folder.display());
        // back to what is on the disk before, between and after the renames
        for old_is_kept in [true, false] {
            fs::rename(&data_dir, data_dir.with_extension("incoming")).unwrap();
            fs::rename(&kept.folder, &unfinished).unwrap();
            fs::write(&complete, &swap).unwrap();
            if old_is_kept {
                parted.must_not_start("the base backup that replaces it is complete").await;
            } else {
                fs::rename(unfinished.join("pgdata"), &data_dir).unwrap();
            }
            assert_eq!(parted.base_backup(alpha, &request).await.unwrap(), kept);
            assert!(!complete.exists() && !unfinished.exists());
        }
        fs::write(&complete, &swap).unwrap();
        assert_eq!(parted.base_backup(alpha, &request).await.unwrap(), kept);
        parted.comes_back().await;
    });
}

#[test]
fn a_log_elsewhere_stays_elsewhere_and_goes_with_its_directory() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let (alpha, data_dir) = (&parted.pair.alpha, parted.data_dir());
        let (log, limit) = (data_dir.with_extension("log"), "ulimit -f 1000\nexec REAL \"$@\"");
        fs::rename(data_dir.join("pg_wal"), &log).unwrap();
        symlink("../".to_owned() + log.file_name().unwrap().to_str().unwrap(), data_dir.join("pg_wal"))
            .unwrap();
        let limited = parted.alpha_whose("pg_basebackup", limit);
        parted.base_backup(&limited, &parted.request(1)).await.unwrap_err();
        let kept = parted.base_backup(alpha, &parted.request(1)).await.unwrap();
        parted.comes_back().await;
        let fresh = data_dir.join("pg_wal").read_link().unwrap();
        let beside: Vec<PathBuf> = fs::read_dir(log.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().starts_with(&*log.to_string_lossy()))
            .collect();
        assert!(
            beside.len() == 2 && beside.contains(&log) && beside.contains(&fresh),
            "{beside:?}, {fresh:?}"
        );
        assert_eq!(kept.folder.join("pgdata/pg_wal").canonicalize().unwrap(), log.canonicalize().unwrap());
        assert_eq!(parted.salvaged(&kept.folder).await, STRANDED);
        alpha.prune_kept(&parted.request(1).into, 0, None).await.unwrap();
        assert!(!log.exists() && fresh.is_dir(), "the kept directory's log goes with it, and no other");
    });
}

#[test]
fn a_folder_on_another_volume_is_refused_before_anything_is_begun() {
    on_one_thread(async {
        let parted = Parted::make().await;
        let elsewhere = Path::new("/dev/shm");
        let is_another =
            |metadata: fs::Metadata| metadata.dev() != fs::metadata(parted.data_dir()).unwrap().dev();
        if !fs::metadata(elsewhere).is_ok_and(is_another) {
            return;
        }
        let elsewhere = tempfile::tempdir_in(elsewhere).unwrap();
        let before = fingerprint(&parted.data_dir());
        let request = KeepRequest { into: elsewhere.path().join("kept"), ..parted.request(1) };
        let error = parted.base_backup(&parted.pair.alpha, &request).await.unwrap_err().to_string();
        assert!(error.contains("must be on the volume of"), "{error}");
        assert_eq!(fingerprint(&parted.data_dir()), before);
        assert!(!parted.data_dir().with_extension("incoming").exists());
        assert_eq!(fs::read_dir(&request.into).unwrap().count(), 0);
    });
}

#[test]
fn a_directory_that_was_handed_down_needs_no_rewind() {
    on_one_thread(async {
        let pair = Pair::start().await;
        pair.sandbox.psql(ALPHA, "CREATE TABLE t AS SELECT 1 AS i, 'x' AS x").await.unwrap();
        pair.sandbox.psql(ALPHA, "ALTER SYSTEM SET work_mem = '7MB'").await.unwrap();
        let parted = Parted { pair };
        let hba = parted.data_dir().join("pg_hba.conf");
        fs::write(&hba, fs::read_to_string(&hba).unwrap() + "# alpha's own\n").unwrap();
        let proof = parted.pair.alpha.hand_down(LIMIT).await.unwrap();
        parted.pair.beta_has(proof.end).await;
        parted.promote_beta().await;
        assert_eq!(parted.rewind().await, Ok(Rewind::NotNeeded));
        assert_eq!(parted.rewind().await, Ok(Rewind::NotNeeded), "asked again");
        parted.comes_back().await;
    });
}

#[test]
fn a_running_server_is_left_alone() {
    on_one_thread(async {
        let parted = Parted { pair: Pair::start().await };
        let limit = Duration::from_secs(1);
        let alpha = &parted.pair.alpha;
        let request = parted.request(1);
        let errors = [
            alpha.keep_copy(&request, &|_| {}).await.map(drop),
            alpha.rewind(&parted.superuser(), limit).await.map(drop),
            parted.base_backup(alpha, &request).await.map(drop),
        ];
        for error in errors {
            assert!(error.unwrap_err().0.contains("PostgreSQL still runs"));
        }
    });
}
