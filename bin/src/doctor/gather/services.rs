//! Services of the operating system that would start a server, which only the supervisor may do.

use std::{path::Path, time::Duration};

use interrex_adapters::runtime::{self, Process, RunAs};

use crate::{
    config::{Config, OnExit, Users},
    daemon::{OnThisMachine, Runtimes as _},
    doctor::{facts::Rival, finding::Measured},
};

/// How long doctor waits for systemd.
const LIMIT: Duration = Duration::from_secs(5);
/// This folder exists if systemd manages this machine.
const SYSTEMD: &str = "/run/systemd/system";
/// Debian's clusters: a folder for each version, and in it a folder for each cluster.
const DEBIAN: &str = "/etc/postgresql";
/// Names of the services that packages bring.
const PATTERNS: [&str; 4] = ["postgresql*", "redis*", "valkey*", "freeradius*"];

/// All such services. On a machine without systemd only Debian's own list and containers are known.
pub(super) async fn rivals(config: &Config) -> Measured<Vec<Rival>> {
    let mut rivals = debian_clusters(Path::new(DEBIAN), &config.postgres.data_dir);
    for (server, unit) in units_of_servers(config).await {
        if is_foreign(&unit) {
            rivals.push(Rival::that_starts(unit, format!("runs this node's {server} now")));
        } else if Path::new(SYSTEMD).exists() && config.node.on_exit == OnExit::Leave {
            rivals.extend(that_ends_it(unit, server).await?);
        }
    }
    if Path::new(SYSTEMD).exists() {
        rivals.extend(enabled_units(config).await?);
    }
    Ok(rivals)
}

impl Rival {
    fn that_starts(unit: String, does: String) -> Self {
        Self { fix: format!("systemctl disable --now {unit}  # then restart the supervisor"), unit, does }
    }
}

/// A file of another program: a path or a comment in it may have any encoding.
fn read(file: &Path) -> Option<String> {
    std::fs::read(file).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// The services of systemd in which this node's servers run now.
async fn units_of_servers(config: &Config) -> Vec<(&'static str, String)> {
    let Ok(users) = Users::of(config) else { return Vec::new() };
    let mut runtimes = vec![("PostgreSQL", OnThisMachine.postgres(config, users.postgres))];
    runtimes
        .extend(config.redis.iter().map(|redis| ("Redis", OnThisMachine.redis(config, redis, users.redis))));
    let mut units = Vec::new();
    for (server, runtime) in runtimes {
        let found = runtime.find().await.and_then(|instance| Process::from(&instance).service());
        units.extend(found.map(|unit| (server, unit)));
    }
    units
}

/// Whether a unit belongs to the server itself, and not to the supervisor.
fn is_foreign(unit: &str) -> bool {
    ["postgres", "redis", "valkey", "patroni"].iter().any(|name| unit.contains(name))
}

/// A server in the supervisor's own group ends with it, unless `KillMode` limits systemd to the supervisor.
async fn that_ends_it(unit: String, server: &str) -> Measured<Option<Rival>> {
    let mut show = RunAs::Myself.command("systemctl");
    show.args(["show", "--no-pager", "--value", "-p", "KillMode", &unit]);
    let mode = runtime::run(show, "systemctl", LIMIT).await.map_err(|error| error.to_string())?;
    Ok((mode.trim() == "control-group").then(|| Rival {
        does: format!("ends this node's {server} with the supervisor (KillMode=control-group)"),
        fix: format!("systemctl edit {unit}  # [Service] KillMode=process"),
        unit,
    }))
}

/// Debian starts every cluster at boot whose `start.conf` says `auto`.
fn debian_clusters(folder: &Path, data_dir: &Path) -> Vec<Rival> {
    let inside =
        |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|it| it.path());
    let clusters = inside(folder).flat_map(|version| inside(&version).collect::<Vec<_>>());
    let ours = |cluster: &Path| {
        let settings = read(&cluster.join("postgresql.conf")).unwrap_or_default();
        let line = settings.lines().find(|line| line.trim_start().starts_with("data_directory"));
        let named = line.and_then(|line| line.split('\'').nth(1)).map(Path::new);
        named.is_some_and(|named| {
            named == data_dir
                || named.canonicalize().is_ok_and(|it| data_dir.canonicalize().is_ok_and(|own| own == it))
        })
    };
    let automatic = |cluster: &Path| {
        let start = read(&cluster.join("start.conf")).unwrap_or_else(|| "auto".to_owned());
        start.lines().any(|line| line.trim() == "auto")
    };
    clusters
        .filter(|cluster| ours(cluster) && automatic(cluster))
        .map(|cluster| {
            let name = |path: Option<&Path>| {
                path.and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
            };
            let unit = format!("postgresql@{}-{}.service", name(cluster.parent()), name(Some(&cluster)));
            let does = format!("is started at boot: {} contains auto", cluster.join("start.conf").display());
            Rival { fix: format!("echo manual > {}", cluster.join("start.conf").display()), unit, does }
        })
        .collect()
}

