//! Appends to a journal as fast as it can, and says what is stored only after the journal has said so. The tests
//! kill it, and let its disk fail.
//!
//! ```text
//! opened 17 9f2c..      the head it found
//! stored 18 41aa..      a line for each event, once its append was answered
//! ```

mod facts;
mod relay;

use std::{io::Write, path::PathBuf, process::ExitCode, rc::Rc, sync::Arc};

use clap::Parser;
use interrex::cli::{exit::Exit, failure::Failure};
use interrex_actors::env::SystemEnv;
use interrex_events::{Draft, Head, journal::Journal};
use interrex_tests::journal_of_a_test;
use tokio::task::{JoinSet, LocalSet};

use self::relay::Relay;

#[derive(Debug, Parser)]
#[command(name = "journal-writer")]
struct Arguments {
    /// The journal: made where it is missing.
    journal: PathBuf,
    /// How many tasks append at the same time.
    #[arg(long, default_value_t = 6)]
    tasks: u32,
    /// How many appends each of them makes; without it, they go on until somebody ends them.
    #[arg(long)]
    appends: Option<u64>,
}

fn main() -> ExitCode {
    match write(&Arguments::parse()) {
        Ok(()) => Exit::Fine.into(),
        Err(failure) => {
            eprintln!("{}", failure.in_words());
            failure.exit().into()
        }
    }
}

fn write(arguments: &Arguments) -> Result<(), Failure> {
    let journal = Journal::open(&arguments.journal, journal_of_a_test(), Arc::new(SystemEnv))?;
    say("opened", &[journal.head()])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, append_and_relay(&Rc::new(journal), arguments))
}

/// The relay goes on beside the appends, and sends the rest when they are done.
async fn append_and_relay(journal: &Rc<Journal>, arguments: &Arguments) -> Result<(), Failure> {
    let Some(mut relay) = Relay::from_environment(journal).await? else {
        return append_side_by_side(journal, arguments).await;
    };
    tokio::select! {
        appended = append_side_by_side(journal, arguments) => appended?,
        failed = relay.follow() => failed?,
    }
    relay.catch_up().await
}

/// All tasks, until each has made its appends, or the first has failed.
async fn append_side_by_side(journal: &Rc<Journal>, arguments: &Arguments) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    for task in 0..arguments.tasks {
        let (journal, appends) = (journal.clone(), arguments.appends.unwrap_or(u64::MAX));
        tasks.spawn_local(async move {
            for number in 0..appends {
                append(&journal, facts::of(task, number)).await?;
            }
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap_or_else(|error| {
            Err(Failure::Other { what: "a task ended early".into(), source: Some(error.into()) })
        })?;
    }
    Ok(())
}

async fn append(journal: &Journal, facts: Vec<Draft>) -> Result<(), Failure> {
    let answer = journal.append(&facts)?.await;
    let records = answer.map_err(|error| Failure::Other {
        what: "the journal did not answer".into(),
        source: Some(error.into()),
    })??;
    let heads = records.iter().map(|it| Head { node_id: it.node_id, node_seq: it.node_seq, hash: it.hash });
    Ok(say("stored", &heads.collect::<Vec<_>>())?)
}

/// In one write, which a pipe takes whole or not at all: no line is torn by a kill.
fn say(what: &str, heads: &[Head]) -> std::io::Result<()> {
    let lines: String =
        heads.iter().map(|head| format!("{what} {} {}\n", head.node_seq, head.hash)).collect();
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(lines.as_bytes())?;
    stdout.flush()
}
