//! Where the commands that run something begin.

use std::time::Duration;

use tokio::task::LocalSet;

use super::{
    arguments::{Demo, Salvage},
    exit::Exit,
    failure::Failure,
    output::{self, Output},
    source,
};
use crate::{
    config::Config,
    daemon,
    demo::{self, DemoOptions, Ended},
    salvage::{self, SalvageOptions},
};

/// `interrex supervise`: until it is asked to end.
pub(super) fn supervise(config: Config) -> Result<Exit, Failure> {
    daemon::supervise(config, &daemon::OnThisMachine)?;
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

/// `interrex salvage`.
pub(super) fn salvage(arguments: Salvage, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let config = Config::load(&source::config_path(arguments.config.as_deref())?)?;
    let Salvage { kept, kept_redis, output: folder, main, main_redis, tables, json, .. } = arguments;
    let options = SalvageOptions { kept, kept_redis, output: folder, main, main_redis, tables };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // a table's name is its owner's to choose
    let tell = |words: &str| output::say(&output::harmless(words));
    let summary = LocalSet::new().block_on(&runtime, salvage::salvage(&options, &config, tell))?;
    if json {
        output.json(&summary)?;
    } else {
        output.text(&summary.in_words())?;
        output.line(&format!("\nnext: read {}", options.output.join("README.txt").display()))?;
    }
    Ok(if summary.has_trouble() { Exit::Incomplete } else { Exit::Fine })
}
