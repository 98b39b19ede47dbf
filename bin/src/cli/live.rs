//! Asking live supervisors: `GET /health`, all at once, one second at most.

use std::{
    collections::BTreeMap,
    error::Error,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use interrex_events::{Address, NodeId};
use serde::Deserialize;

use super::outside::{Answer, Question, Silence};

/// An operator waits for this answer; a supervisor that needs longer is itself a finding.
const LIMIT: Duration = Duration::from_secs(1);

/// The body of `GET /health`, whether its status is 200 or 503.
#[derive(Deserialize)]
struct Body {
    data: serde_json::Value,
}

/// Asks every supervisor for its report.
pub(super) fn ask(questions: &[Question]) -> BTreeMap<NodeId, Answer> {
    let nobody = |words: String| {
        let silence = Silence { not_running: false, words };
        questions.iter().map(|question| (question.node, Err(silence.clone()))).collect()
    };
    // never through a proxy: what a proxy says of a node is not what the node says
    let client = match reqwest::Client::builder().no_proxy().timeout(LIMIT).build() {
        Ok(client) => client,
        Err(error) => return nobody(innermost(&error).to_string()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return nobody(error.to_string()),
    };
    runtime.block_on(async {
        let mut asked = tokio::task::JoinSet::new();
        for Question { node, address } in questions.iter().cloned() {
            let client = client.clone();
            asked.spawn(async move { (node, ask_one(&client, &address).await) });
        }
        asked.join_all().await.into_iter().collect()
    })
}

async fn ask_one(client: &reqwest::Client, address: &Address) -> Answer {
    let request = client.get(format!("http://{address}/health"));
    let response = request.send().await.map_err(|error| silence(address, &error))?;
    let status = response.status();
    let bytes = response.bytes().await.map_err(|error| silence(address, &error))?;
    serde_json::from_slice::<Body>(&bytes).and_then(|body| serde_json::from_value(body.data)).map_err(
        |error| {
            let words =
                format!("{address} answers {status}, but not as a supervisor of this version does: {error}");
            Silence { not_running: false, words }
        },
    )
}

fn silence(address: &Address, error: &reqwest::Error) -> Silence {
    if error.is_timeout() {
        let words = format!("{address} gives no answer within {} s", LIMIT.as_secs());
        return Silence { not_running: false, words };
    }
    let cause = innermost(error);
    let refused =
        cause.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::ConnectionRefused);
    Silence { not_running: refused, words: format!("{address}: {cause}") }
}

/// The last cause is the system's message, such as `connection refused`.
fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

/// Where a listener on this machine is reached: a listener on every address answers on loopback.
pub(crate) fn reachable(listen: SocketAddr) -> Address {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port()).into()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpListener,
    };

    use super::{
        super::tests::stream::{ALPHA, report},
        *,
    };

    fn question(node: u32, listener: &TcpListener) -> Question {
        Question { node: NodeId(node), address: listener.local_addr().unwrap().into() }
    }

    fn answer_once(listener: TcpListener, body: String) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            write!(stream, "HTTP/1.1 503 x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        })
    }

    #[test]
    fn a_node_a_stranger_a_mute_and_nobody_are_told_apart_within_the_limit() {
        let [node, stranger, mute, nobody] = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let questions =
            [question(1, &node), question(2, &stranger), question(3, &mute), question(4, &nobody)];
        drop(nobody);
        let body = serde_json::json!({ "success": true, "data": report(ALPHA) }).to_string();
        let answering = [answer_once(node, body), answer_once(stranger, r#"{"data":{}}"#.to_owned())];
        let answers = ask(&questions);
        answering.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(answers[&NodeId(1)], Ok(report(ALPHA)));
        let silence = |node| answers[&NodeId(node)].clone().unwrap_err();
        assert!(silence(2).words.contains("answers 503 Service Unavailable, but not as"), "{:?}", silence(2));
        assert!(silence(3).words.contains("no answer within 1 s") && !silence(3).not_running);
        assert!(silence(4).words.contains("Connection refused") && silence(4).not_running);
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        assert_eq!(reachable("0.0.0.0:7401".parse().unwrap()).to_string(), "127.0.0.1:7401");
        assert_eq!(reachable("[::]:7401".parse().unwrap()).to_string(), "[::1]:7401");
        assert_eq!(reachable("10.0.0.2:7401".parse().unwrap()).to_string(), "10.0.0.2:7401");
    }
}
