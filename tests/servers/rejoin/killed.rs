//! A supervisor that is killed at any moment of a rejoin, and its successors, until one comes to the end.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use interrex::sandbox::ALPHA;
use interrex_actors::ports::{RejoinPort as _, Rewind};
use interrex_adapters::{
    postgres::{LocalPostgres, PostgresSettings},
    runtime::{Postmaster, Processes, RunAs},
};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use super::{KeepRequest, LIMIT, Parted, STRANDED, Source, slot};
use crate::pair::on_one_thread;

/// Names the file with a process's orders.
const ORDERS: &str = "INTERREX_TEST_REJOIN_ORDERS";
/// The longest that a process lives which is killed: most of them need less than this.
const LONGEST_LIFE_MS: u64 = 300;
/// How many are killed, at most, before one is let live.
const MOST_KILLED: usize = 12;

/// What a process is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Orders {
    step: Step,
    data_dir: PathBuf,
    programs: PathBuf,
    /// A file of the servers' user; the data directory may be missing for a moment.
    owned: PathBuf,
    conninfo: String,
    passfile: Option<PathBuf>,
    kept: PathBuf,
    /// Where it writes its answer.
    answer: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Step {
    Keep,
    Rewind,
    BaseBackup,
}

/// Not a test: the process that is killed.
#[test]
#[ignore = "a part of the tests beside it"]
fn one_process() {
    let Some(file) = env::var_os(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    on_one_thread(async {
        let answer = match follow(&orders).await {
            Ok(message) => message,
            Err(error) => format!("error: {error}"),
        };
        fs::write(&orders.answer, answer).unwrap();
    });
}

async fn follow(orders: &Orders) -> Result<String, interrex_actors::ports::PortError> {
    let alpha = adapter(&orders.data_dir, &orders.programs, &orders.owned);
    let source = Source { conninfo: orders.conninfo.clone(), passfile: orders.passfile.clone() };
    let request = KeepRequest {
        into: orders.kept.clone(),
        reason: "a test".to_owned(),
        switchpoint: None,
        stranded: None,
        before_rewind: orders.step == Step::Keep,
        at: chrono::DateTime::from_timestamp(1, 0).unwrap(),
    };
    Ok(match orders.step {
        Step::Keep => format!("kept in {}", alpha.keep_copy(&request, &|_| {}).await?.folder.display()),
        Step::Rewind => match alpha.rewind(&source, LIMIT).await? {
            Rewind::Impossible(why) => format!("impossible: {why}"),
            other => format!("{other:?}"),
        },
        Step::BaseBackup => {
            let kept = alpha.base_backup(&source, &slot(ALPHA), &request, &|_| {}, LIMIT).await?;
            format!("kept in {}", kept.folder.display())
        }
    })
}

/// Enough of an adapter for a directory that is not started.
fn adapter(data_dir: &Path, programs: &Path, owned: &Path) -> LocalPostgres {
    LocalPostgres::new(PostgresSettings {
        data_dir: data_dir.to_owned(),
        bin_dir: programs.to_owned(),
        runtime: Rc::new(Processes::new(
            RunAs::resolve(None, owned).unwrap(),
            data_dir.with_extension("log"),
            Postmaster::of(data_dir),
        )),
        host: "127.0.0.1".to_owned(),
        port: 1,
        user: "interrex".to_owned(),
        password: None,
        database: "postgres".to_owned(),
        replication_user: "replicator".to_owned(),
        replication_passfile: None,
        node: ALPHA,
        measure_limit: Duration::from_secs(1),
        config_file: None,
        upstream_file: data_dir.with_extension("upstream"),
        stop_patience: Duration::from_secs(10),
    })
}

/// Processes make a step, each killed at a moment of its own, until one gives an answer.
async fn make(parted: &Parted, step: Step, random: &mut fastrand::Rng) -> String {
    let source = match step {
        Step::BaseBackup => parted.replicator(),
        _ => parted.superuser(),
    };
    let folder = &parted.node().folder;
    let orders = Orders {
        step,
        data_dir: parted.data_dir(),
        programs: parted.pair.sandbox.postgres_programs().to_owned(),
        owned: parted.node().secrets_dir().join("replication.pgpass"),
        conninfo: source.conninfo,
        passfile: source.passfile,
        kept: folder.join("kept"),
        answer: folder.join(format!("answer-{step:?}")),
    };
    let file = folder.join("orders.json");
    fs::write(&file, serde_json::to_string(&orders).unwrap()).unwrap();
    let mut killed = 0;
    for _ in 0..2 * MOST_KILLED {
        let mut process = process(&file);
        let life = Duration::from_millis(random.u64(0..LONGEST_LIFE_MS));
        let life = if killed < MOST_KILLED { life } else { LIMIT };
        if tokio::time::timeout(life, process.wait()).await.is_err() {
            killed += 1;
        }
        // SIGKILL: nothing of it is tidied up; what it started goes on
        process.kill().await.unwrap();
        match fs::read_to_string(&orders.answer) {
            // a walsender of a process that was killed may still hold the slot
            Ok(answer) if answer.contains("is active for PID") => fs::remove_file(&orders.answer).unwrap(),
            Ok(answer) if !answer.is_empty() => {
                println!("{step:?}: {killed} killed, then {answer}");
                return answer;
            }
            _ => {}
        }
    }
    format!("{step:?}: none of them came to an answer")
}

fn process(orders: &Path) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "rejoin::killed::one_process", "--ignored", "--nocapture"]);
    command.env(ORDERS, orders).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn seed() -> u64 {
    let seed = env::var("INTERREX_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("INTERREX_SEED={seed}");
    seed
}

#[test]
fn supervisors_killed_at_any_moment_bring_the_directory_back_by_a_rewind() {
    let mut random = fastrand::Rng::with_seed(seed());
    on_one_thread(async {
        let parted = Parted::make().await;
        let kept = make(&parted, Step::Keep, &mut random).await;
        let kept = PathBuf::from(kept.strip_prefix("kept in ").unwrap_or_else(|| panic!("{kept}")));
        // a pg_rewind whose supervisor was killed goes on, and the next one waits for it
        assert_eq!(make(&parted, Step::Rewind, &mut random).await, "Rewound");
        parted.comes_back().await;
        assert_eq!(parted.salvaged(&kept).await, STRANDED);
    });
}

#[test]
fn supervisors_killed_at_any_moment_bring_the_directory_back_by_a_base_backup() {
    let mut random = fastrand::Rng::with_seed(seed());
    on_one_thread(async {
        let parted = Parted::make().await;
        let replaced = make(&parted, Step::BaseBackup, &mut random).await;
        assert!(replaced.starts_with("kept in"), "{replaced}");
        let kept = fs::read_dir(parted.request(1).into).unwrap().count();
        assert_eq!(kept, 1, "one copy, and nothing that was given up");
        parted.comes_back().await;
    });
}
