//! Writes the files of one node, as an operator would have them on a server of its own.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    rc::Rc,
    time::Duration,
};

use interrex_actors::ports::{PostgresPort as _, slot_name};
use interrex_adapters::{
    postgres::{LocalPostgres, PostgresSettings},
    runtime::{Postmaster, Processes},
};
use interrex_events::{Address, ClusterId, NodeId, Role};

use super::{
    Done, SandboxError, Settings,
    plan::{ALPHA, BETA, NodePlan},
    programs::{Account, Programs, RadiusPrograms, set_mode},
    template::{self, Template},
};

const POSTGRES_NODE: &str = include_str!("templates/postgresql.node.conf");
const REDIS: &str = include_str!("templates/redis.conf");
const RADIUS: &str = include_str!("templates/radiusd.conf");
const ACCESS_REQUEST: &str = include_str!("templates/access-request");
const CONFIG: &str = include_str!("templates/interrex.toml");
const CONFIG_REDIS: &str = include_str!("templates/redis.toml");
const CONFIG_RADIUS: &str = include_str!("templates/radius.toml");
const CONFIG_PEER: &str = include_str!("templates/peer.toml");

/// What all nodes of a sandbox have in common.
pub(super) struct Layout<'a> {
    pub(super) settings: &'a Settings,
    pub(super) programs: &'a Programs,
    pub(super) account: Account,
    pub(super) template: &'a Template,
    pub(super) cluster_id: ClusterId,
    pub(super) cluster_secret: &'a str,
    pub(super) radius_secret: &'a str,
    pub(super) nodes: &'a [NodePlan],
}

