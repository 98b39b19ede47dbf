//! The demo as a newcomer runs it: its figures against the outside world, and Ctrl-C at any moment.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use interrex::sandbox::{Done, SandboxError, until};
use interrex_events::journal::{JournalReader, Selection};
use interrex_tests::{interrex, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A demo in a folder of its own; whatever it leaves behind ends with the test.
struct Demo {
    child: Child,
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl Demo {
    fn start(arguments: &[&str]) -> Done<Self> {
        let failed = |error: std::io::Error| SandboxError::failed("starting the demo", error);
        // not the test's own temporary folder: servers run as another user and must get in
        let parent = tempfile::Builder::new().prefix("interrex-demo-test-").tempdir().map_err(failed)?;
        fs::set_permissions(parent.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .map_err(failed)?;
        let folder = parent.path().join("demo");
        let mut command = Command::new(interrex());
        command.args(["demo", "--threshold", "2", "--folder"]).arg(&folder).args(arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        Ok(Self { child, folder, _parent: parent })
    }

    /// Waits for the end; standard output and the exit code.
    async fn end(&mut self) -> Done<(String, Option<i32>)> {
        // its output is short enough for the pipes to hold
        let end = until("the demo ends", Duration::from_secs(120), || {
            let ended = self.child.try_wait().ok().flatten();
            async move { ended.ok_or_else(|| "it runs".to_owned()) }
        })
        .await?;
        let mut output = String::new();
        if let Some(stdout) = self.child.stdout.as_mut() {
            std::io::Read::read_to_string(stdout, &mut output)
                .map_err(|error| SandboxError::failed("reading", error))?;
        }
        Ok((output, end.code()))
    }

    /// Processes that work in the demo's folder, or were started with it in their arguments.
    fn processes(&self) -> Vec<String> {
        let folder = self.folder.to_string_lossy().into_owned();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let process = entry.path();
            let works_there =
                fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.folder));
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if works_there || (command.contains(&folder) && entry.file_name() != *self.child.id().to_string())
            {
                found.push(command);
            }
        }
        found
    }

    async fn nothing_is_left(&self) -> Done<()> {
        until("no process of the demo is left", Duration::from_secs(20), || async {
            let left = self.processes();
            if left.is_empty() { Ok(()) } else { Err(left.join("; ")) }
        })
        .await
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let stop = self.folder.join("stop");
        if stop.exists() {
            let _ = Command::new(stop).stdout(Stdio::null()).status();
        }
        // a demo that is asked to end cleans up by itself
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

/// What a program outside says; it must succeed.
fn outside(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(program).args(arguments).envs(environment.iter().copied()).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn its_figures_agree_with_psql_redis_cli_and_radclient() {
    run(async {
        let mut demo = Demo::start(&["--keep", "--json"])?;
        let (output, code) = demo.end().await?;
        assert_eq!(code, Some(0), "{output}");
        let figures: Value = serde_json::from_str(&output).unwrap();
        assert_eq!(
            (&figures["new_main"], &figures["run_end"], &figures["epoch"]),
            (&"beta".into(), &"completed".into(), &2.into())
        );

        let text = fs::read_to_string(demo.folder.join("beta/interrex.toml")).unwrap();
        let config: toml::Table = toml::from_str(&text).unwrap();
        let secret = |file: &str| fs::read_to_string(demo.folder.join("beta/secrets").join(file)).unwrap();
        let port = |section: &str| config[section]["port"].to_string();

        let password = secret("postgres");
        let psql = |sql: &str| {
            let port = port("postgres");
            let arguments = ["-h", "127.0.0.1", "-p", &port, "-U", "interrex", "-Atc", sql, "postgres"];
            outside("psql", &arguments, &[("PGPASSWORD", password.trim())])
        };
        assert_eq!(psql("SELECT pg_is_in_recovery()"), "f");
        assert_eq!(figures["postgres_takes_writes"], true);
        let log = fs::read_to_string(demo.folder.join("acknowledged.log")).unwrap();
        let told: BTreeSet<i64> =
            log.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        let there: BTreeSet<i64> =
            psql("SELECT id FROM written").lines().map(|id| id.parse().unwrap()).collect();
        assert_eq!(figures["rows_acknowledged"], told.len());
        assert_eq!(figures["rows_lost"], told.difference(&there).count());

        let role = outside("redis-cli", &["-p", &port("redis"), "ROLE"], &[]);
        assert_eq!(role.lines().next(), figures["redis_role"].as_str());

        let question = config["dependents"][0]["ready_command"].as_array().unwrap();
        let question: Vec<&str> =
            question.iter().filter_map(|word| word.as_str()).filter(|word| *word != "-q").collect();
        let answer = outside(question[0], &question[1..], &[]);
        assert!(answer.contains("Received Access-Accept"), "{answer}");
        assert_eq!(figures["radius_accepts"], true);

        outside(&demo.folder.join("stop").to_string_lossy(), &[], &[]);
        demo.nothing_is_left().await
    });
}

/// Interrupts a demo as soon as something is to be seen in its folder.
fn interrupted_when(is_so: impl Fn(&Path) -> bool) {
    run(async {
        let mut demo = Demo::start(&[])?;
        let folder = demo.folder.clone();
        until("the moment has come", Duration::from_secs(60), || async {
            if is_so(&folder) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
        kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
        let (output, code) = demo.end().await?;
        assert_eq!(code, Some(130), "{output}");
        demo.nothing_is_left().await
    });
}

#[test]
fn ctrl_c_while_the_data_directories_are_made_leaves_no_process_behind() {
    interrupted_when(|folder| folder.join("alpha/pgdata").exists());
}

#[test]
fn ctrl_c_while_the_servers_start_leaves_no_process_behind() {
    interrupted_when(|folder| folder.join("beta/journal.db").exists());
}

#[test]
fn ctrl_c_in_the_middle_of_the_failover_leaves_no_process_behind() {
    interrupted_when(|folder| {
        let selection = Selection { kinds: vec!["epoch_opened".to_owned()], ..Selection::default() };
        let journal = JournalReader::open(&folder.join("beta/journal.db"));
        journal.is_ok_and(|journal| journal.read(&selection).is_ok_and(|events| !events.is_empty()))
    });
}
