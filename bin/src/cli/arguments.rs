//! The arguments of the command line. Their help texts are the first page that an operator reads.

mod acts;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use interrex_events::{Address, KINDS};

pub use self::acts::{Promote, Rejoin, RunCancel, Switchover};
use super::{exit, moment::Moment, views, when::When};

/// Supervises a small cluster of PostgreSQL, Redis and their dependents, such as RADIUS.
///
/// One node is main. When main dies, Interrex moves its role to a secondary, and afterwards it can prove what happened
/// and why: every action is stored as an event in the node's journal before it is done, and everything shown here is
/// rebuilt from those events.
#[derive(Debug, Parser)]
#[command(name = "interrex", version, after_help = exit::EXPLAINED, max_term_width = 110, propagate_version = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run this node's supervisor in the foreground, until it gets a signal to end.
    ///
    /// The supervisor starts this node's servers, watches the other nodes, and fails over when main is lost. One
    /// supervisor runs on each node.
    #[command(after_help = "Example:\n  interrex supervise --config /etc/interrex/interrex.toml")]
    Supervise(Supervise),
    /// Watch a real failover on this machine: two nodes, a killed main, and the story from the events.
    ///
    /// The demo starts two nodes with PostgreSQL, Redis and RADIUS on free loopback ports in a scratch folder, kills
    /// main, shows how the secondary takes over, and removes everything again.
    #[command(after_help = "Examples:\n  interrex demo\n  interrex demo --keep --folder /tmp/interrex-demo")]
    Demo(Demo),
    /// Check the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show which node is main, whether it is healthy, which nodes follow and how far behind, and whether a failover would work.
    ///
    /// The command asks every supervisor that it can reach, for at most a second, and takes the rest from the journal.
    #[command(after_help = "Examples:\n  interrex status\n  interrex status --json | jq .health\n  \
                            watch -n1 interrex status        # exit code 0: healthy, 6: not\n  \
                            interrex status --at 03:12:00    # as it was then, by the events")]
    Status(Looking),
    /// Show the table cluster_nodes: every node, its role and its servers.
    ///
    /// A row marked `live` is what the node's supervisor reports now; the other rows are from the journal.
    #[command(
        after_help = "Examples:\n  interrex nodes\n  interrex nodes --at 2/17    # as it was with that event"
    )]
    Nodes(Looking),
    /// Show what happened, one sentence per event, in the order of the story.
    ///
    /// Read this first after an incident, and paste it into the report.
    #[command(after_help = "Examples:\n  interrex timeline --since 10m\n  \
                            interrex timeline --since 03:10:00 --until 03:20:00\n  \
                            interrex timeline --run 5f3a12bc")]
    Timeline(Timeline),
    /// Show the events themselves, one per line, with their payload.
    ///
    /// With --json, each line is the complete event as it is stored and hashed.
    #[command(after_help = "Examples:\n  interrex events --since 1h --kind failover_withheld\n  \
                            interrex events --follow\n  \
                            interrex events --json | jq 'select(.kind == \"step_finished\") | .payload'",
              after_long_help = kinds_explained())]
    Events(Events),
    /// Show how the state changed: old -> new, change by change, each with the event that made it.
    ///
    /// The state is: main, the epoch, the columns of cluster_nodes, the runs and their steps. Events that did not
    /// change it are left out; `interrex timeline` shows every event.
    #[command(after_help = "Examples:\n  interrex replay --from 03:10:00 --until 03:12:00\n  \
                            interrex replay --from 2/11 --speed 1        # as it happened\n  \
                            interrex replay --step --journal incident.jsonl.zst")]
    Replay(Replay),
    /// Show the differences between two moments: nodes, main, epoch, timeline, settings and runs.
    #[command(after_help = "Examples:\n  interrex diff --at 03:10:00 --at 03:12:00\n  \
                            interrex diff --at 1h        # since then\n  \
                            interrex diff --at 2/11 --at 2/39 --journal beta.db")]
    Diff(Diff),
    /// Write events to a file, to copy, to keep or to send it.
    ///
    /// The file is JSON Lines: a header, then each event exactly as it is stored and hashed, in the order of the story.
    /// A reader can check that no event was changed, left out or cut off. Every command that takes `--journal` reads
    /// such a file too. A damaged journal is not exported.
    #[command(after_help = "Examples:\n  interrex export --output incident.jsonl.zst --since 24h\n  \
                            interrex timeline --journal incident.jsonl.zst\n  \
                            interrex export --output alpha.jsonl.zst    # all of it\n  \
                            interrex status --at 03:12:00 --journal alpha.jsonl.zst\n  \
                            interrex export | gzip | ssh archive 'cat > alpha.jsonl.gz'")]
    Export(Export),
    /// Check an export and write it into a journal.
    ///
    /// The command makes the journal, or adds the events that it lacks. If the export does not continue the journal,
    /// the command changes nothing and names the gap, or the event that differs. It never changes a journal that a
    /// supervisor uses.
    #[command(after_help = "Examples:\n  interrex import incident.jsonl.zst --journal /tmp/incident.db\n  \
                            ssh alpha interrex export | interrex import - --journal alpha.db")]
    Import(Import),
    /// Hand the role of main to another node, without loss.
    ///
    /// Main lets open transactions finish, stops in good order, proves that the target has its WAL to the byte, and
    /// asks the target to take over; then main follows the target. If anything fails before that request, main keeps
    /// serving. The command prints each step as it ends, and at the end the certificate. Ctrl-C does not stop the run:
    /// `interrex run cancel` does.
    #[command(
        after_help = "Examples:\n  interrex switchover --to beta --dry-run    # exit code 0: it would begin\n  \
                            interrex switchover --to beta\n  \
                            interrex switchover --to beta --at 2027-01-15T22:00:00Z\n  \
                            interrex switchover --to 2 --drain 30s --reason \"new disk in alpha\""
    )]
    Switchover(Switchover),
    /// Check whether a failover, a switchover and a rejoin would work now. Nothing is changed.
    ///
    /// The doctor logs in to every node's PostgreSQL and Redis as the supervisors do, makes a real replication login
    /// with the passfile, asks every supervisor with the cluster's secret, and examines the files, programs, services
    /// and disks of this machine. Each check is ok, warn, fail, or unknown if it could not be made; a check that is not
    /// ok shows why it matters and how to fix it. At the end: which action is ready, and which checks speak against it.
    /// Run it on every node: it sees only this machine's files, programs, services and disks. It works whether or not a
    /// supervisor runs.
    #[command(after_help = views::doctor::EXAMPLES, after_long_help = views::doctor::explained())]
    Doctor(Doctor),
    /// Make this node main now: the emergency path, if main is gone.
    ///
    /// This is the run of an automatic failover, begun by a person. The threshold, the cool-down and a disabled
    /// automatic failover do not hold it back. While main gives a sign of life, the promotion is refused and the
    /// evidence is shown: use `interrex switchover` then, which loses nothing. At a keyboard you can confirm it by
    /// typing this node's name; a script uses --force --reason TEXT. A main that can still be reached is stopped first.
    /// The command prints each step as it ends. Ctrl-C does not stop the run: `interrex run cancel` does, before
    /// PostgreSQL is promoted.
    #[command(after_help = "Examples:\n  interrex promote\n  \
                            interrex promote --force --reason \"alpha answers, and its disk is dying\"")]
    Promote(Promote),
    /// Bring a node back as a secondary: an old main after a failover, or a standby that can no longer follow.
    ///
    /// Its data directory is compared with main's WAL. What the node committed and main lacks is counted and kept
    /// (rejoin.keep_in in the configuration). Then the directory is rewound, or copied from main if it cannot be
    /// rewound, and follows main. Nothing is removed before its replacement is complete. The run ends when main reports
    /// that it streams to the node. Ctrl-C does not stop the run.
    #[command(after_help = "Examples:\n  interrex rejoin            (on the node that comes back)\n  \
                            interrex rejoin alpha --reason \"its power is back\"\n  \
                            interrex rejoin alpha --copy\n  \
                            interrex rejoin alpha --script > rejoin-alpha.sh    (its supervisor is gone)")]
    Rejoin(Rejoin),
    /// List and show runs (failovers, switchovers, rejoins), or cancel one.
    #[command(subcommand)]
    Run(RunCommand),
    /// Write the rows and keys that only an old main has to files, for review; nothing is applied.
    ///
    /// After a failover, the old main may hold rows that were committed there and never reached the new main. The
    /// command finds them in the kept data directory by their transactions, looks them up on the new main by primary
    /// key, and writes them out: a row whose key is absent as an INSERT statement, a row with other values with both
    /// versions. Tables without a primary key are named as left out.
    ///
    /// In Redis every key is compared: a key that the new main lacks is written out as a RESTORE command that never
    /// overwrites, a key with another value with both versions. Redis does not record when a key was written, so a key
    /// that was deleted on the new main since then looks missing.
    ///
    /// The kept copy and the new main are only read. Scratch copies are started where no other client can reach them,
    /// and are removed at the end.
    #[command(
        after_help = "Examples:\n  interrex salvage --kept /var/lib/postgresql/15/main.kept/NAME --output stranded\n  \
                            interrex salvage --kept main.kept/NAME --output stranded --main beta:5432 --table radacct\n  \
                            interrex salvage --kept-redis /var/lib/redis.kept/20261123T100000Z --output stranded\n  \
                            less stranded/README.txt"
    )]
    Salvage(Salvage),
    /// Check the journal: this node's append-only list of events.
    #[command(subcommand)]
    Journal(JournalCommand),
}

