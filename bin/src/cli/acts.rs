//! Requests of people to a supervisor over HTTP, and then the run as its journal shows it.

use std::{path::Path, time::Duration};

use chrono::{DateTime, Utc};
use interrex_actors::wire::{
    ApiAnswer, CancelBody, JournalBody, JournalPage, NodeReport, PlanBody, PromoteBody, RejoinBody,
    SECRET_HEADER, SwitchoverBody,
};
use interrex_events::{Address, Cause, NodeId, NodeSeq, RunId};
use serde::{Deserialize, Serialize};

use super::{
    ahead,
    arguments::{Promote, Rejoin, RunCancel, Switchover},
    by_hand,
    exit::Exit,
    failure::Failure,
    live,
    output::{self, Output},
    outside::{Outside, Question},
    source,
    watch::watch,
    when,
};
use crate::config::{Config, read_secret};

/// How long a supervisor may take to begin what it is asked.
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take to tell its events: it is asked again.
const PAGE_LIMIT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Begun {
    run_id: RunId,
}

/// A run that is being given up, or a schedule that was.
#[derive(Serialize, Deserialize)]
struct Cancelled {
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unscheduled: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fence_lifted: Option<RunId>,
}

impl Cancelled {
    fn in_words(&self) -> String {
        let run = self.run_id.map(RunId::short).map(|short| {
            format!("Run {short} is being cancelled; see its progress with: interrex run show {short}")
        });
        let schedule = self.unscheduled.map(|due| {
            format!("The switchover that was scheduled for {} is cancelled.", when::date_and_time_utc(due))
        });
        let fence = self.fence_lifted.map(|_| {
            "This node is no longer fenced and starts its servers as main; see when it serves with: interrex status".to_owned()
        });
        run.or(schedule).or(fence).unwrap_or_default()
    }
}

/// Hands the role of main over, and shows the run.
pub(super) fn switchover(
    arguments: &Switchover,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let target = node(&config, &arguments.to)?;
    let (main, before) = main_of(&config, outside)?;
    if arguments.dry_run {
        let drain_ms = u64::try_from(arguments.drain.as_millis()).unwrap_or(u64::MAX);
        let body = PlanBody::Switchover { target_node_id: target, drain_ms };
        return ahead::dry_run(&config, (main, &body), arguments.json, output);
    }
    let body = SwitchoverBody {
        target_node_id: target,
        drain_ms: u64::try_from(arguments.drain.as_millis()).unwrap_or(u64::MAX),
        reason: arguments.reason.clone(),
        asker: asker(&config),
    };
    if let Some(due) = arguments.at {
        let due = due.at(outside.now())?;
        return ahead::schedule((arguments, &config), (main, due), body, output);
    }
    let begun: Begun = post(&config, &address_of(&config, main)?, "/api/cluster/failover", &body)?;
    watch(&config, &arguments.config, (main, before, begun.run_id), arguments.json, outside, output)
}

/// Makes this node main.
pub(super) fn promote(
    arguments: &Promote,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let (me, address) = (config.node.id, live::reachable(config.node.listen));
    if arguments.dry_run {
        let body = PlanBody::Promotion { force: arguments.force, reason: arguments.reason.clone() };
        return ahead::dry_run(&config, (me, &body), arguments.json, output);
    }
    let before = newest_at(outside, me, &address).unwrap_or_default();
    let mut body =
        PromoteBody { force: arguments.force, reason: arguments.reason.clone(), asker: asker(&config) };
    let path = "/api/cluster/promote-to-main";
    let mut answer = ask::<Begun>(&config, &address, path, &body)?;
    let refused = answer.error.as_ref().filter(|error| error.code == "main_answers");
    if let Some(error) = refused.filter(|_| outside.has_keyboard()) {
        output::say(&output::harmless(&error.message));
        let name = &config.node.name;
        let prompt = format!("To take the role anyway, type the name of this node, {name}: ");
        if outside.typed(&prompt)?.as_deref() != Some(name.as_str()) {
            return Err(Failure::Other { what: "nothing was changed".to_owned(), source: None });
        }
        body.force = true;
        body.reason = body.reason.or_else(|| Some("confirmed at the keyboard".to_owned()));
        answer = ask(&config, &address, path, &body)?;
    }
    let begun = answered(&address, answer)?;
    watch(&config, &arguments.config, (me, before, begun.run_id), arguments.json, outside, output)
}

