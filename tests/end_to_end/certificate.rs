//! The handover certificate, checked again with PostgreSQL's own tools.

use std::{collections::BTreeMap, fmt::Display, process::Command, time::Duration};

use interrex::sandbox::{ALPHA, Acknowledged, BETA, Done, NodePlan, Sandbox};
use interrex_events::{Demotion, Event};
use interrex_projections::RunEnd;
use interrex_tests::run;

use crate::{
    switchover::{ended, switch},
    two_nodes,
};

const LIMIT: Duration = Duration::from_secs(100);
/// Bytes of a page of the log.
const PAGE: u64 = 8_192;

/// What a stopped server's directory tells by itself.
struct Closed {
    /// The lines of `pg_controldata`.
    control: BTreeMap<String, String>,
    /// What `pg_waldump` says from the last checkpoint on, the reason for which it stops included.
    log: String,
}

impl Closed {
    fn read(sandbox: &Sandbox, node: &NodePlan) -> Self {
        let data_dir = node.data_dir();
        let program = |name: &str| {
            let mut command = Command::new(sandbox.postgres_programs().join(name));
            command.env("LC_ALL", "C");
            command
        };
        let printed = program("pg_controldata").arg("-D").arg(&data_dir).output().unwrap();
        assert!(printed.status.success(), "{printed:?}");
        let lines = String::from_utf8_lossy(&printed.stdout).into_owned();
        let halves = lines.lines().filter_map(|line| line.split_once(':'));
        let control: BTreeMap<String, String> =
            halves.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let mut waldump = program("pg_waldump");
        waldump.arg("-p").arg(data_dir.join("pg_wal"));
        waldump.args(["-t", &control["Latest checkpoint's TimeLineID"]]);
        waldump.args(["-s", &control["Latest checkpoint location"]]);
        let printed = waldump.output().unwrap();
        let [out, errors] = [printed.stdout, printed.stderr].map(|text| String::from_utf8(text).unwrap());
        Self { control, log: out + &errors }
    }

    fn says(&self, name: &str, value: impl Display) {
        assert_eq!(self.control[name], value.to_string(), "{name}: {:?}", self.control);
    }
}

#[test]
fn it_says_what_the_old_mains_control_file_its_log_and_the_new_mains_history_say() {
    run(async {
        let sandbox = two_nodes().postgres_only().threshold(2 * LIMIT).build().await?;
        // its PostgreSQL is stopped then, and nothing has been written to its directory since
        sandbox.set_environment(ALPHA, "INTERREX_BARRIER", Some("before:become_standby"));
        sandbox.start().await?;
        let writer = sandbox.start_writer(100.0)?;
        writer.wait_acknowledged(20, LIMIT).await?;
        let (_, closed) = tokio::try_join!(switch(&sandbox, ALPHA, "beta", &["--drain", "0s"]), async {
            sandbox.wait_supervisor_ended(ALPHA).await?;
            let closed = Closed::read(&sandbox, sandbox.node(ALPHA)?);
            sandbox.set_environment(ALPHA, "INTERREX_BARRIER", None);
            sandbox.start_supervisor(ALPHA).map(|_| closed)
        })?;
        let switched = ended(&sandbox, ALPHA).await?;
        assert_eq!(switched.end, RunEnd::Completed, "{:?}", switched.problem);
        let certificate = switched.certificate.unwrap();

        closed.says("Database cluster state", "shut down");
        closed.says("Database system identifier", &certificate.system_id);
        closed.says("Latest checkpoint location", certificate.checkpoint);
        closed.says("Latest checkpoint's TimeLineID", certificate.old_timeline);
        let records: Vec<&str> = closed.log.lines().filter(|line| line.starts_with("rmgr: ")).collect();
        assert!(matches!(*records, [last] if last.contains("CHECKPOINT_SHUTDOWN")), "{}", closed.log);
        // at the begin of a page it names the page, not the place
        if !certificate.end.0.is_multiple_of(PAGE) {
            let nothing_follows = format!(" at {}: ", certificate.end);
            assert!(closed.log.contains(&nothing_follows), "{} ends at {}", closed.log, certificate.end);
        }

        let history = format!("SELECT pg_read_file('pg_wal/{:08X}.history')", certificate.new_timeline.0);
        let history = sandbox.psql_value(BETA, &history).await?;
        let left: Vec<&str> = history.lines().next_back().unwrap().split_whitespace().take(2).collect();
        assert_eq!(left, [certificate.old_timeline.to_string(), certificate.switchpoint.to_string()]);
        assert_eq!((certificate.received, certificate.switchpoint), (certificate.end, certificate.end));
        let system_id = "SELECT system_identifier FROM pg_control_system()";
        assert_eq!(sandbox.psql_value(BETA, system_id).await?, certificate.system_id);
        nothing_is_lost_or_rewound(&sandbox, &writer.stop()).await
    });
}

async fn nothing_is_lost_or_rewound(sandbox: &Sandbox, acknowledged: &Acknowledged) -> Done<()> {
    sandbox.wait_streaming(BETA, ALPHA).await?;
    let events = sandbox.events(ALPHA)?.into_iter();
    let demotions: Vec<Demotion> = events
        .filter_map(|envelope| match envelope.event {
            Event::NodeDemoted(demoted) => Some(demoted.by),
            _ => None,
        })
        .collect();
    assert_eq!(demotions, [Demotion::Unchanged]);
    assert_eq!(sandbox.rows_lost(acknowledged, BETA).await?, Vec::<i64>::new());
    Ok(())
}
