//! What the program's exit code means. Scripts rely on it: a number is never given another meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The command did its work; `status`: the cluster is healthy.
    Fine = 0,
    /// The command failed.
    Failed = 1,
    /// The command line is wrong.
    WrongUsage = 2,
    /// The configuration is missing or wrong.
    ConfigurationWrong = 3,
    /// The journal or export is missing, damaged, another node's, or from a newer version; or its disk accepts no more.
    JournalUnusable = 4,
    /// Another supervisor has the journal, or listens where this one would.
    InUse = 5,
    /// `status`: the cluster is not healthy, or no supervisor answers.
    NotHealthy = 6,
    /// No such run or event exists.
    NotFound = 7,
    /// `doctor`: a failover, switchover or rejoin would not work, or that it would work is not proved.
    NotReady = 8,
    /// `salvage`: something that it names could not be read or written; the rest is in the output.
    Incomplete = 9,
    /// The command was interrupted, as by Ctrl-C, and cleaned up.
    Interrupted = 130,
}

/// The same for people, at the end of `interrex --help`.
pub(super) const EXPLAINED: &str = "\
Exit codes:
  0  the command did its work; `status`: the cluster is healthy
  1  the command failed
  2  the command line is wrong
  3  the configuration is missing or wrong
  4  the journal or export is missing, damaged, another node's, or from a newer version, or its disk accepts no more
  5  another supervisor has the journal or the port
  6  `status`: not healthy, or no supervisor answers
  7  no such run or event exists
  8  `doctor`: a failover, switchover or rejoin would not work now, or that it would work is not proved
  9  `salvage`: something that it names could not be read or written; the rest is in the output
  130  the command was interrupted, as by Ctrl-C, and cleaned up

Environment:
  INTERREX_CONFIG           the configuration file, where --config is not given
  INTERREX_<SECTION>_<KEY>  overrides a key of it, such as INTERREX_FAILOVER_PROBE_INTERVAL=2s
  INTERREX_LOG              how much `supervise` says on standard error, such as debug
  NO_COLOR                  no colours, also on a terminal

At 3 in the morning, begin with:  interrex status";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
