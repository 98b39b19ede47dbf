//! Beside the appends: sends what the journal holds into `cluster_events` of the server that the environment names.

use std::time::Duration;

use interrex::cli::failure::Failure;
use interrex_events::{
    Address, Epoch, cluster_events,
    journal::{Journal, JournalReader},
    postgres::{Login, Session},
};
use interrex_projections::postgres::Projector;
use interrex_tests::{RELAY_PASSWORD, RELAY_TO, journal_of_a_test};
use tokio_postgres::Client;

/// How long nothing is looked for after everything was sent.
const PAUSE: Duration = Duration::from_millis(5);
/// Events of one transaction: few, so that many transactions are there to be killed in.
const PAGE: u32 = 50;

/// What is behind the journal, and follows it.
pub(crate) struct Relay {
    client: Client,
    projector: Projector,
    reader: JournalReader,
}

impl Relay {
    /// Connected to the server that the environment names; nothing if it names none.
    pub(crate) async fn from_environment(journal: &Journal) -> Result<Option<Self>, Failure> {
        let Ok(server) = std::env::var(RELAY_TO) else { return Ok(None) };
        let Address { host, port } = server.parse().map_err(failed)?;
        let password = std::env::var(RELAY_PASSWORD).map_err(failed)?;
        let login =
            Login { host: &host, port, user: "interrex", password: Some(&password), database: "postgres" };
        let mut client = Session::writing("journal writer").open(login).await.map_err(failed)?;
        cluster_events::migrate(&mut client).await.map_err(failed)?;
        let mut projector = Projector::default();
        projector.mend(&mut client).await.map_err(failed)?;
        Ok(Some(Self { client, projector, reader: journal.reader()? }))
    }

    /// Sends for ever, until it fails.
    pub(crate) async fn follow(&mut self) -> Result<(), Failure> {
        loop {
            self.catch_up().await?;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends everything that is there by now, page by page.
    pub(crate) async fn catch_up(&mut self) -> Result<(), Failure> {
        let node = journal_of_a_test().node_id;
        loop {
            let mut relay = cluster_events::Relay::begin(&mut self.client, Epoch(1)).await.map_err(failed)?;
            let page = self.reader.page(node, relay.head_of(node).node_seq, PAGE)?;
            if page.is_empty() {
                return Ok(());
            }
            let appended = relay.append(&page).await.map_err(failed)?;
            self.projector.project(&mut relay, &appended).await.map_err(failed)?;
            let head = relay.commit().await.map_err(failed)?;
            self.projector.committed(head);
        }
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::Other { what: "relaying the journal".to_owned(), source: Some(error.into()) }
}