async fn enabled_units(config: &Config) -> Measured<Vec<Rival>> {
    let mut list = RunAs::Myself.command("systemctl");
    list.args([
        "list-unit-files",
        "--state=enabled,enabled-runtime",
        "--no-legend",
        "--no-pager",
        "--type=service",
    ]);
    list.args(PATTERNS);
    let listed = runtime::run(list, "systemctl", LIMIT).await.map_err(|error| error.to_string())?;
    let units: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let mut show = RunAs::Myself.command("systemctl");
    show.args(["show", "--no-pager", "-p", "Id", "-p", "Restart", "-p", "ExecStart", "-p", "Environment"]);
    // a template has no properties of its own; its instances are named by what they start
    show.args(units.iter().filter(|unit| !unit.contains("@.")));
    let shown = runtime::run(show, "systemctl", LIMIT).await.map_err(|error| error.to_string())?;
    let mut files = vec![config.postgres.data_dir.display().to_string()];
    files.extend(config.redis.as_ref().map(|redis| redis.config_file.display().to_string()));
    Ok(that_start(&shown, &files))
}

/// The units in the output of `systemctl show` that name one of these files.
fn that_start(shown: &str, files: &[String]) -> Vec<Rival> {
    let property = |unit: &str, name: &str| {
        unit.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
            .to_owned()
    };
    let ours = shown.split("\n\n").filter(|unit| files.iter().any(|file| unit.contains(file.as_str())));
    ours.map(|unit| {
        let does = format!("is enabled, with Restart={}", property(unit, "Restart"));
        Rival::that_starts(property(unit, "Id"), does)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_that_runs_a_server_is_named_unless_it_is_the_supervisors() {
        assert!(is_foreign("postgresql@15-main.service") && !is_foreign("interrex.service"));
    }

    #[test]
    fn a_cluster_of_debian_that_starts_by_itself_is_found_by_its_data_directory() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("15/main");
        std::fs::create_dir_all(&cluster).unwrap();
        std::fs::write(cluster.join("postgresql.conf"), "data_directory = '/data/15'\n").unwrap();
        let found = |data: &str| debian_clusters(folder.path(), Path::new(data)).len();
        std::fs::write(cluster.join("start.conf"), "# how\nauto\n").unwrap();
        assert_eq!((found("/data/15"), found("/data/16")), (1, 0));
        std::fs::write(cluster.join("start.conf"), "manual\n").unwrap();
        assert_eq!(found("/data/15"), 0);
    }

    #[test]
    fn a_unit_that_speaks_of_our_files_is_a_rival() {
        let shown = "Restart=always\nExecStart={ path=/bin/postgres ; argv[]=postgres -D /data }\nId=postgresql-15.service\n\n\
                     Restart=no\nExecStart={ path=/bin/redis }\nId=redis.service\n";
        let rivals = that_start(shown, &["/data".to_owned()]);
        assert_eq!(rivals.len(), 1);
        assert_eq!(rivals[0].unit, "postgresql-15.service");
        assert_eq!(rivals[0].does, "is enabled, with Restart=always");
    }
}
