//! Where the commands that run something begin.

use std::time::Duration;

use super::{arguments::Demo, exit::Exit, failure::Failure};
use crate::{
    config::Config,
    demo::{self, DemoOptions, Ended},
};

/// `interrex supervise`: until it is asked to end.
pub(super) fn supervise(config: Config) -> Result<Exit, Failure> {
    crate::daemon::supervise(config)?;
    Ok(Exit::Fine)
}

/// `interrex demo`.
pub(super) fn demo(options: Demo) -> Result<Exit, Failure> {
    let show = if options.json { demo::run_as_json } else { demo::run };
    let options = DemoOptions {
        keep: options.keep,
        threshold: Duration::from_secs_f64(options.threshold),
        folder: options.folder,
    };
    match show(options)? {
        Ended::AsPromised => Ok(Exit::Fine),
        Ended::Otherwise => Ok(Exit::Failed),
        Ended::Interrupted => Ok(Exit::Interrupted),
    }
}
