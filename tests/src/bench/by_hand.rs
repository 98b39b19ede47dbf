//! What a person without Interrex has at hand: one connection that is open already.

use interrex::sandbox::{Done, Sandbox, SandboxError};
use interrex_events::NodeId;
use tokio_postgres::Client;

/// A connection with a node's PostgreSQL, as its superuser.
pub(crate) async fn connect(sandbox: &Sandbox, node: NodeId) -> Done<Client> {
    sandbox.session(node, "postgres").await
}

/// Sessions that a stop has to end: one in a statement that takes long, one that is idle in a transaction, and one that
/// has said that it will write.
pub(crate) async fn sessions(sandbox: &Sandbox, node: NodeId) -> Done<[Client; 2]> {
    let long = connect(sandbox, node).await?;
    // until the server ends it
    tokio::task::spawn_local(async move { long.batch_execute("BEGIN; SELECT pg_sleep(3600)").await });
    let sessions = [connect(sandbox, node).await?, connect(sandbox, node).await?];
    for (session, begin) in sessions.iter().zip(["BEGIN; SELECT 1", "BEGIN READ WRITE"]) {
        let begun = session.batch_execute(begin).await;
        begun.map_err(|error| SandboxError::failed("opening a session", error))?;
    }
    Ok(sessions)
}

/// `SELECT pg_promote()`: answered once the server takes writes.
pub(crate) async fn promote(client: &Client) -> Done<()> {
    let promoted = client.batch_execute("SELECT pg_promote()").await;
    promoted.map(drop).map_err(|error| SandboxError::failed("promoting by hand", error))
}
