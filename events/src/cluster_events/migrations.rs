//! The tables in PostgreSQL, made by numbered steps that only go forward.

use tokio_postgres::Client;

use super::StoreError;

/// Every step, in order; a step that was shipped is never changed.
const STEPS: [&str; 2] = [
    include_str!("migrations/001_stream.sql"),
    include_str!("migrations/002_positions_projections_settings.sql"),
];

/// Serialises everybody who changes the schema: the bytes "IRRX".
const LOCK: i64 = 0x4952_5258;

/// Brings the schema `interrex` to this program's version, from whichever older one, or from nothing.
///
/// # Errors
/// PostgreSQL failed, for example because the user may not create a schema, or the schema is a newer program's.
pub async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let known = STEPS.len() as i32;
    // changing it wants locks that a reader on a former standby may hold: not where there is nothing to change
    if is_current(client).await? {
        return Ok(());
    }
    let transaction = client.transaction().await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let found = version(transaction.client()).await?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    for step in &STEPS[usize::try_from(found).unwrap_or_default()..] {
        transaction.batch_execute(step).await?;
    }
    transaction.execute("UPDATE interrex.schema_version SET version = $1", &[&known]).await?;
    Ok(transaction.commit().await?)
}

/// Whether the schema is there, and of this program's version. Changes nothing.
///
/// # Errors
/// PostgreSQL failed.
pub async fn is_current(client: &Client) -> Result<bool, StoreError> {
    Ok(version(client).await? == STEPS.len() as i32)
}

/// The version that is there; 0 is none.
async fn version(client: &Client) -> Result<i32, StoreError> {
    let there: bool =
        client.query_one("SELECT to_regclass('interrex.schema_version') IS NOT NULL", &[]).await?.get(0);
    if !there {
        return Ok(0);
    }
    Ok(client.query_one("SELECT version FROM interrex.schema_version", &[]).await?.get(0))
}
