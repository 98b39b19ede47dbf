use std::path::Path;

use super::{reading::Problem, *};

/// A file with no key that can be left out.
pub(super) const MINIMAL: &str = r#"
[cluster]
id = "018f0000-0000-7000-8000-000000000001"
secret_file = "secret"
[node]
id = 2
name = "beta"
role = "secondary"
listen = "127.0.0.1:7402"
journal = "journal.db"
[postgres]
data_dir = "pgdata"
[[peers]]
id = 1
name = "alpha"
address = "127.0.0.1:7401"
postgres = "127.0.0.1:5401"
main = true
"#;

pub(super) fn parse(text: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Config::parse(text, &Override::among(environment), Path::new("/etc/interrex")).map_err(|problem| {
        match problem {
            Problem::Malformed(message) => message,
            Problem::Wrong(problems) => problems.join("\n"),
        }
    })
}

#[test]
fn a_minimal_file_has_the_runbooks_defaults() {
    let config = parse(MINIMAL, &[]).unwrap();
    assert_eq!(config.failover.auto_failover_threshold_seconds, Duration::from_secs(120));
    assert!(config.failover.auto_failover_enabled);
    assert_eq!(config.node.journal, Path::new("/etc/interrex/journal.db"));
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_missing() {
    use std::os::unix::fs::PermissionsExt;

    use interrex_adapters::runtime::RunAs;
    const KEYS: [&str; 2] = ["postgres.data_dir: ", "node.journal: the folder"];
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    let mut config = parse(MINIMAL, &[]).unwrap();
    config.postgres.data_dir = closed.join("pgdata");
    config.node.journal = closed.join("within/journal.db");
    let told = |key: &str| {
        let problems = config.problems_on_this_machine().into_iter();
        problems.filter(|problem| problem.starts_with(key)).collect::<String>()
    };
    let missing = KEYS.map(told);
    assert!(missing[0].contains("make one with initdb") && missing[1].contains("create it"), "{missing:?}");
    for inner in [&config.postgres.data_dir, &closed.join("within")] {
        std::fs::create_dir_all(inner).unwrap();
    }
    std::fs::write(config.postgres.data_dir.join("PG_VERSION"), "15").unwrap();
    assert_eq!(KEYS.map(told), ["", ""]);
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let looking = match rustix::process::geteuid().is_root() {
        true => RunAs::User { uid: 65_534, gid: 65_534 },
        false => RunAs::Myself,
    };
    let hidden = looking.act(|| Ok(["postgres.data_dir: ", "node.journal: "].map(told))).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    for told in hidden {
        assert!(told.contains(" cannot examine ") && told.contains("Permission denied"), "{told}");
        assert!(told.contains("sudo") && !told.contains("initdb") && !told.contains("create it"), "{told}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_line_and_the_nearest_right_one() {
    let text = MINIMAL.replace("[postgres]", "[failover]\nprobe_intervall = \"1s\"\n[postgres]");
    let error = parse(&text, &[]).unwrap_err();
    assert!(
        error.starts_with("line 12: unknown key `probe_intervall`; did you mean `probe_interval`?"),
        "{error}"
    );
}

#[test]
fn the_environment_overrides_the_file_and_is_checked_like_it() {
    let config = parse(MINIMAL, &[("INTERREX_FAILOVER_PROBE_INTERVAL", "250ms")]).unwrap();
    assert_eq!(config.failover.probe_interval, Duration::from_millis(250));
    let config = parse(MINIMAL, &[("INTERREX_FAILOVER_AUTO_FAILOVER_ENABLED", "false")]).unwrap();
    assert!(!config.failover.auto_failover_enabled);
    assert!(parse(MINIMAL, &[("INTERREX_FAILOVER_PROBE", "1s")]).unwrap_err().contains("unknown field"));
}

#[test]
fn events_are_kept_for_90_days_unless_the_file_says_otherwise() {
    let kept = |text: &str| parse(&MINIMAL.replace("[postgres]", text), &[]);
    let config = kept("[postgres]").unwrap();
    assert_eq!(config.retention.keep, Some(Duration::from_secs(90 * 24 * 3_600)));
    assert_eq!(config.segments_folder(), Path::new("/etc/interrex/segments"));
    let config = kept("[retention]\nkeep = \"forever\"\nsegments = \"old\"\n[postgres]").unwrap();
    assert_eq!((config.retention.keep, config.segments_folder()), (None, "/etc/interrex/old".into()));
    let error = kept("[retention]\nkeep = \"long\"\n[postgres]").unwrap_err();
    assert!(error.contains("`long` is neither a duration such as \"90d\" nor \"forever\""), "{error}");
    let short = "[retention]\nkeep = \"5m\"\nsegment_events = 0\nsegments = \"pgdata/old\"\n[postgres]";
    let error = kept(short).unwrap_err();
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!(error.contains("failover.cool_down (10m)"), "{error}");
}

#[test]
fn values_that_contradict_each_other_are_all_named() {
    let text = MINIMAL
        .replace("main = true", "main = false")
        .replace("id = 1\n", "id = 2\n")
        .replace("journal = \"journal.db\"", "journal = \"pgdata/journal.db\"")
        .replace("127.0.0.1:7402", "0.0.0.0:7402");
    let error = parse(&text, &[]).unwrap_err();
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn an_address_that_is_none_is_refused_with_its_line_its_key_and_the_right_form() {
    let with = |from: &str, to: &str| parse(&MINIMAL.replace(from, to), &[]);
    let config = with("127.0.0.1:5401", "[::1]:5401").unwrap();
    assert_eq!((config.peers[0].postgres.host.as_str(), config.peers[0].postgres.port), ("::1", 5401));
    for (from, to, key, form) in [
        ("127.0.0.1:5401", "::1:5401", "line 17, postgres: ", "[fd00::1]:5432"),
        ("127.0.0.1:5401", "127.0.0.1", "line 17, postgres: ", "10.0.0.1:5432"),
        ("127.0.0.1:7401", "http://alpha:7401", "line 16, address: ", "db1.example:5432"),
        ("127.0.0.1:7402", "localhost:7402", "line 9, listen: ", "[fd00::1]:7400"),
        ("[postgres]\n", "address = \"[::1]\"\n[postgres]\n", "line 11, address: ", "without a port"),
        ("[postgres]\n", "[postgres]\nhost = \"localhost:5432\"\n", "line 12, host: ", "without a port"),
        ("[postgres]\n", "[postgres]\nport = 65536\n", "line 12, port: ", "from 1 to 65535"),
    ] {
        let error = with(from, to).unwrap_err();
        assert!(error.starts_with(key) && error.contains(form), "{to}: {error}");
    }
    let error = with("127.0.0.1:5401", "0.0.0.0:5401").unwrap_err();
    assert!(error.starts_with("postgres of [[peers]] alpha means every address"), "{error}");
    for socket in ["/var/run/postgresql", "::1", "db1"] {
        with("[postgres]\n", &format!("[postgres]\nhost = \"{socket}\"\n")).unwrap();
    }
}

#[test]
fn what_would_leave_a_cluster_without_a_failover_or_with_itself_as_a_peer_is_refused() {
    let said = |old: &str, new: &str| {
        assert!(MINIMAL.contains(old), "{old}");
        parse(&MINIMAL.replacen(old, new, 1), &[]).err().unwrap_or_default()
    };
    let failover = |keys: &str| said("[postgres]", &format!("[failover]\n{keys}\n[postgres]"));
    assert_eq!(failover("candidate = 2"), "");
    assert!(failover("candidate = 3").contains("failover.candidate is 3, and no node has that id"));
    let slow = "auto_failover_threshold_seconds = 2\nprobe_interval = \"1s\"\nprobe_timeout = ";
    assert_eq!(failover(&format!("{slow}\"2s\"")), "");
    assert!(failover(&format!("{slow}\"3s\"")).contains("failover.probe_timeout (3s) must be at most"));
    assert!(said("alpha", "beta").contains("has the name of this node"));
    let own = "is this node's own";
    assert!(said("127.0.0.1:7401", "127.0.0.1:7402").contains(&format!("address of [[peers]] alpha {own}")));
    assert!(said("127.0.0.1:5401", "127.0.0.1:5432").contains(&format!("postgres of [[peers]] alpha {own}")));
}
