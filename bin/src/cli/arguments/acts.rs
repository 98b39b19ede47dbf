//! The arguments of commands that change a cluster.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::super::due::Due;

/// The longest time that open transactions may be given to finish.
const DRAIN_LIMIT: Duration = Duration::from_secs(3_600);

/// Arguments of `switchover`.
#[derive(Debug, Args)]
pub struct Switchover {
    /// The node that shall be main: its name or number.
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// How long open transactions may take to finish before they are ended; clients are served meanwhile.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = drain)]
    pub drain: Duration,
    /// The reason; it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Begin the switchover at this time: 2027-01-15T22:00:00Z, or +30m for 30 minutes from now; at most 30 days ahead.
    ///
    /// Main keeps the schedule in its journal and begins the switchover by itself, also after a restart. `interrex
    /// status` shows it, and `interrex run cancel` on main cancels it. If main cannot begin within five minutes of that
    /// time, it does not begin at all, and the event `switchover_unscheduled` gives the reason. The checks are made
    /// when the switchover is due.
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    pub at: Option<Due>,
    /// Only show what the switchover would do, how long writes would wait, what would be lost, and what would stop it.
    ///
    /// Main makes all the checks that a switchover begins with. Nothing is recorded or changed. Exit code 1: it would
    /// be refused now.
    #[arg(long)]
    pub dry_run: bool,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the run as one JSON document when it has ended.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `promote`.
#[derive(Debug, Args)]
pub struct Promote {
    /// Promote even while main gives a sign of life, whatever is lost by that; needs --reason.
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// The reason; it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only show what the run would do and what would stop it now. Nothing is recorded or changed. Exit code 1: it
    /// would be refused now.
    #[arg(long)]
    pub dry_run: bool,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the run as one JSON document when it has ended.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `rejoin`.
#[derive(Debug, Args)]
pub struct Rejoin {
    /// The node, by its name or number; its supervisor must answer [default: this node].
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Print a shell script that does the same by hand, for a node whose supervisor is gone. Read it, adapt it and run
    /// it there: its paths are those of this node's configuration.
    #[arg(long, conflicts_with_all = ["dry_run", "json"])]
    pub script: bool,
    /// Run that script on that machine, with the system's ssh.
    #[arg(long, value_name = "USER@HOST", conflicts_with_all = ["dry_run", "json", "script"])]
    pub ssh: Option<String>,
    /// Copy main's data directory, even if the node's own could be rewound, is of another system, or cannot be compared
    /// with main's. The old directory is kept.
    #[arg(long)]
    pub copy: bool,
    /// The reason; it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only show what the run would do and what would stop it now. Nothing is recorded or changed. Exit code 1: it
    /// would be refused now.
    #[arg(long)]
    pub dry_run: bool,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the run as one JSON document when it has ended.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `run cancel`.
#[derive(Debug, Args)]
pub struct RunCancel {
    /// Confirm, in place of another node that cannot answer, that it is not main. On a main that offers its role:
    /// withdraw the offer of a switchover whose target is gone for good. On a main that is fenced: let it serve again
    /// after a failover that promoted no node. Needs --reason.
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// The reason; it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// A drain has a limit, because main accepts no other run during it.
fn drain(text: &str) -> Result<Duration, String> {
    let drain = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is not a duration: write it as 30s, 500ms or 2min"))?;
    if drain > DRAIN_LIMIT {
        return Err(format!("open transactions get an hour at most, not {text}"));
    }
    Ok(drain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_cannot_be_read_is_told_with_what_can() {
        assert_eq!(drain("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(drain("abc").unwrap_err(), "`abc` is not a duration: write it as 30s, 500ms or 2min");
        assert!(drain("2h").unwrap_err().contains("an hour at most"));
    }
}
