//! A client that writes rows and remembers which of them the database said were committed.
//!
//! It runs on a thread of its own, so that its times do not depend on what a test or a screen is busy with.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Write as _,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use interrex_actors::env::{Env as _, Moment, SystemEnv, ms};
use interrex_events::NodeId;
use tokio_postgres::{Client, Statement, config::TargetSessionAttrs};

use super::{Done, Sandbox, SandboxError, clients::as_anybody, waiting::until};

/// When one attempt to connect to one server is given up, its greeting included.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// When one row is given up: whether it was committed is then not known.
const ROW_LIMIT: Duration = Duration::from_secs(1);
/// Pause after a round over all servers in vain.
const AGAIN: Duration = Duration::from_millis(20);
/// Rows of one writer; the next one's numbers begin after them.
const ROWS_OF_A_WRITER: i64 = 1_000_000_000;

/// What a writer needs to know.
#[derive(Debug, Clone)]
pub struct WriterSettings {
    /// `(host, port)` of every server, in the order in which they are tried; the server that takes writes is used.
    pub servers: Vec<(String, u16)>,
    /// Password of the user `app`.
    pub password: String,
    /// Rows a second.
    pub rows_per_second: f64,
    /// Every acknowledged row goes here, a line each: number, server's port, milliseconds since boot.
    pub file: PathBuf,
    /// The first row's number is the one after this.
    pub after: i64,
}

/// A row that the database said was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its number.
    pub id: i64,
    /// Who said so.
    pub port: u16,
    /// When the client learned of it.
    pub at: Moment,
}

/// A time without acknowledgements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last one before.
    pub from: Ack,
    /// The first one after.
    pub to: Ack,
}

impl Gap {
    /// How long it was.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.to.at.monotonic.saturating_sub(self.from.at.monotonic)
    }
}

/// Everything that a writer was answered, in order.
#[derive(Debug, Clone, Default)]
pub struct Acknowledged(pub Vec<Ack>);

impl Acknowledged {
    /// The longest time without an acknowledgement that had not ended before `moment`: the outage that the
    /// client met.
    #[must_use]
    pub fn longest_gap_after(&self, moment: Moment) -> Option<Gap> {
        let gaps = self.0.windows(2).map(|pair| Gap { from: pair[0], to: pair[1] });
        gaps.filter(|gap| gap.to.at.monotonic >= moment.monotonic).max_by_key(Gap::duration)
    }

    /// The first acknowledgement by a server after a moment. By which server matters: what a dying one said
    /// last may reach the client after its death.
    #[must_use]
    pub fn first_by(&self, port: u16, moment: Moment) -> Option<Ack> {
        self.0.iter().find(|ack| ack.port == port && ack.at.monotonic > moment.monotonic).copied()
    }

    /// Acknowledgements of one server within the time before now.
    #[must_use]
    pub fn recent(&self, port: u16, within: Duration) -> usize {
        let since = SystemEnv.moment().monotonic.saturating_sub(within);
        let recent = self.0.iter().rev().take_while(|ack| ack.at.monotonic >= since);
        recent.filter(|ack| ack.port == port).count()
    }
}

/// What the thread and its owner share.
#[derive(Debug, Default)]
struct Shared {
    acknowledged: Mutex<Acknowledged>,
    stop: AtomicBool,
}