impl Layout<'_> {
    /// Everything a node's supervisor needs to start its servers.
    pub(super) async fn write(&self, node: &NodePlan) -> Done<()> {
        create_folder(&node.folder)?;
        self.write_secrets(node)?;
        self.write_postgres(node).await?;
        if self.programs.redis.is_some() {
            self.write_redis(node)?;
        }
        if self.programs.radius.is_some() {
            self.write_radius(node)?;
        }
        write(&node.config(), &self.config(node))?;
        set_mode(&node.config(), 0o644)
    }

    /// The supervisor's secrets are the caller's, the others the servers'.
    fn write_secrets(&self, node: &NodePlan) -> Done<()> {
        let folder = node.secrets_dir();
        create_folder(&folder)?;
        let passwords = &self.template.passwords;
        let passfile = format!("127.0.0.1:*:*:replicator:{}\n", passwords.replicator);
        for (name, text) in [("cluster", self.cluster_secret), ("postgres", &passwords.superuser)] {
            write(&folder.join(name), &format!("{text}\n"))?;
            set_mode(&folder.join(name), 0o600)?;
        }
        let mut servers = vec![("replication.pgpass", passfile)];
        if self.programs.radius.is_some() {
            servers.push(("radius", format!("{}\n", self.radius_secret)));
        }
        for (name, text) in servers {
            write(&folder.join(name), &text)?;
            self.account.hand_over(&folder.join(name), 0o600)?;
        }
        Ok(())
    }

    async fn write_postgres(&self, node: &NodePlan) -> Done<()> {
        let data_dir = node.data_dir();
        template::copy(&self.template.data_dir, &data_dir).await?;
        let settings =
            POSTGRES_NODE.replace("{PORT}", &node.postgres_port.to_string()).replace("{NAME}", node.name);
        let file = node.folder.join("postgresql.node.conf");
        write(&file, &settings)?;
        self.account.hand_over(&file, 0o600)?;
        // the server's own user opens it, and may not create files next to the journal
        write(&node.postgres_log(), "")?;
        self.account.hand_over(&node.postgres_log(), 0o644)?;
        let is_main = node.id == ALPHA;
        self.keep_slots(&data_dir, |slot| is_main && self.secondaries().any(|id| slot_name(id) == slot))?;
        if is_main { Ok(()) } else { self.make_standby(node) }
    }

    fn secondaries(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().map(|node| node.id).filter(|id| *id != ALPHA)
    }

    fn keep_slots(&self, data_dir: &Path, keep: impl Fn(&str) -> bool) -> Done<()> {
        let failed = |error| SandboxError::failed(format!("copying to {}", data_dir.display()), error);
        for slot in fs::read_dir(data_dir.join("pg_replslot")).map_err(failed)?.flatten() {
            if !keep(&slot.file_name().to_string_lossy()) {
                fs::remove_dir_all(slot.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// As `pg_basebackup --write-recovery-conf` leaves it, with the supervisor's own form of the connection.
    fn make_standby(&self, node: &NodePlan) -> Done<()> {
        let Some(main) = self.nodes.first() else { return Ok(()) };
        let adapter = LocalPostgres::new(PostgresSettings {
            data_dir: node.data_dir(),
            bin_dir: self.programs.postgres.clone(),
            runtime: Rc::new(Processes::new(
                self.account.run_as,
                node.postgres_log(),
                Postmaster::of(&node.data_dir()),
            )),
            host: "127.0.0.1".to_owned(),
            port: node.postgres_port,
            user: "interrex".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            replication_user: "replicator".to_owned(),
            replication_passfile: Some(node.secrets_dir().join("replication.pgpass")),
            node: node.id,
            measure_limit: Duration::from_secs(1),
            config_file: None,
            upstream_file: node.folder.join("upstream"),
            stop_patience: Duration::from_secs(10),
        });
        let upstream =
            adapter.conninfo_of(&Address::new("127.0.0.1", main.postgres_port)).replace('\'', "''");
        let slot = slot_name(node.id);
        let settings = format!("primary_conninfo = '{upstream}'\nprimary_slot_name = '{slot}'\n");
        for (name, text) in [("postgresql.auto.conf", settings.as_str()), ("standby.signal", "")] {
            let file = node.data_dir().join(name);
            write(&file, text)?;
            self.account.hand_over(&file, 0o600)?;
        }
        Ok(())
    }

    fn write_redis(&self, node: &NodePlan) -> Done<()> {
        let folder = node.redis_dir();
        create_folder(&folder)?;
        self.account.hand_over(&folder, 0o755)?;
        let mut settings =
            REDIS.replace("{PORT}", &node.redis_port.to_string()).replace("{DIR}", &folder.to_string_lossy());
        if let Some(main) = self.nodes.first().filter(|main| main.id != node.id) {
            settings.push_str(&format!("replicaof 127.0.0.1 {}\n", main.redis_port));
        }
        let file = folder.join("redis.conf");
        write(&file, &settings)?;
        self.account.hand_over(&file, 0o644)
    }

    fn write_radius(&self, node: &NodePlan) -> Done<()> {
        let folder = node.radius_dir();
        let Some(programs) = &self.programs.radius else { return Ok(()) };
        // radclient looks for a dictionary of its own in a folder, and is content with an empty one
        for folder in [&folder, &folder.join("client")] {
            create_folder(folder)?;
            self.account.hand_over(folder, 0o755)?;
        }
        let settings = RADIUS
            .replace("{DIR}", &folder.to_string_lossy())
            .replace("{MODULES}", &programs.modules.to_string_lossy())
            .replace("{CLIENT_SECRET}", self.radius_secret)
            .replace("{PASSWORD}", &self.template.passwords.radius)
            .replace("{POSTGRES_PORT}", &node.postgres_port.to_string())
            .replace("{PORT}", &node.radius_port.to_string());
        for (name, text) in [("radiusd.conf", settings.as_str()), ("access-request", ACCESS_REQUEST)] {
            write(&folder.join(name), text)?;
            self.account.hand_over(&folder.join(name), 0o600)?;
        }
        Ok(())
    }

    fn config(&self, node: &NodePlan) -> String {
        let mut text = CONFIG.to_owned();
        let mut fill = |name: &str, value: &str| text = text.replace(&format!("{{{name}}}"), value);
        let duration = |duration| humantime::format_duration(duration).to_string();
        let role = if node.id == ALPHA { Role::Main } else { Role::Secondary };
        let settings = self.settings;
        fill("CLUSTER_ID", &self.cluster_id.to_string());
        fill("ROLE", &role.to_string());
        fill("RUN_AS", &self.account.name.map_or_else(String::new, |name| format!("run_as = \"{name}\"\n")));
        fill("THRESHOLD", &settings.threshold.as_secs_f64().to_string());
        fill("PROBE_INTERVAL", &duration(settings.probe_interval));
        fill("PROBE_TIMEOUT", &duration(settings.probe_timeout));
        fill("STARTUP_WAIT", &duration(settings.startup_wait));
        // of three nodes without a quorum one may promote itself, and all name it
        let candidate = if self.nodes.len() > 2 { format!("candidate = {BETA}\n") } else { String::new() };
        fill("CANDIDATE", &candidate);
        fill("POSTGRES_PROGRAMS", &self.programs.postgres.to_string_lossy());
        text = self.about(node, &text);
        if let Some(redis) = &self.programs.redis {
            text.push_str(
                &self.about(node, &CONFIG_REDIS.replace("{REDIS_PROGRAM}", &redis.to_string_lossy())),
            );
        }
        if let Some(radius) = &self.programs.radius {
            text.push_str(&self.about(node, &radius_in_config(radius, node)));
        }
        for peer in self.nodes.iter().filter(|peer| peer.id != node.id) {
            text.push_str(&self.about(peer, CONFIG_PEER));
            if self.programs.redis.is_some() {
                text.push_str(&format!("redis = \"127.0.0.1:{}\"\n", peer.redis_port));
            }
            if peer.id == ALPHA {
                text.push_str("main = true\n");
            }
        }
        text
    }

    /// Fills in what is said of a node.
    fn about(&self, node: &NodePlan, text: &str) -> String {
        text.replace("{ID}", &node.id.to_string())
            .replace("{NAME}", node.name)
            .replace("{FOLDER}", &node.folder.to_string_lossy())
            .replace("{SUPERVISOR_PORT}", &node.supervisor_port.to_string())
            .replace("{POSTGRES_PORT}", &node.postgres_port.to_string())
            .replace("{REDIS_PORT}", &node.redis_port.to_string())
    }
}

fn radius_in_config(programs: &RadiusPrograms, node: &NodePlan) -> String {
    let question: Vec<String> = question(programs, node).iter().map(|word| format!("\"{word}\"")).collect();
    CONFIG_RADIUS
        .replace("{RADIUS_PROGRAM}", &programs.server.to_string_lossy())
        .replace("{DICTIONARIES}", &programs.dictionaries.to_string_lossy())
        .replace("{RADIUS_QUESTION}", &question.join(", "))
}

/// The command that asks a node's RADIUS to let the test user in; it ends with 0 if it does.
pub(super) fn question(programs: &RadiusPrograms, node: &NodePlan) -> Vec<String> {
    let path = |path: &Path| path.to_string_lossy().into_owned();
    let folder = node.radius_dir();
    let mut words = vec![path(&programs.client)];
    words.extend(["-4", "-q", "-r", "1", "-t", "1", "-D"].map(str::to_owned));
    words.push(path(&programs.dictionaries));
    words.extend(["-d".to_owned(), path(&folder.join("client"))]);
    words.extend(["-S".to_owned(), path(&node.secrets_dir().join("radius"))]);
    words.extend(["-f".to_owned(), path(&folder.join("access-request"))]);
    words.extend([format!("127.0.0.1:{}", node.radius_port), "auth".to_owned()]);
    words
}

fn create_folder(path: &Path) -> Done<()> {
    fs::create_dir_all(path)
        .map_err(|error| SandboxError::failed(format!("creating {}", path.display()), error))?;
    // the servers' user must be able to pass through
    set_mode(path, 0o755)
}

/// Writes a file that only its owner can read until something else is said.
pub(super) fn write(path: &Path, text: &str) -> Done<()> {
    let file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| SandboxError::failed(format!("writing {}", path.display()), error))
}
