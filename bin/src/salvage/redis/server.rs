//! Redis on the scratch copy: only this salvage can reach it, and it writes no files.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::{
        Done, SalvageError,
        scratch::{LOOK, Scratch, failed},
    },
    session::{Info, Server, SessionError},
    source::Source,
};

/// Time limit for loading.
const LOAD_LIMIT: Duration = Duration::from_secs(6 * 3_600);
/// How many checks of a loading server are between two progress messages: one message every ten seconds.
const LOOKS_UNTIL_TOLD: u32 = 200;
/// How many checks without an answer are allowed: five minutes. A server answers while it loads.
const MOST_SILENT_LOOKS: u32 = 6_000;
/// The longest path that a socket can have (`sun_path`); Redis would cut off a longer one.
const LONGEST_SOCKET: usize = 107;
/// Settings instead of the kept server's: no network, no snapshots, no rewriting, no eviction, and as many databases as a server
/// may have. A file that a crash cut off is loaded up to its end.
const SETTINGS: [(&str, &str); 13] = [
    ("port", "0"),
    ("unixsocketperm", "700"),
    ("daemonize", "no"),
    ("supervised", "no"),
    ("databases", "16384"),
    ("save", ""),
    ("aof-load-truncated", "yes"),
    ("auto-aof-rewrite-percentage", "0"),
    ("appendfsync", "no"),
    ("maxmemory", "0"),
    ("maxmemory-policy", "noeviction"),
    ("loglevel", "notice"),
    ("logfile", ""),
];

/// Starts Redis, and waits until it has loaded all keys.
pub(super) async fn start(
    scratch: &mut Scratch,
    program: &Path,
    source: &Source,
    tell: &dyn Fn(&str),
) -> Done<Server> {
    let doing = format!("starting {} (redis.program) on the scratch copy", program.display());
    let socket = scratch.sockets().join("redis.sock");
    if socket.as_os_str().len() > LONGEST_SOCKET {
        let words = format!(
            "{doing}: the path of its socket is too long: set TMPDIR to a folder with a shorter path"
        );
        return Err(SalvageError::Failed(words));
    }
    let settings = write_settings(scratch, &socket, source).map_err(failed(&doing))?;
    let log = scratch.log_file(&doing)?;
    let mut command = scratch.run_as().command(program);
    command.arg(settings);
    command.stdout(log.try_clone().map_err(failed(&doing))?).stderr(log);
    scratch.spawn(command, &doing)?;
    let server = Server::on_socket(socket);
    match tokio::time::timeout(LOAD_LIMIT, loaded(scratch, &server, &doing, tell)).await {
        Ok(loaded) => loaded.map(|()| server),
        Err(_) => {
            Err(SalvageError::Failed(format!("{doing}: Redis did not load its data within {LOAD_LIMIT:?}")))
        }
    }
}

async fn loaded(scratch: &mut Scratch, server: &Server, doing: &str, tell: &dyn Fn(&str)) -> Done<()> {
    let (mut looks, mut silent) = (0_u32, 0_u32);
    loop {
        match persistence(server).await {
            Ok(persistence) if persistence.field("loading") == Some("0") => return Ok(()),
            Ok(persistence) => {
                (looks, silent) = (looks.saturating_add(1), 0);
                if looks.is_multiple_of(LOOKS_UNTIL_TOLD) {
                    let percent = persistence.field("loading_loaded_perc").unwrap_or("0");
                    tell(&format!("loading the copy: {percent} %"));
                }
            }
            Err(error) if silent > MOST_SILENT_LOOKS => return Err(error.into()),
            Err(_) => silent = silent.saturating_add(1),
        }
        if !scratch.runs() {
            let words = last_words(&scratch.log());
            return Err(SalvageError::Failed(format!("{doing}: Redis ended: {words}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn persistence(server: &Server) -> Result<Info, SessionError> {
    server.connect().await?.info("persistence").await
}

fn write_settings(scratch: &Scratch, socket: &Path, source: &Source) -> io::Result<PathBuf> {
    let (data_dir, socket) = (scratch.data_dir().display().to_string(), socket.display().to_string());
    let places = [("dir", data_dir.as_str()), ("unixsocket", socket.as_str())];
    let all = SETTINGS.into_iter().chain(places).chain(source.settings());
    let lines: String = all.map(|(name, value)| format!("{name} {}\n", quoted(value))).collect();
    scratch.write_settings("redis.conf", &lines)
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Why Redis ended: the last lines of its log, without advice about the machine.
fn last_words(log: &str) -> String {
    let is_told = |line: &&str| !line.trim().is_empty() && !line.to_lowercase().contains("warning");
    let told: Vec<&str> = log.lines().filter(is_told).collect();
    let last = told.iter().skip(told.len().saturating_sub(3)).map(|line| without_head(line));
    let words = last.collect::<Vec<_>>().join(" / ");
    if words.is_empty() { "it wrote no message".to_owned() } else { words }
}

/// A line of its log without process, role and time.
fn without_head(line: &str) -> &str {
    [" # ", " * ", " - "].iter().find_map(|mark| Some(line.split_once(mark)?.1)).unwrap_or(line).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_last_words_are_told_without_what_stands_before_them() {
        let log = "7:C 23 Nov 2026 10:00:00.000 # WARNING Memory overcommit must be enabled!\n\
                   7:M 23 Nov 2026 10:00:00.001 # Bad file format reading the append only file x\n\n";
        assert_eq!(last_words(log), "Bad file format reading the append only file x");
        assert_eq!(last_words(""), "it wrote no message");
        assert_eq!(quoted("a \"b\" \\"), r#""a \"b\" \\""#);
    }
}
