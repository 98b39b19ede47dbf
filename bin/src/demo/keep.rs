//! What stays after the demo, and what to do with it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use interrex_projections::human_bytes;

use super::{DemoError, screen::Screen};
use crate::sandbox::{ALPHA, BETA, Sandbox, SandboxError};

const STOP: &str = include_str!("templates/stop.sh");

/// Everything goes on without the demo.
pub(super) fn leave_running(sandbox: Sandbox, screen: &mut Screen) -> Result<(), DemoError> {
    let stop = write_stop_script(sandbox.folder())?;
    let program = std::env::current_exe().map_err(DemoError::System)?;
    let program = program.display();
    let (alpha, beta) = (sandbox.node(ALPHA)?, sandbox.node(BETA)?);
    let config = beta.config();
    let config = config.display();
    let secret = beta.secrets_dir().join("postgres");
    let psql = sandbox.postgres_programs().join("psql");
    screen.line(&format!(
        "\nAll of beta's processes still run. To look at them:\n  \
         {program} status --config {config}\n  \
         {program} run show --config {config}\n  \
         {program} timeline --config {config} --since 5m\n  \
         PGPASSWORD=$(cat {}) {} -h 127.0.0.1 -p {} -U interrex postgres -c 'SELECT node_id, name, role, status FROM \
         interrex.cluster_nodes'\n  redis-cli -p {} ROLE",
        secret.display(),
        psql.display(),
        beta.postgres_port,
        beta.redis_port,
    ))?;
    if let Some(question) = sandbox.radius_question(BETA) {
        let loud = question.replacen(" -q ", " ", 1);
        screen.line(&format!("  {loud}"))?;
    }
    screen.line(&format!(
        "Start the old main's supervisor. It sees that beta is main of a newer epoch, and keeps its PostgreSQL stopped:\n  \
         {program} supervise --config {}\n\
         Then let it follow main (what only it has is kept), and move the role back without loss:\n  \
         {program} rejoin alpha --config {}\n  \
         {program} switchover --to alpha --config {}\n\
         To stop everything:\n  {}",
        alpha.config().display(),
        beta.config().display(),
        beta.config().display(),
        stop.display()
    ))?;
    sandbox.leave_running();
    Ok(())
}

/// The journals and log files stay, to be read afterwards.
pub(super) fn leave_files(mut sandbox: Sandbox, screen: &mut Screen) -> Result<(), DemoError> {
    sandbox.keep_files();
    sandbox.end_processes()?;
    sandbox.remove_data()?;
    let folder = sandbox.folder().display();
    let journal = sandbox.node(BETA)?.journal();
    let program = std::env::current_exe().map_err(DemoError::System)?;
    screen.line(&format!(
        "\nAll processes of the demo have ended. Journals, configurations and log files stay, {} in {folder}\n\
         To read on, and to remove them:\n  \
         {} run show --journal {}\n  \
         rm -r {folder}",
        human_bytes(size(sandbox.folder())),
        program.display(),
        journal.display()
    ))
}

fn write_stop_script(folder: &Path) -> Result<std::path::PathBuf, DemoError> {
    let file = folder.join("stop");
    let text = STOP.replace("{FOLDER}", &folder.to_string_lossy());
    let written =
        fs::write(&file, text).and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o755)));
    written.map_err(|error| SandboxError::failed(format!("writing {}", file.display()), error))?;
    Ok(file)
}

/// Bytes of all files beneath a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size(&entry.path()),
            _ => entry.metadata().map_or(0, |metadata| metadata.len()),
        })
        .sum()
}
