//! Bad input: a clear error, an exit code, and nothing changed.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Output, Stdio},
};

use interrex::sandbox::{ALPHA, BETA, Done, NodePlan, Sandbox, SandboxError};
use interrex_events::NodeId;
use interrex_tests::{interrex, run};

use crate::two_nodes;

/// Runs the program to its end, which must come by itself.
pub(crate) fn interrex_with(arguments: &[&str], environment: &[(&str, &str)]) -> Done<Output> {
    let mut command = Command::new("timeout");
    command.arg("30").arg(interrex()).args(arguments).envs(environment.iter().copied()).stdin(Stdio::null());
    command.output().map_err(|error| SandboxError::failed("running interrex", error))
}

fn supervise(node: &NodePlan) -> Done<Output> {
    interrex_with(&["supervise", "--config", &node.config().to_string_lossy()], &[])
}

#[track_caller]
fn assert_refused(output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

/// Every file of a node but its logs, with its content.
fn files(node: &NodePlan) -> BTreeMap<String, Vec<u8>> {
    fn collect(folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.to_string_lossy().into_owned();
            if path.is_dir() {
                collect(&path, files);
                continue;
            }
            let content = std::fs::read(&path).unwrap_or_default();
            // SQLite makes these for a reader too, without content of their own
            let scratch = name.ends_with("-shm") || (name.ends_with("-wal") && content.is_empty());
            if !scratch && !name.ends_with(".log") && !name.ends_with(".lock") {
                files.insert(name, content);
            }
        }
    }
    let mut all = BTreeMap::new();
    collect(&node.folder, &mut all);
    all
}

/// The supervisor refuses to start, says why, and leaves every file as it was.
#[track_caller]
fn refuses(sandbox: &Sandbox, node: NodeId, code: i32, parts: &[&str]) -> Done<()> {
    let node = sandbox.node(node)?;
    let before = files(node);
    let output = supervise(node)?;
    assert_refused(&output, code, parts);
    let after = files(node);
    let changed: Vec<_> = after
        .iter()
        .filter(|(name, content)| before.get(*name) != Some(content))
        .map(|(name, _)| name)
        .collect();
    assert!(changed.is_empty() && before.len() == after.len(), "changed: {changed:?}");
    Ok(())
}

#[test]
fn an_unknown_key_names_the_nearest_right_one() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_config(BETA, "failover.probe_intervall", "1s")?;
        refuses(
            &sandbox,
            BETA,
            3,
            &["unknown key `probe_intervall`", "did you mean `probe_interval`", "line "],
        )?;
        let config = sandbox.node(BETA)?.config();
        let check = interrex_with(&["config", "check", "--config", &config.to_string_lossy()], &[])?;
        assert_eq!(check.status.code(), Some(3));
        assert!(String::from_utf8_lossy(&check.stdout).contains("did you mean `probe_interval`"));
        Ok(())
    });
}

#[test]
fn a_missing_data_directory_is_named() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.set_config(BETA, "postgres.data_dir", "/nowhere/pgdata")?;
        refuses(&sandbox, BETA, 3, &["postgres.data_dir", "/nowhere/pgdata", "pg_basebackup"])
    });
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let secret = sandbox.node(BETA)?.secrets_dir().join("cluster");
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        refuses(&sandbox, BETA, 3, &["cluster.secret_file", "mode 644", "chmod 600"])
    });
}

#[test]
fn a_wrong_password_is_found_before_anything_is_written_and_the_server_goes_on() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_supervisor(ALPHA);
        let wrong = sandbox.folder().join("wrong-password");
        std::fs::write(&wrong, "not the password")
            .map_err(|error| SandboxError::failed("writing a password", error))?;
        std::fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        sandbox.set_config(ALPHA, "postgres.password_file", wrong.to_string_lossy().as_ref())?;
        let journal = std::fs::read(sandbox.node(ALPHA)?.journal()).unwrap();
        let output = supervise(sandbox.node(ALPHA)?)?;
        assert_refused(&output, 3, &["postgres.password_file", "password authentication failed"]);
        assert!(std::fs::read(sandbox.node(ALPHA)?.journal()).unwrap() == journal, "the journal was changed");
        assert!(sandbox.takes_writes(ALPHA).await, "the server was stopped");
        Ok(())
    });
}

#[test]
fn a_port_in_use_is_named() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let port = sandbox.node(BETA)?.supervisor_port;
        let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        refuses(&sandbox, BETA, 5, &[&port.to_string(), "node.listen"])
    });
}

#[test]
fn the_journal_of_another_cluster_is_refused() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(BETA);
        sandbox.set_config(BETA, "cluster.id", "018f0000-0000-7000-8000-00000000ffff")?;
        refuses(&sandbox, BETA, 4, &["belongs to node 2 of cluster", "cluster.id"])
    });
}

