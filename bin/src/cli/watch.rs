//! A run as its journal shows it, step by step, until it has ended.

use std::{io::IsTerminal as _, path::PathBuf, time::Duration};

use interrex_actors::wire::CopyProgress;
use interrex_events::{Address, Envelope, NodeId, NodeSeq, Record, RunId, journal::JournalReader};
use interrex_projections::{Cluster, ClusterNodes, Entry, Projection as _, RunEnd, Runs, human_bytes};

use super::{
    acts::{address_of, journal_page},
    arguments::{Reading, RunShow},
    exit::Exit,
    failure::Failure,
    output::{self, Output},
    outside::{Outside, Question},
    source::Source,
    views,
};
use crate::config::Config;

/// How often the journal is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How often a supervisor is asked for the run's progress, while the run has no new event.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How often in a row it may give no answer before the command stops waiting.
const UNANSWERED: u32 = 60;
/// How long the node that makes a run may answer and know nothing of it.
const UNKNOWN: Duration = Duration::from_secs(60);
/// Events that are read at once.
const PAGE: u32 = 500;
/// How wide a full bar is, in letters.
const BAR: u64 = 30;

/// Where the events of the node that makes a run are read: at that node, which has them first. Copies here come by this node's
/// own supervisor, which may be down.
struct Told<'a> {
    config: &'a Config,
    maker: NodeId,
    address: Address,
    /// This node's journal, if it has one.
    here: Option<JournalReader>,
}

impl<'a> Told<'a> {
    fn by(maker: NodeId, config: &'a Config) -> Result<Self, Failure> {
        let address = address_of(config, maker)?;
        let here = match JournalReader::open(&config.node.journal) {
            Err(error) if maker == config.node.id => return Err(error.into()),
            here => here.ok(),
        };
        Ok(Self { config, maker, address, here })
    }

    fn is_here(&self) -> bool {
        self.maker == self.config.node.id
    }

    fn after(&self, after: NodeSeq) -> Result<Vec<Record>, Failure> {
        if !self.is_here()
            && let Ok(page) = journal_page(self.config, (self.maker, &self.address), after)
        {
            return Ok(page.records);
        }
        match &self.here {
            Some(journal) => Ok(journal.page(self.maker, after, PAGE)?),
            None => Ok(Vec::new()),
        }
    }

    /// The newest event of the maker that is here.
    fn held_here(&self) -> NodeSeq {
        let newest = self.here.as_ref().and_then(|journal| journal.newest(self.maker, 1).ok());
        newest.and_then(|newest| newest.last().map(|record| record.node_seq)).unwrap_or_default()
    }
}

/// Shows a run of a node, from after an event of that node.
pub(super) fn watch(
    config: &Config,
    named: &Option<PathBuf>,
    (maker, mut after, id): (NodeId, NodeSeq, RunId),
    json: bool,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let told = Told::by(maker, config)?;
    let reading = || Reading { config: named.clone(), ..Reading::default() };
    // without a journal here nodes are shown by their numbers
    let names = match Source::open(&reading()).and_then(|source| source.fold::<Cluster>()) {
        Err(error) if told.is_here() => return Err(error),
        cluster => cluster.map(|cluster| cluster.nodes).unwrap_or_default(),
    };
    let mut runs = Runs::default();
    let question = Question { node: maker, address: told.address.clone() };
    let mut seen = Vec::new();
    let mut bar = Bar::default();
    let (mut quiet, mut unanswered, mut unknown) = (Duration::ZERO, 0, Duration::ZERO);
    loop {
        for record in told.after(after)? {
            (after, quiet, unanswered) = (record.node_seq, Duration::ZERO, 0);
            let envelope = record.open();
            if envelope.run_id == Some(id) {
                runs.apply(&envelope);
                bar.show(None);
                output::say(&line(&envelope, &names, &runs));
                seen.push(envelope);
            }
        }
        if let Some(run) = runs.get(id).filter(|run| !run.is_running()) {
            let done = matches!(run.end, RunEnd::Completed | RunEnd::CompletedDegraded);
            let reading = Reading { json, ..reading() };
            let held = told.held_here();
            seen.retain(|envelope| envelope.node_seq > held);
            views::run::show_with(&RunShow { run: Some(id.to_string()), reading }, &seen, output)?;
            return Ok(if done { Exit::Fine } else { Exit::Failed });
        }
        if quiet >= ASK_EVERY {
            quiet = Duration::ZERO;
            let report = outside.ask(std::slice::from_ref(&question)).remove(&maker).and_then(Result::ok);
            unanswered = if report.is_some() { 0 } else { unanswered + 1 };
            if report.is_some() && runs.get(id).is_none() {
                unknown += ASK_EVERY;
            }
            bar.show(report.and_then(|report| report.copying));
        }
        if unanswered == UNANSWERED {
            return Err(Failure::Other {
                what: format!(
                    "the supervisor at {} has not answered for more than a minute; its run continues when it is started again, \
                     and `interrex run show {}` shows its progress",
                    question.address,
                    id.short()
                ),
                source: None,
            });
        }
        if unknown >= UNKNOWN {
            return Err(Failure::Other {
                what: format!(
                    "the supervisor at {} answers and reports nothing of run {}; see there: interrex run list",
                    question.address,
                    id.short()
                ),
                source: None,
            });
        }
        if !outside.wait(LOOK)? {
            return Ok(Exit::Fine);
        }
        quiet += LOOK;
    }
}

/// An event as text. Parts of it may come from others: from a server, a program, or the name of a table.
pub(super) fn line(envelope: &Envelope, names: &ClusterNodes, runs: &Runs) -> String {
    output::harmless(&Entry::of(envelope, names, runs).text)
}

/// How far a copy is, on a terminal.
#[derive(Default)]
struct Bar {
    shown: bool,
}

impl Bar {
    fn show(&mut self, progress: Option<CopyProgress>) {
        let words = progress.filter(|_| std::io::stderr().is_terminal()).map(in_words);
        if words.is_some() || self.shown {
            output::say_in_place(words.as_deref().unwrap_or_default());
        }
        self.shown = words.is_some();
    }
}

fn in_words(progress: CopyProgress) -> String {
    let CopyProgress { done_bytes, total_bytes } = progress;
    // the estimate may fall short of what comes
    let total = total_bytes.max(done_bytes).max(1);
    let full = usize::try_from(done_bytes.saturating_mul(BAR) / total).unwrap_or_default();
    let bar = "#".repeat(full) + &".".repeat(usize::try_from(BAR).unwrap_or_default() - full);
    format!(
        "copying [{bar}] {} % ({} of {})",
        done_bytes.saturating_mul(100) / total,
        human_bytes(done_bytes),
        human_bytes(total)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_never_fuller_than_full() {
        let words = |done_bytes, total_bytes| in_words(CopyProgress { done_bytes, total_bytes });
        assert!(words(0, 0).contains(&format!("[{}] 0 %", ".".repeat(30))));
        assert!(words(512, 1024).contains(&format!("[{}{}] 50 %", "#".repeat(15), ".".repeat(15))));
        assert!(words(4096, 1024).contains(&format!("[{}] 100 %", "#".repeat(30))));
    }
}
