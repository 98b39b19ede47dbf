//! A rejoin as a shell script, for a node whose supervisor is gone.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use interrex_actors::replication::postgres::slot_name;
use interrex_events::{Address, NodeId, postgres::pinned_for_libpq};

use super::{acts::nodes, arguments::Rejoin, exit::Exit, failure::Failure, output::Output};
use crate::{config::Config, daemon::find_programs};

const SCRIPT: &str = include_str!("templates/rejoin.sh");

/// Prints the script, or runs it there.
pub(super) fn rejoin(
    config: &Config,
    (returning, main): (NodeId, NodeId),
    arguments: &Rejoin,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let script = script(config, (returning, main), arguments.copy)?;
    let Some(host) = &arguments.ssh else {
        output.text(&script)?;
        return Ok(Exit::Fine);
    };
    let other = |error: std::io::Error| Failure::Other {
        what: format!("running the script on {host} with ssh"),
        source: Some(error.into()),
    };
    // what stands after the host is for that host, never an option of ssh's
    let mut ssh = Command::new("ssh");
    ssh.args(["--", host, "sh", "-s"]).stdin(Stdio::piped());
    let mut running = ssh.spawn().map_err(other)?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(other)?;
    }
    let ended = running.wait().map_err(other)?;
    Ok(if ended.success() { Exit::Fine } else { Exit::Failed })
}

fn script(config: &Config, (returning, main): (NodeId, NodeId), copy: bool) -> Result<String, Failure> {
    let unusable = |what: String| Failure::Other { what, source: None };
    if returning == main {
        return Err(unusable("that node is main: it has nobody to come back behind".to_owned()));
    }
    let name = |node: NodeId| {
        let known = nodes(config).into_iter().find(|(id, ..)| *id == node);
        known.map_or_else(|| format!("node {node}"), |(_, name, _)| name.to_owned())
    };
    let server = match config.peers.iter().find(|peer| peer.id == main) {
        Some(peer) => peer.postgres.clone(),
        None => Address::new(config.address(), config.postgres.port),
    };
    let postgres = &config.postgres;
    let programs = match &postgres.bin_dir {
        Some(folder) => folder.clone(),
        None => find_programs(&postgres.data_dir).map_err(unusable)?,
    };
    let log = postgres.log_file.clone().unwrap_or_else(|| config.beside_journal("postgres.log"));
    let file = |path: &Path| quoted(&path.display().to_string());
    let optional = |path: &Option<std::path::PathBuf>| path.as_deref().map_or_else(|| quoted(""), file);
    let values = [
        ("{NAME}", name(returning)),
        ("{MAIN}", name(main)),
        ("{DATA_DIR}", file(&postgres.data_dir)),
        ("{PROGRAMS}", file(&programs)),
        ("{KEPT}", file(&config.kept_folder())),
        ("{CONFIG_FILE}", optional(&config.postgres_config_file())),
        ("{LOG}", file(&log)),
        ("{LOCK}", quoted(&format!("{}.lock", config.node.journal.display()))),
        ("{MAIN_HOST}", quoted(&server.host)),
        ("{MAIN_PORT}", quoted(&server.port.to_string())),
        ("{DATABASE}", quoted(&postgres.database)),
        ("{ADMIN}", quoted(&postgres.user)),
        ("{ADMIN_PASSWORD_FILE}", optional(&postgres.password_file)),
        ("{REPLICATOR}", quoted(&postgres.replication_user)),
        ("{REPLICATOR_PASSFILE}", optional(&postgres.replication_passfile)),
        ("{SLOT}", slot_name(returning)),
        ("{APPLICATION}", format!("interrex_{returning}")),
        ("{PINNED}", quoted(&pinned_for_libpq().1)),
        ("{COPY}", if copy { "yes" } else { "no" }.to_owned()),
    ];
    Ok(values.iter().fold(SCRIPT.to_owned(), |script, (place, value)| script.replace(place, value)))
}

/// A word that a shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word_whatever_is_in_it() {
        for word in ["", "/var/lib/it's here", "$(reboot)", "`reboot`", "a\\b\nc"] {
            let said =
                Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
            assert_eq!(said.stdout, word.as_bytes());
        }
    }
}
