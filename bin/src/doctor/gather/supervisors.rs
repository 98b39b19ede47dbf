//! What each supervisor reports, and whether it accepts the cluster secret of this node.

use std::{collections::BTreeMap, error::Error, time::Duration};

use interrex_actors::wire::{ApiAnswer, JournalBody, NodeReport, SECRET_HEADER};
use interrex_events::{Address, NodeId, NodeSeq};
use serde::Deserialize;

use super::all;
use crate::{
    config::{Config, read_secret},
    doctor::{
        facts::{NodeNamed, SupervisorFacts},
        finding::Measured,
    },
};

/// How long doctor waits for one request.
const LIMIT: Duration = Duration::from_secs(3);
/// No event comes after this number: the answer is a page without events.
const AFTER_ALL: NodeSeq = NodeSeq(i64::MAX.cast_unsigned());

/// The body of `GET /health`, with any status.
#[derive(Deserialize)]
struct Health {
    data: NodeReport,
}

/// Asks all supervisors.
pub(super) async fn ask(config: &Config, nodes: &[NodeNamed]) -> BTreeMap<NodeId, SupervisorFacts> {
    let secret = read_secret(&config.cluster.secret_file, "cluster.secret_file", 16);
    // never through a proxy, which would learn the secret
    let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build();
    let client = client.map_err(|error| in_words(&error));
    all(nodes.iter().map(|named| {
        let (client, secret) = (&client, &secret);
        async move {
            let (report, admitted) =
                tokio::join!(async { report(client.as_ref()?, &named.supervisor).await }, async {
                    admitted(client.as_ref()?, config, secret.as_ref()?, named).await
                });
            (named.id, SupervisorFacts { report, admitted })
        }
    }))
    .await
}

async fn report(client: &reqwest::Client, address: &Address) -> Measured<NodeReport> {
    let answer = client.get(format!("http://{address}/health")).send().await;
    let answer = answer.map_err(|error| format!("{address}: {}", in_words(&error)))?;
    let health = answer.json::<Health>().await;
    health.map(|health| health.data).map_err(|error| {
        format!("{address} answers, but not as a supervisor of this version: {}", in_words(&error))
    })
}

/// Asks for an empty page of the journal: a request that only a node may make, and that changes nothing.
async fn admitted(
    client: &reqwest::Client,
    config: &Config,
    secret: &str,
    named: &NodeNamed,
) -> Measured<()> {
    let address = &named.supervisor;
    let body = JournalBody { cluster_id: config.cluster.id, node: named.id, after: AFTER_ALL };
    let request = client.post(format!("http://{address}/api/cluster/journal")).header(SECRET_HEADER, secret);
    let answer =
        request.json(&body).send().await.map_err(|error| format!("{address}: {}", in_words(&error)))?;
    let answer = answer.json::<ApiAnswer<serde::de::IgnoredAny>>().await;
    let answer = answer.map_err(|error| format!("{address}: {}", in_words(&error)))?;
    match answer.error {
        None if answer.success => Ok(()),
        refusal => Err(refusal
            .map_or_else(|| "the supervisor refused without a message".to_owned(), |error| error.message)),
    }
}

/// The last cause has the system's message.
fn in_words(error: &reqwest::Error) -> String {
    let mut error: &dyn Error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}