impl Shared {
    fn look<T>(&self, look: impl FnOnce(&mut Acknowledged) -> T) -> T {
        look(&mut self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// A running writer. It stops when it is dropped.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins to write.
    ///
    /// # Errors
    /// The file cannot be written, or the system gives no thread.
    pub fn start(settings: WriterSettings) -> Done<Self> {
        let failed = |error| SandboxError::failed("starting a writer", error);
        let log = File::create(&settings.file).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let writing = Writing { settings, log, shared: shared.clone() };
        let thread = std::thread::Builder::new().name("writer".to_owned());
        let thread = thread.spawn(move || runtime.block_on(writing.go_on())).map_err(failed)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Looks at what was acknowledged so far, without copying it.
    pub fn look<T>(&self, look: impl FnOnce(&Acknowledged) -> T) -> T {
        self.shared.look(|acknowledged| look(acknowledged))
    }

    /// How many rows were acknowledged so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.look(|acknowledged| acknowledged.0.len())
    }

    /// Waits for the first acknowledgement by a server after a moment.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn wait_ack_by(&self, port: u16, moment: Moment, limit: Duration) -> Done<Ack> {
        until(format!("the server on port {port} acknowledges a row"), limit, || async {
            let (first, last) = self.look(|told| (told.first_by(port, moment), told.0.last().copied()));
            first.ok_or_else(|| match last {
                Some(ack) => format!("the last one was by the server on port {}", ack.port),
                None => "none was ever acknowledged".to_owned(),
            })
        })
        .await
    }

    /// Waits until that many rows are acknowledged.
    ///
    /// # Errors
    /// They are not in time.
    pub async fn wait_acknowledged(&self, rows: usize, limit: Duration) -> Done<()> {
        until(format!("{rows} rows are acknowledged"), limit, || async {
            let count = self.count();
            if count >= rows { Ok(()) } else { Err(format!("{count} rows")) }
        })
        .await
    }

    /// Stops the writer, and returns everything that it was answered.
    #[must_use]
    pub fn stop(mut self) -> Acknowledged {
        self.end();
        self.shared.look(std::mem::take)
    }

    fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // a panic of the thread was printed; its answers until then stay valid
            let _ = thread.join();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread's side.
struct Writing {
    settings: WriterSettings,
    log: File,
    shared: Arc<Shared>,
}

/// A server that takes writes.
struct Server {
    client: Client,
    insert: Statement,
    port: u16,
}

impl Writing {
    async fn go_on(mut self) {
        let pause = Duration::from_secs_f64(1.0 / self.settings.rows_per_second.clamp(0.1, 10_000.0));
        let mut rhythm = tokio::time::interval(pause);
        rhythm.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut server: Option<Server> = None;
        let mut id = self.settings.after;
        while !self.shared.is_stopped() {
            let Some(open) = &server else {
                server = self.connect_to_any().await;
                continue;
            };
            rhythm.tick().await;
            // a number is never tried twice: a row whose answer was lost may be there or not
            id += 1;
            let row = tokio::time::timeout(ROW_LIMIT, open.client.execute(&open.insert, &[&id])).await;
            match row {
                Ok(Ok(_)) => self.acknowledge(Ack { id, port: open.port, at: SystemEnv.moment() }),
                Ok(Err(_)) | Err(_) => server = None,
            }
        }
    }

    fn acknowledge(&mut self, ack: Ack) {
        // in one write, so that a killed process leaves no half line that was not followed by an end
        let line = format!("{} {} {}\n", ack.id, ack.port, ms(ack.at.monotonic));
        let _ = self.log.write_all(line.as_bytes());
        self.shared.look(|acknowledged| acknowledged.0.push(ack));
    }

    /// What libpq does with several hosts and `target_session_attrs=read-write`.
    async fn connect_to_any(&self) -> Option<Server> {
        for (host, port) in &self.settings.servers {
            let server =
                tokio::time::timeout(CONNECT_LIMIT, connect(host, *port, &self.settings.password)).await;
            if let Ok(Ok(server)) = server {
                return Some(server);
            }
            if self.shared.is_stopped() {
                return None;
            }
        }
        tokio::time::sleep(AGAIN).await;
        None
    }
}

async fn connect(host: &str, port: u16, password: &str) -> Result<Server, tokio_postgres::Error> {
    let login = ("app", password, "postgres");
    let client = as_anybody((host, port), login, TargetSessionAttrs::ReadWrite).await?;
    let insert = client.prepare("INSERT INTO written (id) VALUES ($1)").await?;
    Ok(Server { client, insert, port })
}

impl Sandbox {
    /// A client that writes to whichever node takes writes.
    ///
    /// # Errors
    /// Its file cannot be written, or the system gives no thread.
    pub fn start_writer(&self, rows_per_second: f64) -> Done<Writer> {
        let servers = self.nodes.iter().map(|node| ("127.0.0.1".to_owned(), node.postgres_port));
        self.start_writer_on(servers.collect(), rows_per_second)
    }

    /// The same, on servers of the caller's choice, such as proxies.
    ///
    /// # Errors
    /// As [`Self::start_writer`].
    pub fn start_writer_on(&self, servers: Vec<(String, u16)>, rows_per_second: f64) -> Done<Writer> {
        let index = self.writers.fetch_add(1, Ordering::Relaxed);
        let name =
            if index == 0 { "acknowledged.log".to_owned() } else { format!("acknowledged.{index}.log") };
        Writer::start(WriterSettings {
            servers,
            password: self.passwords.application.clone(),
            rows_per_second,
            file: self.folder.join(name),
            after: i64::from(index) * ROWS_OF_A_WRITER,
        })
    }

    /// Rows that were acknowledged and are not in a node's table.
    ///
    /// # Errors
    /// The node's PostgreSQL does not answer.
    pub async fn rows_lost(&self, acknowledged: &Acknowledged, node: NodeId) -> Done<Vec<i64>> {
        let rows = self.psql(node, "SELECT id FROM written").await?;
        let there: BTreeSet<i64> =
            rows.into_iter().flatten().flatten().filter_map(|id| id.parse().ok()).collect();
        Ok(acknowledged.0.iter().map(|ack| ack.id).filter(|id| !there.contains(id)).collect())
    }

    /// The connection string with which any libpq client does what the writer does; it asks for the password.
    #[must_use]
    pub fn multi_host_address(&self) -> String {
        let ports: Vec<String> = self.nodes.iter().map(|node| node.postgres_port.to_string()).collect();
        let hosts = vec!["127.0.0.1"; ports.len()].join(",");
        format!(
            "host={hosts} port={} user=app dbname=postgres connect_timeout=2 target_session_attrs=read-write",
            ports.join(",")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(id: i64, ms: u64) -> Ack {
        Ack { id, port: 1, at: Moment { monotonic: Duration::from_millis(ms), ..SystemEnv.moment() } }
    }

    #[test]
    fn the_outage_is_the_longest_gap_that_reaches_past_the_blow() {
        let told = Acknowledged(vec![ack(1, 0), ack(2, 900), ack(3, 1_000), ack(5, 1_400), ack(6, 1_410)]);
        let gap = told.longest_gap_after(ack(0, 1_050).at).unwrap();
        assert_eq!((gap.from.id, gap.to.id, gap.duration()), (3, 5, Duration::from_millis(400)));
        assert_eq!(told.first_by(1, ack(0, 1_000).at).unwrap().id, 5);
        assert!(told.first_by(2, ack(0, 0).at).is_none());
        assert!(told.longest_gap_after(ack(0, 2_000).at).is_none());
    }
}
