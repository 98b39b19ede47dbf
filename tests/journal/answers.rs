//! What a kill cannot show, because the system keeps what was written: that an answer comes after the fsync.

use interrex_tests::run;
use tokio::process::Command;

use crate::writer::{Writer, command};

#[test]
fn no_append_is_answered_before_its_sync_has_returned() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (journal, trace) = (folder.path().join("journal.db"), folder.path().join("trace"));
        let mut traced = Command::new("strace");
        traced.args(["-f", "-y", "-q", "-e", "signal=none", "-e", "trace=write,pwrite64,fsync,fdatasync"]);
        traced.arg("-o").arg(&trace).arg(command(&journal).as_std().get_program()).arg(&journal);
        // one after the other: the sync before an answer is that of its own append
        traced.args(["--tasks", "1", "--appends", "60"]);
        let ended = Writer::start(traced)?.end().await?;
        assert_eq!(ended.code, Some(0), "{}", ended.message);

        let trace = std::fs::read_to_string(&trace).unwrap();
        let (mut is_synced, mut answers) = (false, 0);
        for call in trace.lines() {
            if call.contains("journal.db-wal") {
                is_synced = call.contains("sync(") && call.ends_with("= 0");
            } else if call.contains("sync resumed") {
                is_synced = call.ends_with("= 0");
            } else if call.contains("\"stored ") {
                answers += 1;
                assert!(is_synced, "answered before the sync: {call}");
                is_synced = false;
            }
        }
        assert_eq!(answers, 60);
        Ok(())
    });
}
