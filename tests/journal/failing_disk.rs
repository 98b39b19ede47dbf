//! A disk that fails once: whoever was answered is right, and nothing is ever tried again.
//!
//! `strace` makes one system call of the journal's writer fail, and writes down what is done after it.

use std::path::Path;

use interrex::sandbox::Done;
use interrex_tests::run;
use tokio::process::Command;

use crate::{
    assert_sound,
    writer::{Ended, Writer, command},
};

/// The exit code of a journal that cannot be used.
pub(crate) const JOURNAL_UNUSABLE: i32 = 4;
/// What every process says that ends for its disk, besides what it was.
const WHAT_TO_DO: [&str; 4] =
    ["journal.db", "cannot be written", "must not be made", "start the supervisor again"];

/// One system call that fails.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Which calls are counted.
    calls: &'static str,
    /// With which error.
    error: &'static str,
    /// Which of them fails; each thread counts its own.
    which: u32,
    /// On which files: what comes after the journal's name.
    files: &'static [&'static str],
    /// What is then said of it.
    message: &'static str,
}

pub(crate) const LOG_SYNC: Fault = Fault {
    calls: "fsync,fdatasync",
    error: "EIO",
    which: 7,
    files: &["", "-wal"],
    message: "could not write it to the disk",
};
pub(crate) const LOG_FULL: Fault =
    Fault { calls: "pwrite64", error: "ENOSPC", which: 60, message: "no space is left", ..LOG_SYNC };
pub(crate) const LOG_READ_ONLY: Fault =
    Fault { calls: "pwrite64", error: "EROFS", which: 61, message: "made read-only", ..LOG_SYNC };
/// The file itself is written when the log has grown long.
const FILE_SYNC: Fault = Fault { which: 1, files: &[""], ..LOG_SYNC };
const FILE_FULL: Fault = Fault { which: 3, files: &[""], ..LOG_FULL };

#[test]
fn an_append_whose_fsync_fails_ends_the_writer_for_good() {
    ends_the_writer_for_good(LOG_SYNC);
}

#[test]
fn a_full_disk_ends_the_writer_for_good() {
    ends_the_writer_for_good(LOG_FULL);
}

#[test]
fn a_disk_that_became_read_only_ends_the_writer_for_good() {
    ends_the_writer_for_good(LOG_READ_ONLY);
}

#[test]
fn a_log_that_cannot_be_synced_into_the_file_ends_the_writer_for_good() {
    ends_the_writer_for_good(FILE_SYNC);
}

#[test]
fn a_log_that_does_not_fit_into_the_file_ends_the_writer_for_good() {
    ends_the_writer_for_good(FILE_FULL);
}

fn ends_the_writer_for_good(fault: Fault) {
    run(async move {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let before = write_to_its_end(&journal, 3).await?;

        let trace = folder.path().join("trace");
        let mut traced = Command::new("strace");
        traced.args(fault.tracing(&journal, &trace)).arg(command(&journal).as_std().get_program());
        traced.arg(&journal).args(["--tasks", "1", "--appends", "1000"]);
        let failed = Writer::start(traced)?.end().await?;
        assert_eq!(failed.code, Some(JOURNAL_UNUSABLE), "{}", failed.message);
        assert_message(&failed.message, fault);
        assert_not_tried_again(&trace, &journal);
        assert!(!failed.said.stored.is_empty(), "it failed before anything was acknowledged");

        let after = write_to_its_end(&journal, 3).await?;
        let mut acknowledged = before.said.stored;
        acknowledged.extend(failed.said.stored);
        acknowledged.extend(after.said.stored);
        assert_sound(&journal, &acknowledged);
        Ok(())
    });
}

/// A small file system, where something else takes the space and then gives it back: in a namespace of its own,
/// which needs no rights. Where the machine refuses that, a full disk is made as above.
#[test]
fn a_file_system_that_is_really_full_ends_the_writer_and_freed_space_lets_the_next_go_on() {
    if !may_mount() {
        println!("this machine lets nobody mount without rights: strace makes the disk full");
        return ends_the_writer_for_good(LOG_FULL);
    }
    run(async {
        let (disk, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut on_small_disk = Command::new("unshare");
        on_small_disk.args(["-Urm", "sh", "-c", ON_A_SMALL_DISK, "sh"]).arg(disk.path());
        on_small_disk.arg(command(Path::new("")).as_std().get_program()).arg(kept.path());
        let ended = Writer::start(on_small_disk)?.end().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.message);
        let code = std::fs::read_to_string(kept.path().join("code")).unwrap();
        assert_eq!(code.trim(), JOURNAL_UNUSABLE.to_string(), "{}", ended.message);
        assert_message(&ended.message, LOG_FULL);
        let records = assert_sound(&kept.path().join("journal.db"), &ended.said.stored);
        assert!(records.len() > 120, "the last writer did not go on");
        Ok(())
    });
}

