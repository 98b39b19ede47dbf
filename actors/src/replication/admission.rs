//! Does PostgreSQL admit a new session? A server may answer the sessions that are open and let nobody in: its postmaster hangs,
//! or every place is taken. That is no reason for a failover, and none to call it healthy.
//!
//! The first message of a session is sent, and the server's first answer is enough: it forks for it and takes a place, and no
//! password is spent. Once in a quarter of the threshold; two attempts in a row decide.

use std::{future::Future, rc::Rc, sync::Arc, time::Duration};

use interrex_events::{AdmissionChanged, Draft, NodeId, PostgresStatus};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::Servers;
use crate::{
    env::ms,
    node::{Shared, View},
    ports::{NoReply, PeersPort},
};

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The shortest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;
/// The longest answer that is read.
const ANSWER_LIMIT: usize = 8_192;

/// Asks a server for a session, and leaves at its first answer.
///
/// # Errors
/// It admits none, or nothing came back. The caller sets the time limit.
pub(crate) async fn ask_for_a_session(
    (host, port): (&str, u16),
    user: &str,
    parameter: (&str, &str),
) -> Result<(), NoReply> {
    // a host may be the folder of a socket
    if host.starts_with('/') {
        let stream =
            UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await.map_err(|error| failed(&error))?;
        return converse(stream, user, parameter).await;
    }
    let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
    converse(stream, user, parameter).await
}

fn failed(error: &std::io::Error) -> NoReply {
    NoReply::of_system(error, error.to_string())
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    user: &str,
    parameter: (&str, &str),
) -> Result<(), NoReply> {
    stream.write_all(&first_message(user, parameter)).await.map_err(|error| failed(&error))?;
    loop {
        let (kind, body) = message(&mut stream).await.map_err(|error| failed(&error))?;
        match kind {
            b'E' => return Err(refusal(&body)),
            // no password is asked for: it goes on until the session is ready, and is ended in good order
            b'Z' => return stream.write_all(&[b'X', 0, 0, 0, 4]).await.map_err(|error| failed(&error)),
            b'R' if body.iter().any(|byte| *byte != 0) => return Ok(()),
            _ => {}
        }
    }
}

fn first_message(user: &str, (name, value): (&str, &str)) -> Vec<u8> {
    let mut words = Vec::new();
    for word in ["user", user, name, value, "application_name", "interrex", ""] {
        words.extend_from_slice(word.as_bytes());
        words.push(0);
    }
    let length = i32::try_from(words.len() + 8).unwrap_or_default();
    [&length.to_be_bytes()[..], &PROTOCOL.to_be_bytes(), &words].concat()
}

