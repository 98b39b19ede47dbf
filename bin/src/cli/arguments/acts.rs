//! The arguments of commands that change a cluster.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::super::due::Due;

/// How long open transactions may be given to finish, at most.
const DRAIN_LIMIT: Duration = Duration::from_secs(3_600);

/// Arguments of `switchover`.
#[derive(Debug, Args)]
pub struct Switchover {
    /// Who shall be main: a node's name or number.
    #[arg(long, value_name = "NODE")]
    pub to: String,
    /// How long open transactions may take to finish before they are ended; clients are served meanwhile.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = drain)]
    pub drain: Duration,
    /// Why: it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Begin it at this time: 2027-01-15T22:00:00Z, or +30m for so long from now; at most 30 days ahead.
    ///
    /// Main keeps it in its journal and begins it by itself, also after a restart; `interrex status` shows it, and
    /// `interrex run cancel` on main ends it. If main cannot begin it within five minutes of that time, it never does:
    /// the event `switchover_unscheduled` says why. The checks are made when it is due.
    #[arg(long, value_name = "TIME", conflicts_with = "dry_run")]
    pub at: Option<Due>,
    /// Only tell what it would do, how long writes would wait, what would be lost, and what would stop it.
    ///
    /// Main looks at everything that the switchover looks at first. Nothing is recorded or changed. Exit code 1: it
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

/// Arguments of `promote`.
#[derive(Debug, Args)]
pub struct Promote {
    /// Also while main gives a sign of life, and whatever is lost by it; needs --reason.
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// Why: it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only tell what it would do and what would stop it, by what is looked at now. Nothing is recorded or changed. Exit
    /// code 1: it would be refused now.
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
    /// Which node: its name or number; its supervisor must answer [default: this node].
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Print a shell script that does the same by hand, for a node whose supervisor is gone: to be read, adapted and run
    /// there. Paths are those of this node's configuration.
    #[arg(long, conflicts_with_all = ["dry_run", "json"])]
    pub script: bool,
    /// Run that script there, with the system's ssh.
    #[arg(long, value_name = "USER@HOST", conflicts_with_all = ["dry_run", "json", "script"])]
    pub ssh: Option<String>,
    /// Copy main's data anew, even where the node's own could be rewound, or are not of main's line at all. The old
    /// directory is kept.
    #[arg(long)]
    pub copy: bool,
    /// Why: it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only tell what it would do and what would stop it, by what is looked at now. Nothing is recorded or changed. Exit
    /// code 1: it would be refused now.
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
    /// Answer for another node that cannot: it is not main. On a main that offers its role, withdraws the offer of a
    /// switchover whose target is gone for good; on a main that is fenced, lets it serve again after a failover that
    /// promoted nobody. Needs --reason.
    #[arg(long, requires = "reason")]
    pub force: bool,
    /// Why: it is kept with the run.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// The configuration [default: $INTERREX_CONFIG, ./interrex.toml, /etc/interrex/interrex.toml].
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON document.
    #[arg(long)]
    pub json: bool,
}

/// A drain is bounded: main cannot be asked for another run meanwhile.
fn drain(text: &str) -> Result<Duration, String> {
    let drain = humantime::parse_duration(text)
        .map_err(|_| format!("`{text}` is no duration: write it as 30s, 500ms or 2min"))?;
    if drain > DRAIN_LIMIT {
        return Err(format!("transactions are waited for an hour at most, not {text}"));
    }
    Ok(drain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_cannot_be_read_is_told_with_what_can() {
        assert_eq!(drain("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(drain("abc").unwrap_err(), "`abc` is no duration: write it as 30s, 500ms or 2min");
        assert!(drain("2h").unwrap_err().contains("an hour at most"));
    }
}