#[test]
fn one_changed_byte_in_the_journal_is_named_with_its_event() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.signal_supervisor(BETA, rustix::process::Signal::TERM);
        sandbox.wait_supervisor_ended(BETA).await?;
        sandbox.kill_everything_of(BETA);
        let journal = sandbox.node(BETA)?.journal();
        let mut bytes = std::fs::read(&journal).unwrap();
        // the newest event: of older ones the file may hold a stale copy, where SQLite has moved rows
        let newest = sandbox.events(BETA)?.last().unwrap().node_seq;
        let word = b"supervisor_stopped";
        let at = bytes.windows(word.len()).rposition(|window| window == word).unwrap();
        bytes[at] = b'S';
        std::fs::write(&journal, &bytes).unwrap();
        refuses(
            &sandbox,
            BETA,
            4,
            &["is damaged", &format!("event {newest} of node 2"), "hash does not match"],
        )?;
        let verify = interrex_with(&["journal", "verify", "--journal", &journal.to_string_lossy()], &[])?;
        assert_eq!(verify.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&verify.stdout).contains("hash does not match"));
        Ok(())
    });
}

#[test]
fn a_second_supervisor_on_the_same_journal_is_refused_and_the_first_goes_on() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        // on another port, so that it is the journal that refuses
        let port = sandbox.spare_port(0);
        let listen = format!("127.0.0.1:{port}");
        let config = sandbox.node(BETA)?.config();
        let arguments = ["supervise", "--config", &config.to_string_lossy()];
        let output = interrex_with(&arguments, &[("INTERREX_NODE_LISTEN", &listen)])?;
        assert_refused(&output, 5, &["in use by another supervisor"]);
        sandbox.wait_healthy(BETA).await?;
        let stopped =
            |event: &interrex_events::Event| matches!(event, interrex_events::Event::SupervisorStopped(_));
        assert!(!sandbox.events(BETA)?.iter().any(|envelope| stopped(&envelope.event)));
        Ok(())
    });
}

#[test]
fn a_peer_without_the_secret_or_of_another_cluster_or_with_an_older_epoch_is_refused() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        sandbox.start().await?;
        sandbox.kill_everything_of(ALPHA);
        sandbox.wait_run_ended(BETA).await?;
        let url = format!("http://127.0.0.1:{}/api/cluster/notify", sandbox.node(BETA)?.supervisor_port);
        let secret = std::fs::read_to_string(sandbox.node(BETA)?.secrets_dir().join("cluster")).unwrap();
        let notice = |cluster: &str, epoch: u64| {
            format!(
                r#"{{"cluster_id":"{cluster}","from":1,"main":1,"epoch":{epoch},"timeline":null,"switchpoint":null,"hlc":0}}"#
            )
        };
        let own = sandbox.cluster_id().to_string();
        let client = reqwest::Client::new();
        let post = async |secret: &str, body: String| {
            let request = client.post(&url).header("X-Cluster-Secret", secret).body(body);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let (status, body) = post("not-the-secret-of-this-cluster", notice(&own, 9)).await;
        assert!(status == 401 && body.contains("wrong_secret"), "{status} {body}");
        let (status, body) = post(secret.trim(), notice("018f0000-0000-7000-8000-00000000ffff", 9)).await;
        assert!(status == 409 && body.contains("other_cluster"), "{status} {body}");
        let (status, body) = post(secret.trim(), notice(&own, 1)).await;
        assert!(status == 409 && body.contains("older_epoch"), "{status} {body}");
        let refused =
            |event: &interrex_events::Event| matches!(event, interrex_events::Event::NoticeRefused(_));
        sandbox.wait_event(BETA, "notice_refused", |envelope| refused(&envelope.event)).await?;
        assert_eq!(sandbox.cluster(BETA)?.nodes.main, Some(BETA));
        Ok(())
    });
}

#[test]
fn help_teaches_and_a_mistyped_command_is_corrected() {
    let help = interrex_with(&["--help"], &[]).unwrap();
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    assert_eq!(help.status.code(), Some(0));
    for word in ["supervise", "status", "timeline", "Exit codes"] {
        assert!(text.contains(word), "--help does not teach `{word}`");
    }
    let wrong = interrex_with(&["stauts"], &[]).unwrap();
    assert_refused(&wrong, 2, &["stauts", "status"]);
}

#[test]
fn a_request_to_a_supervisor_that_does_not_run_says_so_and_what_to_do() {
    run(async {
        let sandbox = two_nodes().postgres_only().build().await?;
        let config = sandbox.node(BETA)?.config().display().to_string();
        for command in ["promote", "run cancel"] {
            let mut arguments: Vec<&str> = command.split(' ').collect();
            arguments.extend(["--config", &config]);
            let said = interrex_with(&arguments, &[])?;
            let why = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(said.status.code(), Some(1), "{why}");
            for part in ["the supervisor of beta", "it got no request", "systemctl start interrex"] {
                assert!(why.contains(part), "{why}");
            }
        }
        Ok(())
    });
}
