//! `interrex config check`: what is in force, and what is wrong with it.

use std::{path::Path, time::Duration};

use interrex_adapters::runtime::RunAs;
use serde_json::{Map, Value, json};

use super::super::{
    arguments::ConfigCheck,
    exit::Exit,
    failure::Failure,
    output::{Output, Style, Tone},
    source,
};
use crate::config::{Config, ConfigError, FOREVER, OnExit, Override, Quorum, RedisConfig, Users, user_name};

/// A section of the file with its keys in the file's order.
struct Section {
    heading: &'static str,
    keys: Vec<(&'static str, Value)>,
}

/// Checks the configuration against itself and this machine.
pub(in crate::cli) fn check(arguments: &ConfigCheck, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let path = source::config_path(arguments.config.as_deref())?;
    let overrides: Vec<String> = Override::of_this_process().into_iter().map(|each| each.variable).collect();
    let mut found = Vec::new();
    let (sections, problems) = match Config::load(&path) {
        Ok(config) => {
            found.extend(where_configuration_was_found(&config));
            let mut problems = config.problems_on_this_machine();
            problems.extend(config.lacks_configuration());
            (sections(&config), problems)
        }
        Err(ConfigError::Wrong { problems, .. }) => (Vec::new(), problems),
        Err(ConfigError::Malformed { message, .. }) => (Vec::new(), vec![message]),
        Err(error @ ConfigError::Unreadable { .. }) => return Err(error.into()),
    };
    if arguments.json {
        output.json(&json!({
            "file": path.display().to_string(),
            "sound": problems.is_empty(),
            "problems": problems,
            "overridden_by": overrides,
            "found": found,
            "in_force": in_json(sections),
        }))?;
    } else {
        let text = in_text(&path, &sections, &problems, (&overrides, &found), output.style);
        output.text(&text)?;
    }
    Ok(if problems.is_empty() { Exit::Fine } else { Exit::ConfigurationWrong })
}

/// What was looked for, because the file does not say it.
fn where_configuration_was_found(config: &Config) -> Option<String> {
    let found = config.postgres_config_file().filter(|_| config.postgres.config_file.is_none())?;
    Some(format!(
        "postgres.config_file was found: {} has postgres.data_dir as its data_directory",
        found.display()
    ))
}

fn in_text(
    path: &Path,
    sections: &[Section],
    problems: &[String],
    (overrides, found): (&[String], &[String]),
    style: Style,
) -> String {
    let mut lines = vec![format!("# {}", path.display())];
    if !overrides.is_empty() {
        lines.push(format!("# overridden by {}", overrides.join(", ")));
    }
    lines.extend(found.iter().map(|found| format!("# {found}")));
    for section in sections {
        lines.push(String::new());
        lines.push(style.paint(Tone::Strong, section.heading));
        for (key, value) in &section.keys {
            lines.push(match value {
                Value::Null => style.paint(Tone::Faint, &format!("# {key} is not set")),
                value => format!("{key} = {value}"),
            });
        }
    }
    lines.push(String::new());
    if problems.is_empty() {
        lines.push(style.paint(Tone::Good, "# Sound: a supervisor can start with this configuration."));
    } else {
        let count =
            if problems.len() == 1 { "1 problem".to_owned() } else { format!("{} problems", problems.len()) };
        lines.push(style.paint(Tone::Bad, &format!("# {count}:")));
        for problem in problems {
            lines.push(style.paint(Tone::Bad, &format!("# - {}", problem.replace('\n', "\n#   "))));
        }
    }
    lines.join("\n") + "\n"
}

/// `[section]` becomes an object, `[[section]]` an element of a list.
fn in_json(sections: Vec<Section>) -> Map<String, Value> {
    let mut document = Map::new();
    for section in sections {
        let keys: Map<String, Value> =
            section.keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let name = section.heading.trim_matches(['[', ']']).to_owned();
        if section.heading.starts_with("[[") {
            let list = document.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.push(keys.into());
            }
        } else {
            document.insert(name, keys.into());
        }
    }
    document
}

fn sections(config: &Config) -> Vec<Section> {
    // the user that each server really runs as, if this machine shows it
    let users = Users::of(config).ok();
    let user = |name: &Option<String>, of: &dyn Fn(&Users) -> Option<RunAs>| {
        let found = users.as_ref().and_then(of).filter(|user| *user != RunAs::Myself).map(user_name);
        json!(found.or_else(|| name.clone()))
    };
    let mut sections = vec![
        cluster(config),
        node(config, user(&config.node.run_as, &|users| Some(users.postgres))),
        failover(config),
        rejoin(config),
        retention(config),
        postgres(config),
    ];
    sections.extend(
        config.redis.as_ref().map(|found| redis(found, user(&found.run_as, &|users| Some(users.redis)))),
    );
    sections.extend(config.dependents.iter().enumerate().map(|(place, dependent)| Section {
        heading: "[[dependents]]",
        keys: vec![
            ("name", json!(dependent.name)),
            ("command", json!(dependent.command)),
            ("ready_command", json!(dependent.ready_command)),
            ("ready_timeout", span(dependent.ready_timeout)),
            ("log_file", dependent.log_file.as_deref().map_or(Value::Null, file)),
            ("run_as", user(&dependent.run_as, &|users| users.dependents.get(place).copied())),
        ],
    }));
    sections.extend(config.hooks.iter().enumerate().map(|(place, hook)| Section {
        heading: "[[hooks]]",
        keys: vec![
            ("name", json!(hook.name)),
            ("command", json!(hook.command)),
            ("timeout", span(hook.timeout)),
            ("run_as", user(&hook.run_as, &|users| users.hooks.get(place).copied())),
        ],
    }));
    sections.extend(config.peers.iter().map(|peer| Section {
        heading: "[[peers]]",
        keys: vec![
            ("id", json!(peer.id)),
            ("name", json!(peer.name)),
            ("address", json!(peer.address)),
            ("postgres", json!(peer.postgres)),
            ("redis", json!(peer.redis)),
            ("main", json!(peer.main)),
        ],
    }));
    sections
}

