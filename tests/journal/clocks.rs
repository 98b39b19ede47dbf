//! Wall clocks that are ten years off at a restart: the order of events is the order in which they were recorded.

use chrono::TimeDelta;
use interrex::sandbox::{ALPHA, Sandbox};
use interrex_actors::env::{Env, SystemEnv};
use interrex_events::{Event, NodeSeq};
use interrex_tests::{faketime, interrex, run};

use crate::{
    Acknowledged, assert_sound,
    writer::{Writer, command},
};

const TEN_YEARS: TimeDelta = TimeDelta::days(3_650);

/// What a process is told that shall have another wall clock than its machine.
fn another_clock(off: &str) -> [(&'static str, String); 3] {
    let library = faketime().unwrap().to_string_lossy().into_owned();
    let dont = "FAKETIME_DONT_FAKE_MONOTONIC";
    [("LD_PRELOAD", library), ("FAKETIME", off.to_owned()), (dont, "1".to_owned())]
}

#[test]
fn a_clock_ten_years_off_at_a_restart_forward_or_back_reorders_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.db");
        let mut acknowledged = Acknowledged::new();
        let mut recorded = Vec::new();
        for off in ["+0d", "+3650d", "-3650d", "+0d"] {
            let mut writing = command(&journal);
            writing.args(["--appends", "5"]).envs(another_clock(off));
            let ended = Writer::start(writing)?.end().await?;
            assert_eq!(ended.code, Some(0), "{}", ended.message);
            acknowledged.extend(ended.said.stored);
            recorded.push(assert_sound(&journal, &acknowledged).last().unwrap().recorded_at);
        }
        // each is recorded at the time that its writer saw
        let now = SystemEnv.moment().wall;
        for (recorded, off) in
            recorded.iter().zip([TimeDelta::zero(), TEN_YEARS, -TEN_YEARS, TimeDelta::zero()])
        {
            assert!((now + off - recorded).abs() < TimeDelta::hours(1), "{recorded} is not {off} off");
        }
        Ok(())
    });
}

#[test]
fn a_supervisor_that_starts_before_its_newest_event_says_that_the_clock_was_set_back() {
    run(async {
        let sandbox = Sandbox::builder(interrex()).nodes(1).postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(ALPHA);
        for (name, value) in another_clock("-3650d") {
            sandbox.set_environment(ALPHA, name, Some(&value));
        }
        sandbox.start_supervisor(ALPHA)?;
        sandbox.wait_healthy(ALPHA).await?;
        let ten_years = |event: &Event| matches!(event, Event::ClockJumped(it) if (TimeDelta::milliseconds(it.step_ms) + TEN_YEARS).abs() < TimeDelta::hours(1));
        sandbox.wait_event(ALPHA, "clock_jumped", |envelope| ten_years(&envelope.event)).await?;
        let records = sandbox.journal(ALPHA)?.page(ALPHA, NodeSeq(0), u32::MAX).unwrap();
        assert!(records.is_sorted_by(|one, next| one.hlc < next.hlc), "the jump reordered history");
        Ok(())
    });
}
