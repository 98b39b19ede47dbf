//! What a supervisor would have to tell: single facts, and the steps of a run, which belong together.

use interrex_actors::env::{Env, SystemEnv};
use interrex_events::{
    Draft, Epoch, HeartbeatsObserved, NodeId, PostgresChanged, PostgresStatus, RunResumed, StepFinished,
    StepId, StepOutcome, StepStarted, TimelineId,
};
use interrex_tests::FACTS_OF_A_RUN;
use serde_json::json;

/// The facts of a task's append of that number: every third is a batch.
pub(crate) fn of(task: u32, number: u64) -> Vec<Draft> {
    let epoch = Epoch(number / 100 + 1);
    match number % 3 {
        0 => vec![Draft::new(epoch, heartbeats(task, number))],
        1 => vec![Draft::new(epoch, server(number))],
        _ => run(epoch),
    }
}

fn heartbeats(task: u32, number: u64) -> HeartbeatsObserved {
    HeartbeatsObserved {
        peer: NodeId(task),
        since: SystemEnv.moment().wall,
        window_ms: 60_000,
        answered: 58,
        round_trips: [40, 9, 5, 2, 1, 1, 0, 0, 0, 0, 0],
        missed_at_ms: (0..(number % 40) as u32).map(|missed| missed * 1_017).collect(),
    }
}

/// Now and then the server has much to say, more than fits into a page of the journal's file.
fn server(number: u64) -> PostgresChanged {
    let message = "FATAL: the database system is starting up; ";
    PostgresChanged {
        status: PostgresStatus::Unreachable,
        timeline: Some(TimelineId(3)),
        lsn: None,
        detail: message.repeat(if number % 16 == 1 { 150 } else { (number % 5) as usize }),
    }
}

/// One transaction of [`FACTS_OF_A_RUN`] facts: all of them are stored, or none.
fn run(epoch: Epoch) -> Vec<Draft> {
    let run = SystemEnv.run_id();
    let mut facts = vec![Draft::new(epoch, RunResumed { interrupted: Vec::new() })];
    for step in StepId::ALL.into_iter().take(FACTS_OF_A_RUN / 2) {
        facts.push(Draft::new(epoch, StepStarted { step, attempt: 1, limit_ms: 5_000 }));
        facts.push(Draft::new(epoch, finished(step)));
    }
    facts.into_iter().map(|fact| fact.in_run(run)).collect()
}

fn finished(step: StepId) -> StepFinished {
    StepFinished {
        step,
        attempt: 1,
        outcome: StepOutcome::Succeeded,
        detail: "what was promised was seen".to_owned(),
        observed: json!({ "timeline": 4, "lsn": "0/5000148" }).as_object().cloned().unwrap_or_default(),
        took_ms: 212,
    }
}
