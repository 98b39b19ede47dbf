//! The tables in PostgreSQL, made by numbered steps that only go forward.

use tokio_postgres::Client;

use super::StoreError;
use crate::postgres::shown;

/// Every step, in order; a step that was released is never changed.
const STEPS: [&str; 1] = [include_str!("migrations/001_stream_projections_settings.sql")];

/// Serialises every session that changes the schema: the bytes "IRRX".
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
    // what is made here is resolved once and for all, whatever session this is
    transaction.batch_execute("SET LOCAL search_path = pg_catalog").await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    let found = version(transaction.client()).await?;
    if found > known {
        return Err(StoreError::NewerSchema { found, known });
    }
    if !is_there(transaction.client()).await? {
        // refused if it is there by now: who may create one in this database must not be the one who made it
        transaction.batch_execute("CREATE SCHEMA interrex").await?;
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

/// Whether the schema is there, and a superuser's with everything of ours in it. A role that may create a schema in the database
/// could have made one of that name: its triggers and views would run as the superuser who writes there, or reads.
///
/// # Errors
/// PostgreSQL failed, or the schema belongs to a role that is not a superuser.
pub async fn is_there(client: &Client) -> Result<bool, StoreError> {
    let strange = client.query_opt(&strange(), &[]).await?;
    if let Some(row) = strange {
        return Err(StoreError::StrangeSchema { what: row.try_get(0)?, owner: row.try_get(1)? });
    }
    Ok(client.query_one("SELECT to_regnamespace('interrex') IS NOT NULL", &[]).await?.try_get(0)?)
}

/// What in the schema belongs to a role that is not a superuser.
fn strange() -> String {
    format!(
        "SELECT thing, {owner}
         FROM (SELECT 'schema interrex' AS thing, nspowner AS owner FROM pg_namespace WHERE nspname = 'interrex'
               UNION ALL
               SELECT 'interrex.' || relname, relowner FROM pg_class
               WHERE relnamespace = to_regnamespace('interrex') AND relname ~ '{OWN_NAMES}'
               UNION ALL
               SELECT 'interrex.' || proname, proowner FROM pg_proc WHERE pronamespace = to_regnamespace('interrex')) AS things
         JOIN pg_roles ON pg_roles.oid = owner
         WHERE NOT rolsuper ORDER BY thing <> 'schema interrex', thing LIMIT 1",
        owner = shown("rolname")
    )
}

/// Tables and views of this schema.
const OWN_NAMES: &str = "^(schema_version|write_probe|stream_head|journal_heads|projection_checkpoints|settings_requests|cluster_)";

/// The version that is there; 0 is none.
async fn version(client: &Client) -> Result<i32, StoreError> {
    if !is_there(client).await? {
        return Ok(0);
    }
    let there = client.query_one("SELECT to_regclass('interrex.schema_version') IS NOT NULL", &[]).await?;
    if !there.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    Ok(client.query_one("SELECT version FROM interrex.schema_version", &[]).await?.try_get(0)?)
}