const ON_A_SMALL_DISK: &str = r#"set -e
disk=$1 writer=$2 kept=$3
mount -t tmpfs -o size=4m tmpfs "$disk"
head -c 3600k /dev/zero >"$disk/ballast"
"$writer" "$disk/journal.db" --appends 1000 || echo $? >"$kept/code"
rm "$disk/ballast"
"$writer" "$disk/journal.db" --appends 12
cp "$disk"/journal.db* "$kept"
"#;

fn may_mount() -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut mount = std::process::Command::new("unshare");
    mount.args(["-Urm", "mount", "-t", "tmpfs", "tmpfs"]).arg(folder.path());
    mount.output().is_ok_and(|output| output.status.success())
}

/// Nothing was acknowledged yet, and the file may be begun anew.
#[test]
fn a_new_journal_that_cannot_be_synced_is_no_journal_and_the_next_start_makes_it() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let mut traced = Command::new("strace");
        traced.args(FILE_SYNC.tracing(&journal, &folder.path().join("trace")));
        traced.arg(command(&journal).as_std().get_program()).arg(&journal).args(["--appends", "1"]);
        let failed = Writer::start(traced)?.end().await?;
        assert_eq!(failed.code, Some(JOURNAL_UNUSABLE), "{}", failed.message);
        assert_message(&failed.message, FILE_SYNC);
        assert!(failed.said.opened.is_none());
        let after = write_to_its_end(&journal, 3).await?;
        assert_sound(&journal, &after.said.stored);
        Ok(())
    });
}

async fn write_to_its_end(journal: &Path, appends: u32) -> Done<Ended> {
    let mut writing = command(journal);
    writing.args(["--appends", &appends.to_string()]);
    let ended = Writer::start(writing)?.end().await?;
    assert_eq!(ended.code, Some(0), "{}", ended.message);
    Ok(ended)
}

impl Fault {
    /// The same fault of another call.
    pub(crate) fn at(self, which: u32) -> Self {
        Self { which, ..self }
    }

    /// What `strace` is told: to let it fail, and to write down every write and sync of those files.
    pub(crate) fn tracing(self, journal: &Path, trace: &Path) -> Vec<String> {
        let Self { calls, error, which, files, .. } = self;
        let mut arguments: Vec<String> = ["-f", "-y", "-e", "signal=none"].map(str::to_owned).into();
        arguments.extend(["-o".to_owned(), trace.display().to_string()]);
        for ending in files {
            arguments.extend(["-P".to_owned(), format!("{}{ending}", journal.display())]);
        }
        arguments.extend(["-e".to_owned(), "trace=pwrite64,ftruncate,fsync,fdatasync".to_owned()]);
        arguments.extend(["-e".to_owned(), format!("inject={calls}:error={error}:when={which}")]);
        arguments
    }
}

#[track_caller]
pub(crate) fn assert_message(said: &str, fault: Fault) {
    for message in WHAT_TO_DO.into_iter().chain([fault.message]) {
        assert!(said.contains(message), "`{message}` is not in: {said}");
    }
}

/// After the call that failed, the process did nothing to the journal any more: no other sync, no other write.
#[track_caller]
pub(crate) fn assert_not_tried_again(trace: &Path, journal: &Path) {
    let text = std::fs::read_to_string(trace).unwrap();
    let name = journal.file_name().unwrap().to_string_lossy().into_owned();
    let calls: Vec<&str> = text.lines().filter(|line| line.contains(&name)).collect();
    let failed = calls.iter().position(|line| line.contains("(INJECTED)"));
    assert_eq!(failed, Some(calls.len() - 1), "{:#?}", &calls[failed.unwrap_or_default()..]);
}
