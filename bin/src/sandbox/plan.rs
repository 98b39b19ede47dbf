//! Where the nodes of a sandbox live and listen.

use std::path::{Path, PathBuf};

use interrex_events::NodeId;

use super::ports::Ports;

/// The node that is main at first.
pub const ALPHA: NodeId = NodeId(1);
/// The first secondary.
pub const BETA: NodeId = NodeId(2);
/// The second secondary, in a sandbox of three.
pub const GAMMA: NodeId = NodeId(3);

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];
const PORTS_OF_A_NODE: u16 = 4;

/// The most nodes a sandbox can have.
pub const MOST_NODES: usize = NAMES.len();

/// One node: its files and its ports on 127.0.0.1.
#[derive(Debug, Clone)]
pub struct NodePlan {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: &'static str,
    /// Everything it has lies in here.
    pub folder: PathBuf,
    /// Port of its supervisor.
    pub supervisor_port: u16,
    /// Port of its PostgreSQL.
    pub postgres_port: u16,
    /// Port of its Redis.
    pub redis_port: u16,
    /// Port of its RADIUS, UDP.
    pub radius_port: u16,
}

impl NodePlan {
    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("interrex.toml")
    }

    /// Its journal.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.folder.join("journal.db")
    }

    /// What its supervisors said.
    #[must_use]
    pub fn supervisor_log(&self) -> PathBuf {
        self.folder.join("supervisor.log")
    }

    /// Its PGDATA.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("pgdata")
    }

    /// What its PostgreSQL said.
    #[must_use]
    pub fn postgres_log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// Folder of its Redis: configuration, data, log.
    #[must_use]
    pub fn redis_dir(&self) -> PathBuf {
        self.folder.join("redis")
    }

    /// Folder of its RADIUS server.
    #[must_use]
    pub fn radius_dir(&self) -> PathBuf {
        self.folder.join("radius")
    }

    /// The secrets it needs, each readable only by the user that needs it.
    #[must_use]
    pub fn secrets_dir(&self) -> PathBuf {
        self.folder.join("secrets")
    }
}

/// Every node of a sandbox, by number.
pub(super) fn nodes(folder: &Path, count: usize, ports: &Ports) -> Vec<NodePlan> {
    let place = |(name, index): (&'static str, u16)| {
        let port = |which: u16| ports.get(index * PORTS_OF_A_NODE + which);
        NodePlan {
            id: NodeId(u32::from(index) + 1),
            name,
            folder: folder.join(name),
            supervisor_port: port(0),
            postgres_port: port(1),
            redis_port: port(2),
            radius_port: port(3),
        }
    };
    NAMES.into_iter().zip(0..).take(count).map(place).collect()
}

/// A port that no node has, for a proxy in between.
pub(super) fn spare_port(index: u16, ports: &Ports) -> u16 {
    ports.get(PORTS_OF_A_NODE * 3 + index)
}
