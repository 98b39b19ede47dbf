//! The control file as Interrex reads it, against PostgreSQL's own program.

use std::collections::BTreeMap;

use interrex::sandbox::{ALPHA, BETA};
use interrex_actors::ports::{PostgresPort as _, StopMode};
use interrex_adapters::postgres::LocalPostgres;
use interrex_events::NodeId;

use crate::pair::{Pair, on_one_thread};

/// Compares every field that is read with what `pg_controldata` prints.
async fn is_as_printed(pair: &Pair, node: NodeId, server: &LocalPostgres) -> String {
    let read = server.control_file().await.unwrap();
    let printed = std::process::Command::new(pair.sandbox.postgres_programs().join("pg_controldata"))
        .env("LC_ALL", "C")
        .arg("-D")
        .arg(pair.sandbox.node(node).unwrap().data_dir())
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let printed: BTreeMap<&str, &str> = printed
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    for (name, value) in [
        ("Database system identifier", read.system_id.to_string()),
        ("Database cluster state", read.state.clone()),
        ("Latest checkpoint location", read.checkpoint.to_string()),
        ("Latest checkpoint's REDO location", read.redo.to_string()),
        ("Latest checkpoint's TimeLineID", read.timeline.to_string()),
        ("Latest checkpoint's PrevTimeLineID", read.previous_timeline.to_string()),
        ("Minimum recovery ending location", read.min_recovery_end.to_string()),
        ("Min recovery ending loc's timeline", read.min_recovery_timeline.to_string()),
        ("wal_log_hints setting", on(read.wal_log_hints)),
        ("Latest checkpoint's full_page_writes", on(read.full_page_writes)),
        ("Data page checksum version", read.checksum_version.to_string()),
        ("max_prepared_xacts setting", read.max_prepared_transactions.to_string()),
        ("Bytes per WAL segment", read.segment_size.to_string()),
    ] {
        assert_eq!(printed[name], value, "{name}");
    }
    read.state
}

#[test]
fn the_control_file_is_read_as_postgresqls_own_program_reads_it() {
    on_one_thread(async {
        let pair = Pair::start_with("max_prepared_transactions = 7").await;
        assert_eq!(is_as_printed(&pair, ALPHA, &pair.alpha).await, "in production");
        assert_eq!(is_as_printed(&pair, BETA, &pair.beta).await, "in archive recovery");
        pair.beta.stop(StopMode::Fast).await.unwrap();
        assert_eq!(is_as_printed(&pair, BETA, &pair.beta).await, "shut down in recovery");
        pair.beta.start().await.unwrap();
        pair.beta.promote().await.unwrap();
        pair.beta.checkpoint().await.unwrap();
        assert_eq!(is_as_printed(&pair, BETA, &pair.beta).await, "in production");
        pair.alpha.stop(StopMode::Fast).await.unwrap();
        assert_eq!(is_as_printed(&pair, ALPHA, &pair.alpha).await, "shut down");
    });
}
