//! What each Redis reports about itself.

use interrex_adapters::redis::{connect, rights::lacking};
use interrex_events::Address;
use redis::{Cmd, FromRedisValue};

use crate::doctor::{facts::RedisServerFacts, finding::Measured};

/// Asks for all facts; each answer has the connection's own time limit.
pub(super) async fn measure(password: Option<&str>, address: &Address) -> Measured<RedisServerFacts> {
    let Address { host, port } = address;
    let mut connection =
        connect(host, *port, password).await.map_err(|words| format!("{address}: {words}"))?;
    let lacks = lacking(&mut connection).await.map_err(|error| format!("{address}: {error}"))?;
    let mut ask = async |words: &[&str]| -> Measured<redis::Value> {
        let mut command = Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command
            .query_async(&mut connection)
            .await
            .map_err(|error| format!("{address}: {}: {error}", words.join(" ")))
    };
    let info: String = read(ask(&["INFO"]).await?)?;
    let may_ask = !lacks.iter().any(|words| words.starts_with("CONFIG "));
    let mut setting = async |name: &str| -> Measured<String> {
        if !may_ask {
            return Ok(String::new());
        }
        let pair: Vec<String> = read(ask(&["CONFIG", "GET", name]).await?)?;
        Ok(pair.into_iter().nth(1).unwrap_or_default())
    };
    let min_replicas = setting("min-replicas-to-write").await?;
    let memory_policy = setting("maxmemory-policy").await?;
    let append_only = setting("appendonly").await? == "yes";
    let save = setting("save").await?;
    let demands_password = !setting("requirepass").await?.is_empty();
    let has_password_for_master = !setting("masterauth").await?.is_empty();
    let field = |name: &str| field(&info, name).unwrap_or_default();
    Ok(RedisServerFacts {
        version: field("redis_version").to_owned(),
        master: field("role") == "master",
        linked: field("master_link_status") == "up" && field("master_sync_in_progress") == "0",
        replicas: info
            .lines()
            .filter(|line| line.starts_with("slave") && line.contains("state=online"))
            .count() as u64,
        min_replicas: min_replicas.parse().unwrap_or(0),
        memory_policy,
        demands_password,
        has_password_for_master,
        config_file: field("config_file").to_owned(),
        append_only,
        save,
        lacks,
    })
}

fn read<T: FromRedisValue>(value: redis::Value) -> Measured<T> {
    redis::from_redis_value(value).map_err(|error| error.to_string())
}

/// A line of `INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