async fn message(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = usize::try_from(stream.read_i32().await?).unwrap_or_default().saturating_sub(4);
    if length > ANSWER_LIMIT {
        return Err(std::io::Error::other("it does not answer as PostgreSQL"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// Fields of an ErrorResponse: a letter and a text each.
fn refusal(body: &[u8]) -> NoReply {
    let field = |letter: u8| {
        let mut fields = body.split(|byte| *byte == 0);
        let found = fields.find_map(|field| field.strip_prefix(&[letter]));
        String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
    };
    NoReply::of_sqlstate(&field(b'C'), &field(b'M'))
}

/// What two attempts in a row came to.
#[derive(Debug, Default)]
struct Attempts {
    failed: Option<String>,
}

impl Attempts {
    /// Takes in an attempt at a server that admits sessions as far as it was told, or does not: what has changed, if anything.
    fn take(&mut self, admits: bool, attempt: Result<(), NoReply>) -> Option<Result<(), String>> {
        match attempt {
            Err(NoReply::Unknown(_)) => None,
            Ok(()) => {
                self.failed = None;
                (!admits).then_some(Ok(()))
            }
            Err(refusal) => {
                let before = self.failed.replace(refusal.to_string());
                (admits && before.is_some()).then(|| Err(refusal.to_string()))
            }
        }
    }
}

/// Asks this node's PostgreSQL again and again.
pub(super) async fn watch_own(shared: Arc<Shared>, servers: Rc<Servers>) {
    let me = shared.settings.me;
    let answers = move |view: &View| {
        let answers = !matches!(view.postgres.status, PostgresStatus::Stopped | PostgresStatus::Unreachable);
        answers.then_some(me)
    };
    watch(&shared, answers, |view| &mut view.no_session, |_| servers.postgres.admits()).await;
}

/// Asks main's. What its supervisor says of it counts as well: it also sees places that are kept for superusers.
pub(super) async fn watch_main(shared: Arc<Shared>, peers: Rc<dyn PeersPort>) {
    let answers = |view: &View| {
        let sight = view.main_sight.as_ref()?;
        (sight.evidence.postgres.is_good() || sight.evidence.supervisor.is_good()).then_some(sight.main)
    };
    let asked = |main: NodeId| {
        let said = shared.look(|view| view.main_refuses.clone());
        let peers = peers.clone();
        async move {
            match said {
                Some(words) => Err(NoReply::Silent(words)),
                None => peers.admits(main).await,
            }
        }
    };
    watch(&shared, answers, |view| &mut view.main_no_session, asked).await;
}

async fn watch<Asked: Future<Output = Result<(), NoReply>>>(
    shared: &Shared,
    answers: impl Fn(&View) -> Option<NodeId>,
    shown: impl Fn(&mut View) -> &mut Option<String>,
    ask: impl Fn(NodeId) -> Asked,
) {
    let mut attempts = Attempts::default();
    let mut asked_last = None;
    loop {
        let threshold_ms =
            shared.look(|view| shared.settings.failover.with(&view.cluster.settings).threshold_ms);
        let quarter = Duration::from_millis(threshold_ms / 4).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        // a failure is made sure of sooner: all of it fits into the threshold
        tokio::time::sleep(if attempts.failed.is_some() { quarter / 2 } else { quarter }).await;
        let node = shared.look(&answers);
        if node != asked_last || node.is_none() {
            // another server, or one that answers nobody: that is told otherwise
            (asked_last, attempts) = (node, Attempts::default());
            shared.measured(|view| *shown(view) = None);
        }
        let Some(node) = node else { continue };
        let limit = quarter.min(shared.settings.probe_timeout);
        let attempt = tokio::time::timeout(limit, ask(node)).await;
        let attempt =
            attempt.unwrap_or_else(|_| Err(NoReply::Silent(format!("no answer within {} ms", ms(limit)))));
        // it may have ended meanwhile
        if shared.look(&answers) != Some(node) {
            continue;
        }
        let mut admits = true;
        shared.measured(|view| admits = shown(view).is_none());
        let Some(changed) = attempts.take(admits, attempt) else { continue };
        let detail = changed.as_ref().err().cloned();
        shared.measured(|view| shown(view).clone_from(&detail));
        let fact = AdmissionChanged { node, admits: changed.is_ok(), detail: detail.unwrap_or_default() };
        shared.record(Draft::new(shared.epoch(), fact));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Result<(), NoReply> {
        Err(NoReply::of_sqlstate("53300", "tut mir leid, schon zu viele Verbindungen"))
    }

    #[test]
    fn one_failed_attempt_is_nothing_two_in_a_row_are_told_once_and_so_is_the_end_of_it() {
        let mut attempts = Attempts::default();
        let mut admits = true;
        let mut told = Vec::new();
        let full_once = [full(), Ok(())];
        let full_for_long =
            [full(), full(), full(), Err(NoReply::Unknown(String::new())), full(), Ok(()), Ok(())];
        for attempt in full_once.into_iter().chain(full_for_long) {
            if let Some(changed) = attempts.take(admits, attempt) {
                admits = changed.is_ok();
                told.push(admits);
            }
        }
        assert_eq!(told, [false, true]);
    }

    #[test]
    fn a_refusal_is_read_by_its_code() {
        let body = b"SFATAL\0VFATAL\0C53300\0Mtut mir leid\0\0";
        assert_eq!(refusal(body).code(), Some("53300"));
        let starting = refusal(b"SFATAL\0C57P03\0Mdas Datenbanksystem startet\0\0");
        assert!(matches!(starting, NoReply::Passing(_)), "{starting:?}");
    }

    #[test]
    fn the_first_message_is_as_the_protocol_has_it() {
        let message = first_message("u", ("database", "d"));
        assert_eq!(message[..8], [0, 0, 0, 53, 0, 3, 0, 0]);
        assert_eq!(&message[8..], b"user\0u\0database\0d\0application_name\0interrex\0\0");
        assert_eq!(message.len(), 53);
    }
}