/// Arguments of `supervise`.
#[derive(Debug, Args)]
pub struct Supervise {
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Arguments of `demo`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Demo {
    /// Leave both nodes running at the end, and print what to try next.
    #[arg(long)]
    pub keep: bool,
    /// How long main may be silent before the secondary takes over, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub threshold: f64,
    /// The folder of the nodes; it must be empty or not exist [default: a new folder under /tmp].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Show the demo on standard error, and print the figures as one JSON document on standard output.
    #[arg(long)]
    pub json: bool,
}

/// The commands about the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration against itself and this machine, and print the values in force.
    ///
    /// Nothing is started or changed. Secrets are read, and never printed.
    #[command(
        after_help = "Example:\n  interrex config check --config interrex.toml && systemctl restart interrex"
    )]
    Check(ConfigCheck),
}

/// Arguments of `config check`.
#[derive(Debug, Args)]
pub struct ConfigCheck {
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// The source of the answer, and its form.
#[derive(Debug, Clone, Default, Args)]
pub struct Reading {
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE", conflicts_with = "journal")]
    pub config: Option<PathBuf>,
    /// Read only this journal or export, such as a copy from a lost server; no supervisor is asked.
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// Read cluster_events in this node's PostgreSQL, main or standby, instead of the journal.
    #[arg(long, conflicts_with = "journal")]
    pub cluster_events: bool,
    /// Print JSON: one document, or one object per line for a list.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `status` and `nodes`.
#[derive(Debug, Clone, Default, Args)]
pub struct Looking {
    /// Show the state at a moment, rebuilt from the events up to it; no supervisor is asked.
    ///
    /// A time (2027-01-15T08:00:00Z, 08:00:00 for today in UTC, 10m for so long ago), an event (2/17, as `interrex
    /// events` prints it), a moment of the hybrid clock (2027-01-15T08:00:00.000Z+3, or its number), or a position in
    /// cluster_events (3:1024, or @12:30 if it looks like a time of day).
    #[arg(long, value_name = "MOMENT")]
    pub at: Option<Moment>,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// The part of the stream.
#[derive(Debug, Clone, Default, Args)]
pub struct Span {
    /// Only this run: its id, or the start or end of its id that no other run shares.
    #[arg(long, value_name = "ID")]
    pub run: Option<String>,
    /// Only events from this time on: 2027-01-15T08:00:00Z, 08:00:00 (today, UTC), or 10m (ago).
    #[arg(long, value_name = "TIME")]
    pub since: Option<When>,
    /// Only events up to this time.
    #[arg(long, value_name = "TIME")]
    pub until: Option<When>,
}

/// Arguments of `timeline`.
#[derive(Debug, Args)]
pub struct Timeline {
    /// The part.
    #[command(flatten)]
    pub span: Span,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only this kind; repeat the option, or separate kinds with commas. `--help` lists every kind.
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// The part.
    #[command(flatten)]
    pub span: Span,
    /// Continue with new events as they are recorded, until Ctrl-C.
    #[arg(long, short, conflicts_with = "until")]
    pub follow: bool,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct Replay {
    /// Start at this moment: a time, an event as NODE/SEQ, a moment of the hybrid clock, or EPOCH:POS [default: the
    /// first event].
    #[arg(long, value_name = "MOMENT")]
    pub from: Option<Moment>,
    /// End at this moment [default: the newest event].
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Wait for Enter before each change; q and Enter end it.
    #[arg(long, conflicts_with = "speed")]
    pub step: bool,
    /// Speed factor: 1 is real time, 60 is a minute per second [default: all at once].
    #[arg(long, value_name = "N", value_parser = speed)]
    pub speed: Option<f64>,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The two moments, in any order; if only one is given, the other is now.
    ///
    /// A time, an event as NODE/SEQ, a moment of the hybrid clock, or a position in cluster_events.
    #[arg(long, value_name = "MOMENT", required = true)]
    pub at: Vec<Moment>,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The file to write, compressed if its name ends in .gz or .zst [default: -, standard output].
    ///
    /// The file is written under a temporary name in the same folder, and renamed when it is complete. An older export
    /// of the same node is replaced; any other file is left alone.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The part.
    #[command(flatten)]
    pub span: Span,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub struct Import {
    /// The export, or another journal; - is standard input.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The journal to make, or to add events to.
    #[arg(long, value_name = "NEW.db")]
    pub journal: PathBuf,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// The commands about runs.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// List every run: from which node to which, when, how long it took and how it ended.
    #[command(after_help = "Example:\n  interrex run list")]
    List(Reading),
    /// Show one run: the evidence, where the time went, what was lost, and each of its steps.
    #[command(after_help = "Examples:\n  interrex run show\n  interrex run show 5f3a12bc")]
    Show(RunShow),
    /// Cancel this node's run and take its steps back; past its point of no return a run only goes forward.
    ///
    /// If no run is going on, the command cancels the switchover that this node has scheduled.
    #[command(after_help = "Example:\n  interrex run cancel --reason \"wrong node\"")]
    Cancel(RunCancel),
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Count warnings as failures in the exit code.
    #[arg(long)]
    pub strict: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `run show`.
#[derive(Debug, Args)]
pub struct RunShow {
    /// The run's id, or the start or end of its id that no other run shares [default: the newest run; for a switchover
    /// the old main's run, with the certificate].
    #[arg(value_name = "ID")]
    pub run: Option<String>,
    /// The source.
    #[command(flatten)]
    pub reading: Reading,
}

/// Arguments of `salvage`.
#[derive(Debug, Args)]
pub struct Salvage {
    /// The old main's data directory, or a kept copy of it; no server may run on it.
    ///
    /// Its file system needs room for a scratch copy, unless it can share blocks between files.
    #[arg(long, value_name = "DIR", required_unless_present = "kept_redis")]
    pub kept: Option<PathBuf>,
    /// The folder of the old main's Redis (its `dir`), or a kept copy of it; no server may run on it.
    ///
    /// This needs `redis-server` on this machine, of the version that wrote the data or newer, and memory for all of the kept data.
    #[arg(long, value_name = "DIR")]
    pub kept_redis: Option<PathBuf>,
    /// Folder for the files; it must be empty or not exist.
    #[arg(long, value_name = "DIR")]
    pub output: PathBuf,
    /// The new main's PostgreSQL [default: the only server of the configuration that takes writes].
    #[arg(long, value_name = "HOST:PORT", requires = "kept")]
    pub main: Option<Address>,
    /// The new main's Redis [default: the only one of the configuration that is a master].
    #[arg(long, value_name = "HOST:PORT", requires = "kept_redis")]
    pub main_redis: Option<Address>,
    /// Only this table: TABLE, SCHEMA.TABLE or DATABASE.SCHEMA.TABLE; repeat the option for more [default: all].
    #[arg(long = "table", value_name = "TABLE", requires = "kept")]
    pub tables: Vec<String>,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    ///
    /// It names the superuser, the superuser's password and the password of Redis, which are the same on every node.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// The commands about a journal.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// Check every event's hash and its link to the event before it, and name the first bad event.
    ///
    /// Nothing is changed. The command also works while a supervisor runs, and then asks every supervisor how far its
    /// copies go: a copy that goes further than this node's own journal, or differs from it, is an alarm.
    #[command(after_help = "Examples:\n  interrex journal verify\n  \
                            interrex journal verify --journal copy/journal.db\n  \
                            interrex journal verify --journal incident.jsonl.zst")]
    Verify(Reading),
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds, from 0.1 to 3600".to_owned()),
    }
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.001..=1_000_000.0).contains(&speed) => Ok(speed),
        _ => Err("write a speed factor from 0.001 to 1000000".to_owned()),
    }
}

/// Every kind with its meaning, for `events --help`.
fn kinds_explained() -> String {
    let width = KINDS.iter().map(|kind| kind.name.len()).max().unwrap_or_default();
    let lines: Vec<String> =
        KINDS.iter().map(|kind| format!("  {:width$}  {}", kind.name, kind.meaning)).collect();
    format!(
        "Examples:\n  interrex events --since 1h --kind failover_withheld\n  interrex events --follow\n  \
         interrex events --json | jq 'select(.kind == \"step_finished\") | .payload'\n\nKinds:\n{}",
        lines.join("\n")
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_every_command_has_an_example() {
        let mut command = Arguments::command();
        command.build();
        command.clone().debug_assert();
        for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
            let commands: Vec<_> = match command.has_subcommands() {
                true => command.get_subcommands().filter(|command| command.get_name() != "help").collect(),
                false => vec![command],
            };
            for command in commands {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains("Example"), "`{}` teaches no example", command.get_name());
            }
        }
    }
}