fn cluster(config: &Config) -> Section {
    let cluster = &config.cluster;
    let keys = vec![("id", json!(cluster.id)), ("secret_file", file(&cluster.secret_file))];
    Section { heading: "[cluster]", keys }
}

fn node(config: &Config, user: Value) -> Section {
    let node = &config.node;
    let on_exit = match node.on_exit {
        OnExit::Leave => "leave",
        OnExit::Stop => "stop",
    };
    let keys = vec![
        ("id", json!(node.id)),
        ("name", json!(node.name)),
        ("role", json!(node.role)),
        ("listen", json!(node.listen)),
        ("address", json!(node.address)),
        ("journal", file(&node.journal)),
        ("run_as", user),
        ("on_exit", json!(on_exit)),
    ];
    Section { heading: "[node]", keys }
}

fn failover(config: &Config) -> Section {
    let failover = &config.failover;
    let quorum = match failover.quorum {
        Quorum::None => "none",
    };
    let keys = vec![
        ("auto_failover_enabled", json!(failover.auto_failover_enabled)),
        ("auto_failover_threshold_seconds", json!(failover.auto_failover_threshold_seconds.as_secs_f64())),
        ("probe_interval", span(failover.probe_interval)),
        ("probe_timeout", span(failover.probe_timeout)),
        ("maximum_lag_bytes", json!(failover.maximum_lag_bytes)),
        ("cool_down", span(failover.cool_down)),
        ("startup_wait", span(failover.startup_wait)),
        ("candidate", json!(failover.candidate)),
        ("quorum", json!(quorum)),
    ];
    Section { heading: "[failover]", keys }
}

fn rejoin(config: &Config) -> Section {
    let keys = vec![
        ("automatic", json!(config.rejoin.automatic)),
        ("keep_in", file(&config.kept_folder())),
        ("keep_newest", json!(config.rejoin.keep_newest)),
    ];
    Section { heading: "[rejoin]", keys }
}

fn retention(config: &Config) -> Section {
    let retention = &config.retention;
    let keys = vec![
        ("keep", retention.keep.map_or_else(|| json!(FOREVER), days)),
        ("segments", file(&config.segments_folder())),
        ("segment_events", json!(retention.segment_events)),
    ];
    Section { heading: "[retention]", keys }
}

fn postgres(config: &Config) -> Section {
    let postgres = &config.postgres;
    let keys = vec![
        ("data_dir", file(&postgres.data_dir)),
        ("bin_dir", postgres.bin_dir.as_deref().map_or(Value::Null, file)),
        ("config_file", config.postgres_config_file().as_deref().map_or(Value::Null, file)),
        ("host", json!(postgres.host)),
        ("port", json!(postgres.port)),
        ("user", json!(postgres.user)),
        ("password_file", postgres.password_file.as_deref().map_or(Value::Null, file)),
        ("database", json!(postgres.database)),
        ("replication_user", json!(postgres.replication_user)),
        ("replication_passfile", postgres.replication_passfile.as_deref().map_or(Value::Null, file)),
        ("log_file", postgres.log_file.as_deref().map_or(Value::Null, file)),
        ("stop_timeout", span(postgres.stop_timeout)),
    ];
    Section { heading: "[postgres]", keys }
}

fn redis(redis: &RedisConfig, user: Value) -> Section {
    let keys = vec![
        ("config_file", file(&redis.config_file)),
        ("run_as", user),
        ("program", redis.program.as_deref().map_or(Value::Null, file)),
        ("host", json!(redis.host)),
        ("port", json!(redis.port)),
        ("password_file", redis.password_file.as_deref().map_or(Value::Null, file)),
        ("stop_timeout", span(redis.stop_timeout)),
    ];
    Section { heading: "[redis]", keys }
}

/// A path need not be UTF-8; what is shown of it is.
fn file(path: &Path) -> Value {
    json!(path.display().to_string())
}

/// Months are no measure: 90 days are 90 days.
fn days(duration: Duration) -> Value {
    let (days, rest) = (duration.as_secs() / 86_400, duration.as_secs() % 86_400);
    if days > 0 && rest == 0 { json!(format!("{days}d")) } else { span(duration) }
}

fn span(duration: Duration) -> Value {
    json!(humantime::format_duration(duration).to_string())
}
