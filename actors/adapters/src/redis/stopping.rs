//! How Redis is stopped: it saves its data, and has time for that as long as it makes progress.
//!
//! ```text
//! SHUTDOWN (SIGTERM if that is refused) ─┬─ gone
//!                                        ├─ it could not save: it keeps running, and takes no writes
//!                                        └─ the snapshot no longer grows, and it does not answer ─> SIGKILL, reported as that
//! ```

use std::{fs, future::pending, io, time::Duration};

use interrex_actors::ports::{Answer, PortError, RedisEnd};
use interrex_projections::human_bytes;
use redis::RedisResult;

use super::{COMMAND_LIMIT, LOOK, LocalRedis, who::Who};
use crate::runtime::{Instance, Signal};

/// How long a killed process may take to end.
const KILL_LIMIT: Duration = Duration::from_secs(5);
/// How long a Redis that could not be stopped acknowledges no write. The supervisor repeats the request before that time is over.
const SEALED_FOR: Duration = Duration::from_secs(300);

impl LocalRedis {
    pub(super) async fn end(&self) -> Answer<RedisEnd> {
        let instance = match self.who().await {
            Who::Nobody => return Ok(RedisEnd::WasNotRunning),
            Who::Other(words) => return Err(PortError(words)),
            Who::Ours(instance) => instance,
        };
        let runtime = &self.settings.runtime;
        self.connection.borrow_mut().take();
        let limit = self.patience();
        let end = tokio::select! {
            () = runtime.gone(&instance) => RedisEnd::InGoodOrder(instance.name.clone()),
            why = self.ask_to_end(&instance) => return Err(self.lives_on(&instance, &why).await),
            () = self.stalls(&instance, limit) => {
                // a Redis that answers has a reason, which is in its log: its data is not thrown away
                if self.query::<String>(&["PING"]).await.is_ok() {
                    let why = format!("it still answers {limit:?} after the request to end: see its log");
                    return Err(self.lives_on(&instance, &why).await);
                }
                let killed = runtime.kill(&instance, KILL_LIMIT).await;
                killed.map_err(|error| PortError(format!("Redis, {error}")))?;
                RedisEnd::Killed(instance.name.clone(), limit)
            }
        };
        self.seen.borrow_mut().take();
        if let RedisEnd::Killed(..) = end {
            self.told.replace(end.to_string());
        }
        match self.who().await {
            Who::Nobody => Ok(end),
            // another program, such as an init system, starts it again
            Who::Ours(instance) => Err(PortError(format!(
                "Redis was stopped, but runs again as {instance}: another program starts it, such as a service; disable that \
                 service"
            ))),
            Who::Other(words) => Err(PortError(words)),
        }
    }

    /// How long an end may make no progress. Redis itself waits for its replicas before it saves.
    fn patience(&self) -> Duration {
        let waits = self.config().map(|config| config.shutdown_timeout()).unwrap_or_default();
        // the request takes that long if Redis does not answer
        self.settings.stop_timeout + waits + 2 * COMMAND_LIMIT
    }

    /// Asks Redis to end. Returns only if Redis reports that it could not save its data.
    async fn ask_to_end(&self, instance: &Instance) -> String {
        // a stopped process takes no command before it continues
        let runtime = &self.settings.runtime;
        runtime.signal(instance, Signal::CONT).await;
        let asking = async {
            let mut connection = self.open(None).await?;
            let mut question = redis::cmd("CONFIG");
            let asking = question.arg("GET").arg("appendonly").query_async(&mut connection);
            let hangs = |_| Err(io::Error::from(io::ErrorKind::TimedOut).into());
            let log: RedisResult<Vec<String>> =
                tokio::time::timeout(COMMAND_LIMIT, asking).await.unwrap_or_else(hangs);
            let log = match log {
                Err(error) if error.code().is_none() => return Err(error),
                log => log,
            };
            let mut order = redis::cmd("SHUTDOWN");
            // without an append-only file and without `save`, a plain SHUTDOWN would lose everything
            if !log.is_ok_and(|pair| pair.get(1).is_some_and(|value| value == "yes")) {
                order.arg("SAVE");
            }
            order.query_async::<()>(&mut connection).await
        };
        let answer: RedisResult<()> = asking.await;
        match answer {
            Err(error) if error.to_string().contains("Errors trying to SHUTDOWN") => {
                return error.to_string();
            }
            // it has closed the connection, or ends before its answer
            Ok(()) => {}
            Err(error) if error.is_connection_dropped() => {}
            // it refuses this supervisor or the command
            Err(_) => runtime.signal(instance, Signal::TERM).await,
        }
        pending().await
    }

    async fn lives_on(&self, instance: &Instance, why: &str) -> PortError {
        let sealed = self.take_no_writes().await;
        let sealed = sealed.unwrap_or_else(|error| format!("it may still take writes ({error})"));
        PortError(format!(
            "Redis, {instance}, did not end, and is not killed because its data would be lost: {why}; {sealed}"
        ))
    }

    /// Makes a running Redis acknowledge no write for a while.
    pub(super) async fn take_no_writes(&self) -> Answer<String> {
        let seen = self.seen.borrow().clone();
        let who = match seen {
            Some(seen) if self.settings.runtime.lives(&seen).await => Who::Ours(seen),
            _ => self.who().await,
        };
        let instance = match who {
            Who::Nobody => return Ok("Redis does not run".to_owned()),
            Who::Other(words) => return Err(PortError(words)),
            Who::Ours(instance) => instance,
        };
        let milliseconds = SEALED_FOR.as_millis().to_string();
        match self.query::<String>(&["CLIENT", "PAUSE", &milliseconds, "WRITE"]).await {
            Ok(_) => Ok(format!("{instance} runs, and takes no writes for now (CLIENT PAUSE)")),
            // an answer: Redis serves
            Err(error) if error.code().is_some() => Err(PortError::new("CLIENT PAUSE", error)),
            Err(_) => Ok(format!(
                "{instance} was asked to end and does not answer now ({} of its snapshot written)",
                human_bytes(self.written(&instance).await)
            )),
        }
    }

    /// Undoes that, and an end that waits for replicas. Returns whether Redis answers: while it saves to end, it does not.
    pub(super) async fn take_writes(&self) -> bool {
        // a Redis that was not paused and does not end, or is too old, refuses: nothing to undo
        let aborted = self.query::<String>(&["SHUTDOWN", "ABORT"]).await;
        let _ = self.query::<String>(&["CLIENT", "UNPAUSE"]).await;
        aborted.map_or_else(|error| error.code().is_some(), |_| true)
    }

    /// Waits until the snapshot does not grow for `limit`.
    async fn stalls(&self, instance: &Instance, limit: Duration) {
        loop {
            let before = self.written(instance).await;
            let grows = async {
                while self.written(instance).await == before {
                    tokio::time::sleep(LOOK).await;
                }
            };
            if tokio::time::timeout(limit, grows).await.is_err() {
                return;
            }
        }
    }

    /// Bytes of the snapshot that it is writing: while it saves to end, it does not answer.
    async fn written(&self, instance: &Instance) -> u64 {
        let works_in = self.settings.runtime.folder(instance).await;
        let folder = works_in.or_else(|| self.data_folder().ok());
        let file = folder.map(|folder| folder.join(format!("temp-{}.rdb", instance.number)));
        file.and_then(|file| fs::metadata(file).ok()).map_or(0, |file| file.len())
    }
}
