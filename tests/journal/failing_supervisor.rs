//! The same under a real supervisor: how it ends, what it says, and that it goes on when the disk is mended.

use std::{path::Path, time::Duration};

use interrex::sandbox::{ALPHA, Done, Sandbox, until};
use interrex_events::{Head, NodeSeq};
use interrex_tests::{interrex, run};
use rustix::process::Signal;

use crate::failing_disk::{
    Fault, JOURNAL_UNUSABLE, LOG_FULL, LOG_READ_ONLY, LOG_SYNC, assert_message, assert_not_tried_again,
};

#[test]
fn a_supervisor_whose_disk_fails_ends_and_goes_on_when_it_is_mended() {
    run(async {
        let sandbox = Sandbox::builder(concat!(env!("CARGO_MANIFEST_DIR"), "/journal/traced"))
            .nodes(1)
            .postgres_only()
            .build()
            .await?;
        sandbox.set_environment(ALPHA, "JOURNAL_TEST_PROGRAM", Some(&interrex().to_string_lossy()));
        sandbox.start().await?;
        // its first event, one while it works, and its last, for which it is asked to end
        for fault in [LOG_SYNC.at(2), LOG_SYNC.at(3), LOG_SYNC.at(4), LOG_FULL.at(2), LOG_READ_ONLY.at(6)] {
            fails_and_goes_on(&sandbox, fault).await?;
        }
        Ok(())
    });
}

async fn fails_and_goes_on(sandbox: &Sandbox, fault: Fault) -> Done<()> {
    let mut acknowledged = sandbox.health(ALPHA).await?.report.journal_heads;
    // its servers go on: the tracer has nobody else to follow
    sandbox.kill_supervisor(ALPHA);
    let node = sandbox.node(ALPHA)?;
    let (trace, log) = (sandbox.folder().join("trace"), node.supervisor_log());
    let said_before = std::fs::read_to_string(&log).unwrap().len();
    let tracing = fault.tracing(&node.journal(), &trace).join(" ");
    sandbox.set_environment(ALPHA, "JOURNAL_TEST_TRACER", Some(&format!("strace -D {tracing}")));
    let pid = sandbox.start_supervisor(ALPHA)?;
    if let Ok(report) = sandbox.wait_healthy(ALPHA).await {
        acknowledged.extend(report.journal_heads);
        sandbox.signal_supervisor(ALPHA, Signal::TERM);
    }
    let end = sandbox.wait_supervisor_ended(ALPHA).await?;
    let said = std::fs::read_to_string(&log).unwrap().split_off(said_before);
    assert_eq!(end.code(), Some(JOURNAL_UNUSABLE), "{said}");
    assert_message(&said, fault);
    until("the trace is whole", Duration::from_secs(10), || async { is_whole(&trace, pid) }).await?;
    assert_not_tried_again(&trace, &node.journal());
    assert!(sandbox.takes_writes(ALPHA).await, "its server was stopped");

    sandbox.set_environment(ALPHA, "JOURNAL_TEST_TRACER", None);
    sandbox.start_supervisor(ALPHA)?;
    sandbox.wait_healthy(ALPHA).await?;
    assert_eq!(sandbox.journal(ALPHA)?.verify().unwrap().broken, None);
    let stored = sandbox.journal(ALPHA)?.page(ALPHA, NodeSeq(0), u32::MAX).unwrap();
    let heads: Vec<Head> = stored.iter().map(interrex_events::Record::as_head).collect();
    assert!(acknowledged.iter().all(|head| heads.contains(head)), "{acknowledged:?} are not all there");
    Ok(())
}

/// The tracer writes on for a moment after the process has ended.
fn is_whole(trace: &Path, pid: u32) -> Result<(), String> {
    let text = std::fs::read_to_string(trace).unwrap_or_default();
    let is_its_end =
        |line: &str| line.strip_prefix(&pid.to_string()).is_some_and(|rest| rest.trim().starts_with("+++"));
    let ended = text.lines().any(is_its_end);
    ended.then_some(()).ok_or_else(|| "it goes on".to_owned())
}
