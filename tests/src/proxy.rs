//! A way to a server that is slow: every answer comes late, none is lost.

use std::{cell::Cell, rc::Rc, time::Duration};

use interrex::sandbox::{Done, SandboxError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    task::JoinHandle,
};

/// Passes connections on, and holds back whatever the server answers. It ends when it is dropped.
pub struct SlowProxy {
    address: String,
    delay: Rc<Cell<Duration>>,
    task: JoinHandle<()>,
}

impl SlowProxy {
    /// Listens on a free loopback port for connections to `server` (`host:port`); fast at first.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(server: String) -> Done<Self> {
        let failed = |error: std::io::Error| SandboxError::failed("starting a slow way to a server", error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?.to_string();
        let delay = Rc::new(Cell::new(Duration::ZERO));
        let current = delay.clone();
        let task = tokio::task::spawn_local(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, delay) = (server.clone(), current.clone());
                tokio::task::spawn_local(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        pass_on(client, server, delay).await;
                    }
                });
            }
        });
        Ok(Self { address, delay, task })
    }

    /// From now on every answer is held back for so long, on open connections too.
    pub fn slow_down(&self, delay: Duration) {
        self.delay.set(delay);
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for SlowProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass_on(client: TcpStream, server: TcpStream, delay: Rc<Cell<Duration>>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let at_once = Rc::default();
    tokio::join!(copy(from_client, to_server, at_once), copy(from_server, to_client, delay));
}

async fn copy(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, delay: Rc<Cell<Duration>>) {
    let mut buffer = [0; 4 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        tokio::time::sleep(delay.get()).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