/// Brings a node back as a secondary.
pub(super) fn rejoin(
    arguments: &Rejoin,
    outside: &dyn Outside,
    output: &mut Output<'_>,
) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let returning = match &arguments.node {
        Some(text) => node(&config, text)?,
        None => config.node.id,
    };
    if arguments.script || arguments.ssh.is_some() {
        let (main, _) = main_of(&config, outside)?;
        return by_hand::rejoin(&config, (returning, main), arguments, output);
    }
    let address = address_of(&config, returning)?;
    let Some(before) = newest_at(outside, returning, &address) else {
        let name =
            nodes(&config).into_iter().find(|(id, ..)| *id == returning).map_or("it", |(_, name, _)| name);
        let what = format!(
            "the supervisor of {name} at {address} does not answer, and the rejoin needs it: start it there (interrex \
             supervise), or do the same by hand: interrex rejoin {name} --script"
        );
        return Err(Failure::Other { what, source: None });
    };
    if arguments.dry_run {
        let body = PlanBody::Rejoin { copy: arguments.copy };
        return ahead::dry_run(&config, (returning, &body), arguments.json, output);
    }
    let body = RejoinBody { copy: arguments.copy, reason: arguments.reason.clone(), asker: asker(&config) };
    let begun: Begun = post(&config, &address, "/api/cluster/rejoin", &body)?;
    watch(&config, &arguments.config, (returning, before, begun.run_id), arguments.json, outside, output)
}

/// Gives the run of this node up.
pub(super) fn cancel(arguments: &RunCancel, output: &mut Output<'_>) -> Result<Exit, Failure> {
    let config = config(arguments.config.as_deref())?;
    let body = CancelBody { force: arguments.force, reason: arguments.reason.clone(), asker: asker(&config) };
    let address = live::reachable(config.node.listen);
    let cancelled: Cancelled = post(&config, &address, "/api/cluster/run/cancel", &body)?;
    if arguments.json {
        output.json(&cancelled)?;
    } else {
        output.line(&cancelled.in_words())?;
    }
    Ok(Exit::Fine)
}

fn config(named: Option<&Path>) -> Result<Config, Failure> {
    Ok(Config::load(&source::config_path(named)?)?)
}

/// The person who asks: the user of this command.
fn asker(config: &Config) -> Cause {
    let uid = nix::unistd::Uid::current();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    let name = user.map_or_else(|| format!("user {uid}"), |user| user.name);
    Cause::Person { name, source: format!("the command line on {}", config.node.name) }
}

