//! A rejoin as a shell script, for a node whose supervisor is gone.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use interrex_actors::ports::slot_name;
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
    // the words after the host are for that host, never an option of ssh
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
        return Err(unusable("that node is main: it has no main to follow".to_owned()));
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
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        path::PathBuf,
        process::Output,
    };

    use super::*;

    /// The servers' user.
    const NOBODY: u32 = 65_534;

    /// A folder of root's in which the servers' user has one of its own, and root has something to guard.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                return None; // root's rights are what the test is about
            }
            let place = Self(tempfile::tempdir().unwrap());
            fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
            for (name, mode, owner) in [("theirs", 0o755, NOBODY), ("roots", 0o700, 0)] {
                let folder = place.at(name);
                fs::create_dir(&folder).unwrap();
                fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
                chown(&folder, Some(owner), None).unwrap();
            }
            fs::create_dir(place.at("roots/.ssh")).unwrap();
            Some(place)
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A link that the servers' user made.
        fn theirs(&self, link: &str, target: &str) {
            symlink(self.at(target), self.at(link)).unwrap();
            std::os::unix::fs::lchown(self.at(link), Some(NOBODY), None).unwrap();
        }

        /// Runs the script's own functions, with the servers' user as the owner.
        fn run(&self, commands: &str) -> Output {
            let part = |from: &str, to: &str| {
                let from = SCRIPT.find(from).unwrap();
                &SCRIPT[from..from + SCRIPT[from..].find(to).unwrap()]
            };
            let functions =
                [part("say() {", "[ -f \"$data_dir"), part("as_owner() {", "# passwords go")].concat();
            let script = format!("set -eu\nowner=nobody\n{functions}\n{commands}");
            Command::new("sh")
                .args(["-c", &script, "sh"])
                .arg(self.0.path())
                .env("LC_ALL", "C")
                .output()
                .unwrap()
        }

        fn refuses(&self, commands: &str, words: &str) {
            let said = self.run(commands);
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert!(
                !said.status.success() && why.contains("error: ") && why.contains(words),
                "{commands}: {why}"
            );
            let guarded = fs::symlink_metadata(self.at("roots/.ssh")).unwrap();
            assert_eq!(guarded.uid(), 0, "{commands}");
            assert_eq!(fs::read_dir(self.at("roots/.ssh")).unwrap().count(), 0, "{commands}");
            assert_eq!(fs::read_dir(self.at("roots")).unwrap().count(), 1, "{commands}");
        }

        fn does(&self, commands: &str) {
            let said = self.run(commands);
            assert!(said.status.success(), "{commands}: {said:?}");
        }

        fn owner(&self, name: &str) -> u32 {
            fs::symlink_metadata(self.at(name)).unwrap().uid()
        }
    }

    #[test]
    fn root_gives_away_nothing_that_the_servers_user_links_to() {
        let Some(place) = Place::new() else { return };
        place.theirs("theirs/kept", "roots/.ssh");
        place.refuses("folder \"$1/theirs/kept\"", "theirs/kept is there");
        place.refuses("folder \"$1/theirs/kept/new\"", "put a link there");
        place.theirs("theirs/far", "roots");
        place.refuses("folder \"$1/theirs/far/.ssh/a/b\"", "put a link there");
        // nor where a link of root's leads to one of that user's
        symlink(place.at("theirs/far"), place.at("near")).unwrap();
        place.refuses("folder \"$1/near/new\"", "theirs/far");
        place.theirs("theirs/gone", "roots/new");
        place.refuses("folder \"$1/theirs/gone\"", "theirs/gone is there");
        // what is there and is root's stays root's
        place.does("folder \"$1/roots\"");
        assert_eq!(place.owner("roots"), 0);
    }

    #[test]
    fn a_folder_is_the_servers_users_wherever_it_is_made() {
        let Some(place) = Place::new() else { return };
        place.does("folder \"$1/theirs/a\" \"$1/theirs/a/b\" && folder \"$1/theirs/a\"");
        assert_eq!((place.owner("theirs/a"), place.owner("theirs/a/b")), (NOBODY, NOBODY));
        // where only root may make it, also through a link of root's
        fs::create_dir(place.at("volume")).unwrap();
        symlink("volume", place.at("link")).unwrap();
        place.does("folder \"$1/link/x/kept\" \"$1/link/x/kept/1\"");
        let owners = ["volume/x", "volume/x/kept", "volume/x/kept/1"].map(|name| place.owner(name));
        assert_eq!(owners, [0, NOBODY, NOBODY]);
    }

    #[test]
    fn root_renames_and_removes_nothing_through_a_link() {
        let Some(place) = Place::new() else { return };
        // the data directory lies in root's folder, the kept one is the user's
        for name in ["data", "data.by-script"] {
            fs::create_dir(place.at(name)).unwrap();
            fs::write(place.at(name).join("file"), name).unwrap();
            chown(place.at(name), Some(NOBODY), None).unwrap();
        }
        place.theirs("theirs/1", "roots");
        let keep = "data_dir=$1/data; keep_in \"$1/theirs/1\"";
        place.refuses(keep, "could not be renamed");
        place.theirs("theirs/pgdata", "roots/.ssh");
        place.refuses("data_dir=$1/data; keep_in \"$1/theirs\"", "could not be renamed");
        place.does("folder \"$1/theirs/2\"; data_dir=$1/data; keep_in \"$1/theirs/2\"");
        assert!(place.at("theirs/2/pgdata/file").exists());
        place.does("in_folder \"$1\" mv -T \"$1/data.by-script\" \"$1/data\"");
        assert!(place.at("data/file").exists());
        place.does("away \"$1/data\"");
        assert!(!place.at("data").exists());
        // of a link the link itself goes
        place.does("away \"$1/theirs/pgdata\"");
        assert!(place.at("roots/.ssh").exists() && !place.at("theirs/pgdata").is_symlink());
        place.theirs("theirs/far", "roots");
        place.refuses("away \"$1/theirs/far/.ssh\"", "put a link there");
    }

    #[test]
    fn a_word_stays_one_word_whatever_is_in_it() {
        for word in ["", "/var/lib/it's here", "$(reboot)", "`reboot`", "a\\b\nc"] {
            let said =
                Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]).output().unwrap();
            assert_eq!(said.stdout, word.as_bytes());
        }
    }
}
