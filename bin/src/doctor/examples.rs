//! Clusters for tests: a healthy cluster, and the findings after a change in it.

use std::collections::BTreeMap;

use interrex_actors::ports::StandbyLimits;
use interrex_events::{Address, NodeId};

use super::{
    Verdict,
    facts::{
        ClockDistance, Configured, Facts, MachineFacts, NextStart, NodeNamed, Programs, Receiver,
        RedisServerFacts, ReplicationRole, ServerFacts, SignalFiles, Slot, Standby, SupervisorFacts,
    },
    judge,
};

pub(crate) const ALPHA: NodeId = NodeId(1);
pub(crate) const BETA: NodeId = NodeId(2);

fn named(id: NodeId, name: &str) -> NodeNamed {
    NodeNamed {
        id,
        name: name.to_owned(),
        supervisor: Address::new(format!("10.0.0.{id}"), 7400),
        postgres: Address::new(format!("10.0.0.{id}"), 5432),
        redis: Some(Address::new(format!("10.0.0.{id}"), 6379)),
    }
}

pub(crate) fn server(in_recovery: bool) -> ServerFacts {
    let settings = [
        ("wal_level", "replica"),
        ("hot_standby", "on"),
        ("max_wal_senders", "10"),
        ("max_replication_slots", "10"),
        ("wal_log_hints", "on"),
        ("data_checksums", "off"),
        ("full_page_writes", "on"),
        ("max_slot_wal_keep_size", "10240"),
        ("wal_keep_size", "0"),
        ("wal_segment_size", "16777216"),
        ("synchronous_standby_names", ""),
        ("archive_mode", "off"),
        ("restart_after_crash", "on"),
        ("max_wal_size", "1024"),
        ("recovery_min_apply_delay", "0"),
        ("recovery_target_timeline", "latest"),
        ("restore_command", ""),
        ("config_file", "/etc/postgresql/15/main/postgresql.conf"),
        ("hba_file", "/etc/postgresql/15/main/pg_hba.conf"),
    ];
    let limits = StandbyLimits::NAMES.map(|name| (name.to_owned(), "10".to_owned()));
    ServerFacts {
        version: 150_020,
        system_id: "7".to_owned(),
        in_recovery,
        timeline: Some(1),
        superuser: true,
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        at_next_start: limits.into(),
        file_errors: Vec::new(),
        ends_recovery: Vec::new(),
        started_with: Some("/usr/lib/postgresql/15/bin/postgres \"-D\" \"/data\"\n".to_owned()),
        read_only_in_files: None,
        read_only_settings: Vec::new(),
        slots: if in_recovery {
            Vec::new()
        } else {
            vec![Slot { name: "replica_2".to_owned(), active: true, wal_status: Some("reserved".to_owned()) }]
        },
        standbys: if in_recovery {
            Vec::new()
        } else {
            vec![Standby {
                name: "walreceiver".to_owned(),
                slot: Some("replica_2".to_owned()),
                state: "streaming".to_owned(),
                sync_state: "async".to_owned(),
                behind_bytes: Some(0),
            }]
        },
        receiver: in_recovery
            .then(|| Receiver { status: "streaming".to_owned(), slot: Some("replica_2".to_owned()) }),
        replay_paused: false,
        archive_failing: None,
        tablespaces: Vec::new(),
        prepared: 0,
        replication_role: Some(ReplicationRole { login: true, replication: true, expired: false }),
        collations: BTreeMap::new(),
        libc: Some("2.36".to_owned()),
        database_bytes: Some(50 << 20),
        unlogged: (!in_recovery).then(|| Ok(Vec::new())),
        clock: Some(ClockDistance { at_most_ms: 2, at_least_ms: 0 }),
    }
}

pub(crate) fn redis(master: bool) -> RedisServerFacts {
    RedisServerFacts {
        version: "7.0.15".to_owned(),
        master,
        linked: !master,
        replicas: u64::from(master),
        min_replicas: 0,
        memory_policy: "noeviction".to_owned(),
        demands_password: false,
        has_password_for_master: false,
        config_file: "/etc/redis/redis.conf".to_owned(),
        append_only: true,
        save: "900 1".to_owned(),
        lacks: Vec::new(),
    }
}

/// A healthy cluster of two nodes, examined from alpha, which is main.
pub(crate) fn healthy() -> Facts {
    let report = crate::cli::healthy_report;
    let supervisor = |node| SupervisorFacts { report: Ok(report(node)), admitted: Ok(()) };
    Facts {
        cluster_id: report(ALPHA).cluster_id,
        here: ALPHA,
        nodes: vec![named(ALPHA, "alpha"), named(BETA, "beta")],
        quorum: "none",
        replication_user: "replicator".to_owned(),
        machine: MachineFacts {
            secret_problems: Ok(Vec::new()),
            journal_room: Ok(20 << 30),
            journal_sound: Ok(Ok(Some(100))),
            programs: Ok(Programs { folder: "/bin".into(), missing: Vec::new(), major: Some(15) }),
            run_as: Ok("as postgres".to_owned()),
            data_version: Ok(15),
            next_start: Ok(Ok(NextStart {
                config_file: "/etc/postgresql/15/main/postgresql.conf".to_owned(),
                data_directory: "/data".to_owned(),
                hba_file: "/etc/postgresql/15/main/pg_hba.conf".to_owned(),
                port: "5432".to_owned(),
                listen_addresses: "localhost, 10.0.0.1".to_owned(),
                unreadable: Vec::new(),
            })),
            configured: Configured {
                data_dir: "/data".into(),
                host: "127.0.0.1".to_owned(),
                port: 5432,
                address: "10.0.0.1".to_owned(),
            },
            signal_files: Ok(SignalFiles { standby: false, recovery: false }),
            role_in_journal: None,
            settings_file: Ok(None),
            stranger: None,
            wal_room: Ok(20 << 30),
            copy_room: Ok(20 << 30),
            keep_room: Ok(None),
            keeps_on_volume: Ok(true),
            not_salvaged: Ok(Vec::new()),
            rivals: Ok(Vec::new()),
            commands: Ok(vec![("radius".to_owned(), Ok(()))]),
            ready: vec![("radius".to_owned(), Ok(()))],
        },
        servers: [(ALPHA, Ok(server(false))), (BETA, Ok(server(true)))].into(),
        replication_logins: [(ALPHA, Ok(Ok("7".to_owned()))), (BETA, Ok(Ok("7".to_owned())))].into(),
        redis: [(ALPHA, Ok(redis(true))), (BETA, Ok(redis(false)))].into(),
        supervisors: [(ALPHA, supervisor(ALPHA)), (BETA, supervisor(BETA))].into(),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// The bad findings for a healthy cluster after a change.
pub(crate) fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Verdict)> {
    let mut facts = healthy();
    change(&mut facts);
    let findings = judge::judge(&facts).into_iter();
    findings
        .filter(|finding| finding.verdict != Verdict::Pass && finding.check != "quorum")
        .map(|finding| (finding.check, finding.verdict))
        .collect()
}

/// Changes what a server reports.
pub(crate) fn change(facts: &mut Facts, node: NodeId, change: impl FnOnce(&mut ServerFacts)) {
    if let Some(Ok(server)) = facts.servers.get_mut(&node) {
        change(server);
    }
}
