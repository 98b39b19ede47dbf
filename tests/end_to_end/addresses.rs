//! Nodes that reach each other by IPv6: no name, no IPv4 address.

use std::{fs, path::Path, time::Duration};

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_tests::run;
use rustix::process::Signal;

use crate::{switchover::switch, two_nodes};

const LIMIT: Duration = Duration::from_secs(100);

/// Rewrites a file in place: its owner and mode stay.
fn edit(file: &Path, change: impl FnOnce(String) -> String) {
    fs::write(file, change(fs::read_to_string(file).unwrap())).unwrap();
}

/// Every server listens on loopback of both kinds, and every address in a configuration is `::1`.
fn reach_each_other_by_ipv6(sandbox: &Sandbox) -> Done<()> {
    for node in sandbox.nodes() {
        edit(&node.config(), |text| text.replace("\"127.0.0.1:", "\"[::1]:"));
        sandbox.set_config(node.id, "node.listen", format!("[::]:{}", node.supervisor_port))?;
        sandbox.set_config(node.id, "node.address", "::1")?;
        sandbox.set_config(node.id, "postgres.host", "::1")?;
        sandbox.set_config(node.id, "redis.host", "::1")?;
        edit(&node.folder.join("postgresql.node.conf"), |text| {
            text + "listen_addresses = '127.0.0.1, ::1'\n"
        });
        edit(&node.data_dir().join("pg_hba.conf"), |text| {
            text.clone() + &text.replace("127.0.0.1/32", "::1/128")
        });
        edit(&node.data_dir().join("postgresql.auto.conf"), |text| text.replace("127.0.0.1", "::1"));
        edit(&node.secrets_dir().join("replication.pgpass"), |text| text.replace("127.0.0.1", r"\:\:1"));
        edit(&node.redis_dir().join("redis.conf"), |text| {
            text.replace("replicaof 127.0.0.1", "replicaof ::1")
                .replace("bind 127.0.0.1", "bind 127.0.0.1 ::1")
        });
    }
    Ok(())
}

/// Main makes the run and refuses it: what it says is read there, for no copy of it comes here.
async fn a_refusal_is_told_on_a_node_without_its_supervisor(sandbox: &Sandbox) -> Done<()> {
    sandbox.signal_supervisor(ALPHA, Signal::TERM);
    sandbox.wait_supervisor_ended(ALPHA).await?;
    let said = switch(sandbox, ALPHA, "alpha", &[]).await?;
    let [out, errors] = [said.stdout, said.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(!said.status.success() && out.contains("refused"), "{out}\n{errors}");
    Ok(())
}

#[test]
fn a_cluster_whose_addresses_are_all_ipv6_is_healthy_and_hands_its_role_over() {
    run(async {
        let sandbox = two_nodes().threshold(2 * LIMIT).build().await?;
        reach_each_other_by_ipv6(&sandbox)?;
        sandbox.start().await?;
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        sandbox.doctor_clean().await?;
        let said = switch(&sandbox, ALPHA, "beta", &[]).await?;
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        for node in [ALPHA, BETA] {
            sandbox.wait_healthy(node).await?;
        }
        assert!(sandbox.takes_writes(BETA).await);
        let conninfo = sandbox.psql_value(ALPHA, "SHOW primary_conninfo").await?;
        assert!(conninfo.contains("host=::1 "), "{conninfo}");
        let address = format!("[::1]:{}", sandbox.node(BETA)?.postgres_port);
        let main = "SELECT main_server_ip || ' ' || postgres_address FROM interrex.cluster_config, interrex.cluster_nodes \
                    WHERE node_id = 2";
        assert_eq!(sandbox.psql_value(BETA, main).await?, format!("::1 {address}"));
        let replication = sandbox.redis(ALPHA, &["INFO", "replication"]).await?;
        assert!(
            replication.contains("master_host:::1") && replication.contains("master_link_status:up"),
            "{replication}"
        );
        sandbox.doctor_clean().await?;
        a_refusal_is_told_on_a_node_without_its_supervisor(&sandbox).await?;
        sandbox.teardown()
    });
}
