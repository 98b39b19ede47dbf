//! The command line: parse, read, fold, show. What is shown is rebuilt from the events at every call.
//!
//! ```text
//! arguments ─> source (configuration, store: journal or export) ─fold─> story ┐
//!                  └─ live (GET /health, one second) ────────────────────────┴─> views ─> output
//! ```

mod acts;
mod ahead;
pub mod arguments;
mod by_hand;
mod changes;
mod cluster_events;
pub mod due;
pub mod exit;
pub mod failure;
mod follow;
mod interrupt;
mod live;
pub mod moment;
mod output;
mod outside;
mod progress;
mod sight;
mod source;
mod store;
mod story;
mod table;
#[cfg(test)]
mod tests;
mod views;
mod waiting;
mod watch;
pub mod when;
mod wiring;

pub(crate) use live::reachable;
pub(crate) use source::role_told;
#[cfg(test)]
pub(crate) use tests::stream::report as healthy_report;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    arguments::{Arguments, Command, ConfigCommand, JournalCommand, RunCommand},
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    outside::{Outside, World},
};
use crate::{config::Config, harmless::harmless_lines};

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(answer) => {
            // help and version are answers too; an error of their output is ignored
            let _ = answer.print();
            return if answer.use_stderr() { Exit::WrongUsage } else { Exit::Fine }.into();
        }
    };
    run(arguments.command, &World, &mut Output::standard()).into()
}

/// Runs one command, and shows its failure on standard error.
fn run(command: Command, outside: &dyn Outside, output: &mut Output<'_>) -> Exit {
    let done = dispatch(command, outside, output).and_then(|exit| output.flush().map(|()| exit));
    match done {
        Ok(exit) => exit,
        Err(failure) if failure.is_closed_pipe() => Exit::Fine,
        Err(failure) => {
            // what was found before the failure comes before its message
            let _ = output.flush();
            tell(&failure);
            failure.exit()
        }
    }
}

fn tell(failure: &Failure) {
    let style = Style { colour: output::colour_on(&std::io::stderr()), width: None };
    let words = harmless_lines(&failure.in_words());
    let rest = words.strip_prefix("error:").unwrap_or(&words);
    output::say(&format!("{}{rest}", style.paint(Tone::Bad, "error:")));
}

fn dispatch(command: Command, outside: &dyn Outside, output: &mut Output<'_>) -> Result<Exit, Failure> {
    match command {
        Command::Supervise(arguments) => {
            let path = source::config_path(arguments.config.as_deref())?;
            wiring::supervise(Config::load(&path)?)
        }
        Command::Demo(options) => wiring::demo(options),
        Command::Config(ConfigCommand::Check(arguments)) => views::config::check(&arguments, output),
        Command::Status(arguments) => views::status::show(&arguments, outside, output),
        Command::Nodes(arguments) => views::nodes::show(&arguments, outside, output),
        Command::Timeline(arguments) => views::timeline::show(&arguments, outside, output),
        Command::Events(arguments) => views::events::show(&arguments, outside, output),
        Command::Replay(arguments) => views::replay::show(&arguments, outside, output),
        Command::Diff(arguments) => views::diff::show(&arguments, outside, output),
        Command::Export(arguments) => views::export::run(&arguments, outside, output),
        Command::Import(arguments) => views::import::run(&arguments, output),
        Command::Switchover(arguments) => acts::switchover(&arguments, outside, output),
        Command::Doctor(arguments) => views::doctor::show(&arguments, output),
        Command::Promote(arguments) => acts::promote(&arguments, outside, output),
        Command::Rejoin(arguments) => acts::rejoin(&arguments, outside, output),
        Command::Run(RunCommand::Cancel(arguments)) => acts::cancel(&arguments, output),
        Command::Run(RunCommand::List(reading)) => views::runs::list(&reading, output),
        Command::Run(RunCommand::Show(arguments)) => views::run::show(&arguments, output),
        Command::Salvage(arguments) => wiring::salvage(arguments, output),
        Command::Journal(JournalCommand::Verify(reading)) => views::verify::show(&reading, outside, output),
    }
}
