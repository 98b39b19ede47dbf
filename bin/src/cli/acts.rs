//! What people ask of a supervisor: a request over HTTP, and then the run as its journal tells it.

use std::{path::Path, time::Duration};

use interrex_actors::notifier::peers::{ApiAnswer, CancelBody, SECRET_HEADER, SwitchoverBody};
use interrex_events::{Cause, NodeId, NodeSeq, RunId, journal::JournalReader};
use interrex_projections::{Projection as _, RunEnd, Runs, Timeline};
use serde::{Deserialize, Serialize};

use super::{
    arguments::{Reading, RunCancel, RunShow, Switchover},
    exit::Exit,
    failure::Failure,
    output::{self, Output},
    outside::{Outside, Question},
    source, views,
};
use crate::config::{Config, read_secret};

/// How long a supervisor may take to begin what it is asked.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the journal is looked at while a run goes on.
const LOOK: Duration = Duration::from_millis(100);
/// How often a supervisor whose run tells nothing new is asked whether it lives.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often in a row it may give no answer before nobody waits for it.
const UNANSWERED: u32 = 12;
/// Events that are read at once.
const PAGE: u32 = 500;

#[derive(Deserialize)]
struct Begun {
    run_id: RunId,
}

/// Hands the role of main over, and tells how it goes.
pub(super) fn switchover(
    arguments: &Switchover,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let target = node(&config, &arguments.to)?;
    let main = main_of(&config, outside)?;
    let body = SwitchoverBody {
        target_node_id: target,
        drain_ms: u64::try_from(arguments.drain.as_millis()).unwrap_or(u64::MAX),
        reason: arguments.reason.clone(),
        asker: asker(&config),
    };
    let before = heads(&config, main)?;
    let begun: Begun = post(&config, &address_of(&config, main), "/api/cluster/failover", &body)?;
    follow(
        (arguments.config.as_deref(), &config),
        (main, before),
        begun.run_id,
        arguments.json,
        outside,
        output,
    )
}

/// Gives the run of this node up.
pub(super) fn cancel(arguments: &RunCancel, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let body = CancelBody { reason: arguments.reason.clone(), asker: asker(&config) };
    let address = config.node.listen.to_string();
    let begun: Begun = post(&config, &address, "/api/cluster/run/cancel", &body)?;
    if arguments.json {
        output.json(&serde_json::json!({ "run_id": begun.run_id }))?;
    } else {
        let short = begun.run_id.short();
        output.line(&format!(
            "Run {short} is being given up; see how far it is with: interrex run show {short}"
        ))?;
    }
    Ok(Exit::Fine)
}

fn config(named: Option<&Path>) -> Result<Config, Failure> {
    Ok(Config::load(&source::config_path(named)?)?)
}

/// Who asks: the user of this command.
fn asker(config: &Config) -> Cause {
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let name = user.map_or_else(|| format!("user {uid}"), |user| user.name);
    Cause::Person { name, source: format!("the command line on {}", config.node.name) }
}

/// Every node with its name and where its supervisor answers.
fn nodes(config: &Config) -> Vec<(NodeId, &str, String)> {
    let own = (config.node.id, config.node.name.as_str(), config.node.listen.to_string());
    let peers = config.peers.iter().map(|peer| (peer.id, peer.name.as_str(), peer.address.clone()));
    [own].into_iter().chain(peers).collect()
}

fn node(config: &Config, text: &str) -> Result<NodeId, Failure> {
    let nodes = nodes(config);
    let meant = nodes.iter().find(|(id, name, _)| *name == text || id.to_string() == text);
    meant.map(|(id, ..)| *id).ok_or_else(|| {
        let known: Vec<String> = nodes.iter().map(|(id, name, _)| format!("{name} ({id})")).collect();
        Failure::Usage(format!("there is no node `{text}`; nodes are {}", known.join(", ")))
    })
}

fn address_of(config: &Config, node: NodeId) -> String {
    nodes(config).into_iter().find(|(id, ..)| *id == node).map(|(.., address)| address).unwrap_or_default()
}