/// Every node with its name and where its supervisor answers.
pub(super) fn nodes(config: &Config) -> Vec<(NodeId, &str, Address)> {
    let own = (config.node.id, config.node.name.as_str(), live::reachable(config.node.listen));
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

pub(super) fn address_of(config: &Config, node: NodeId) -> Result<Address, Failure> {
    let known = nodes(config).into_iter().find(|(id, ..)| *id == node);
    known.map(|(.., address)| address).ok_or_else(|| Failure::Other {
        what: format!("node {node} is not in the configuration of this node: add it to [[peers]]"),
        source: None,
    })
}

/// The newest own event that a supervisor reports: a run that it begins now comes after that event.
fn newest_of(report: &NodeReport) -> NodeSeq {
    let own = report.journal_heads.iter().find(|head| head.node_id == report.node);
    own.map_or(NodeSeq(0), |head| head.node_seq)
}

/// The same, asked of it.
fn newest_at(outside: &dyn Outside, node: NodeId, address: &Address) -> Option<NodeSeq> {
    let reports = outside.ask(&[Question { node, address: address.clone() }]);
    reports.get(&node).and_then(|answer| answer.as_ref().ok()).map(newest_of)
}

/// Which node is main, by the supervisor that answers with the latest epoch; and main's newest event.
fn main_of(config: &Config, outside: &dyn Outside) -> Result<(NodeId, NodeSeq), Failure> {
    let questions: Vec<Question> =
        nodes(config).into_iter().map(|(node, _, address)| Question { node, address }).collect();
    let reports = outside.ask(&questions);
    let newest = reports.values().flatten().filter(|report| report.main.is_some()).max_by_key(|it| it.epoch);
    let main = newest.and_then(|report| report.main).ok_or_else(|| Failure::Other {
        what: "no supervisor that answers knows which node is main; see: interrex status".to_owned(),
        source: None,
    })?;
    let before = reports.get(&main).and_then(|answer| answer.as_ref().ok()).map(newest_of);
    Ok((main, before.unwrap_or_default()))
}

pub(super) fn post<T: serde::de::DeserializeOwned>(
    config: &Config,
    address: &Address,
    path: &str,
    body: &impl Serialize,
) -> Result<T, Failure> {
    answered(address, ask(config, address, path, body)?)
}

/// A node's events after a place, from its own supervisor.
pub(super) fn journal_page(
    config: &Config,
    (node, address): (NodeId, &Address),
    after: NodeSeq,
) -> Result<JournalPage, Failure> {
    let body = JournalBody { cluster_id: config.cluster.id, node, after };
    answered(address, ask_within(PAGE_LIMIT, config, address, "/api/cluster/journal", &body)?)
}

fn ask<T: serde::de::DeserializeOwned>(
    config: &Config,
    address: &Address,
    path: &str,
    body: &impl Serialize,
) -> Result<ApiAnswer<T>, Failure> {
    ask_within(LIMIT, config, address, path, body)
}

fn ask_within<T: serde::de::DeserializeOwned>(
    limit: Duration,
    config: &Config,
    address: &Address,
    path: &str,
    body: &impl Serialize,
) -> Result<ApiAnswer<T>, Failure> {
    let other = |what: String| Failure::Other { what, source: None };
    let secret = read_secret(&config.cluster.secret_file, "cluster.secret_file", 16).map_err(other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| other(error.to_string()))?;
    let asked = runtime.block_on(async {
        // never through a proxy, which would learn the secret
        let client = reqwest::Client::builder().no_proxy().timeout(limit).build()?;
        let request =
            client.post(format!("http://{address}{path}")).header(SECRET_HEADER, &*secret).json(body);
        request.send().await?.json::<ApiAnswer<T>>().await
    });
    asked.map_err(|error| Failure::Other {
        what: unanswered(config, address, limit, &error),
        source: Some(error.into()),
    })
}

/// What a request without an answer means, and what to do.
fn unanswered(config: &Config, address: &Address, limit: Duration, error: &reqwest::Error) -> String {
    let known = nodes(config).into_iter().find(|(.., known)| known == address);
    let name = known.map_or_else(String::new, |(_, name, _)| format!(" of {name}"));
    if error.is_connect() {
        format!(
            "the supervisor{name} at {address} does not run or cannot be reached: it got no request. Start it there (systemctl \
             start interrex, or: interrex supervise --config FILE), and run the command again"
        )
    } else if error.is_timeout() {
        format!(
            "the supervisor{name} at {address} got the request and has not answered within {limit:?}: it may still act on it. \
             Before you run the command again, look at: interrex run list"
        )
    } else {
        format!("the supervisor{name} at {address} does not answer as it should")
    }
}

fn answered<T>(address: &Address, answer: ApiAnswer<T>) -> Result<T, Failure> {
    let other = |what: String| Failure::Other { what, source: None };
    match (answer.data, answer.error) {
        (Some(data), _) if answer.success => Ok(data),
        (_, Some(error)) => Err(other(error.message)),
        _ => Err(other(format!("the supervisor at {address} gave no answer"))),
    }
}