/// Who is main, by whoever answers with the latest epoch.
fn main_of(config: &Config, outside: &dyn Outside) -> Result<NodeId, Failure> {
    let questions: Vec<Question> =
        nodes(config).into_iter().map(|(node, _, address)| Question { node, address }).collect();
    let reports = outside.ask(&questions);
    let newest = reports.values().flatten().filter(|report| report.main.is_some()).max_by_key(|it| it.epoch);
    newest.and_then(|report| report.main).ok_or_else(|| Failure::Other {
        what: "no supervisor answers that knows who is main; see: interrex status".to_owned(),
        source: None,
    })
}

fn post<T: serde::de::DeserializeOwned>(
    config: &Config,
    address: &str,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    let other = |what: String| Failure::Other { what, source: None };
    let secret = read_secret(&config.cluster.secret_file, "cluster.secret_file", 16).map_err(other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| other(error.to_string()))?;
    let asked = runtime.block_on(async {
        // never through a proxy, which would learn the secret
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build()?;
        let request = client.post(format!("http://{address}{path}")).header(SECRET_HEADER, secret).json(body);
        request.send().await?.json::<ApiAnswer<T>>().await
    });
    let answer = asked.map_err(|error| Failure::Other {
        what: format!("the supervisor at {address} does not answer as it should"),
        source: Some(error.into()),
    })?;
    match (answer.data, answer.error) {
        (Some(data), _) if answer.success => Ok(data),
        (_, Some(error)) => Err(other(error.message)),
        _ => Err(other(format!("the supervisor at {address} gave no answer"))),
    }
}

fn journal(config: &Config) -> Result<JournalReader, Failure> {
    Ok(JournalReader::open(&config.node.journal)?)
}

/// The newest event of a node that is here.
fn heads(config: &Config, node: NodeId) -> Result<NodeSeq, Failure> {
    let heads = journal(config)?.verify()?.heads;
    Ok(heads.into_iter().find(|head| head.node_id == node).map_or(NodeSeq(0), |head| head.node_seq))
}

/// Tells the run step by step, until it has ended. This node holds main's events, its own or a copy.
fn follow(
    (named, config): (Option<&Path>, &Config),
    (main, mut after): (NodeId, NodeSeq),
    id: RunId,
    json: bool,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let journal = journal(config)?;
    let (mut runs, mut timeline) = (Runs::default(), Timeline::default());
    let question = Question { node: main, address: address_of(config, main) };
    let (mut told, mut quiet, mut unanswered) = (0, Duration::ZERO, 0);
    loop {
        for record in journal.page(main, after, PAGE)? {
            (after, quiet, unanswered) = (record.node_seq, Duration::ZERO, 0);
            let envelope = record.open();
            if envelope.run_id == Some(id) {
                runs.apply(&envelope);
                timeline.apply(&envelope);
            }
        }
        for entry in &timeline.entries[told..] {
            output::say(&entry.text);
        }
        told = timeline.entries.len();
        if let Some(run) = runs.get(id).filter(|run| !run.is_running()) {
            let done = matches!(run.end, RunEnd::Completed | RunEnd::CompletedDegraded);
            let reading = Reading { config: named.map(Path::to_owned), json, ..Reading::default() };
            views::run::show(&RunShow { run: Some(id.to_string()), reading }, output)?;
            return Ok(if done { Exit::Fine } else { Exit::Failed });
        }
        if quiet >= ASK_EVERY {
            quiet = Duration::ZERO;
            let answers = outside.ask(std::slice::from_ref(&question)).values().any(Result::is_ok);
            unanswered = if answers { 0 } else { unanswered + 1 };
        }
        if unanswered == UNANSWERED {
            return Err(Failure::Other {
                what: format!(
                    "the supervisor at {} has not answered for a minute; its run goes on when it is started again, and \
                     `interrex run show {}` tells how far it is",
                    question.address,
                    id.short()
                ),
                source: None,
            });
        }
        if !outside.wait(LOOK)? {
            return Ok(Exit::Fine);
        }
        quiet += LOOK;
    }
}
