//! The supervisor's own port: which connections stay open, and for how long.
//!
//! **Invariant:** foreign clients that hold connections open take no connection from a peer. The number of places is limited. When
//! all are taken, the source with the most connections loses its least recently used connection. A connection without a request
//! head in time is closed.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service as _};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// The most connections that are open at the same time.
const PLACES: usize = 256;
/// How long a connection may take for the head of its next request. Peers send requests more often.
const HEAD_LIMIT: Duration = Duration::from_secs(20);
/// Pause after an error of `accept`.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, routes: Router) {
    let places = Arc::new(Mutex::new(Places::default()));
    loop {
        match listener.accept().await {
            Ok((stream, source)) => open(stream, source.ip().to_canonical(), &routes, &places),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection; trying again");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn open(stream: TcpStream, source: IpAddr, routes: &Router, places: &Arc<Mutex<Places>>) {
    // an answer is one small packet: it is sent at once
    let _ = stream.set_nodelay(true);
    let place = lock(places).reserve(source);
    let routes = TowerToHyperService::new(routes.clone());
    let used = places.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        lock(&used).used(place);
        routes.call(request)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let left = places.clone();
    let task = tokio::spawn(async move {
        // an error here concerns only the other side
        let _ = served.await;
        lock(&left).0.remove(&place);
    });
    lock(places).hold(place, task.abort_handle());
}

fn lock(places: &Mutex<Places>) -> MutexGuard<'_, Places> {
    places.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connections by number.
#[derive(Debug, Default)]
struct Places(BTreeMap<u64, Place>, u64);

#[derive(Debug)]
struct Place {
    source: IpAddr,
    /// When it was used last: a larger number is later.
    used: u64,
    task: Option<AbortHandle>,
}

impl Places {
    /// A place for a new connection; if all are taken, another connection loses its place.
    fn reserve(&mut self, source: IpAddr) -> u64 {
        while self.0.len() >= PLACES {
            let Some(victim) = self.given_up() else { break };
            if let Some(task) = self.0.remove(&victim).and_then(|place| place.task) {
                task.abort();
            }
        }
        let number = self.next();
        self.0.insert(number, Place { source, used: number, task: None });
        number
    }

    fn hold(&mut self, number: u64, task: AbortHandle) {
        if let Some(place) = self.0.get_mut(&number) {
            place.task = Some(task);
        }
    }

    fn used(&mut self, number: u64) {
        let now = self.next();
        if let Some(place) = self.0.get_mut(&number) {
            place.used = now;
        }
    }

    fn next(&mut self) -> u64 {
        self.1 += 1;
        self.1
    }

    /// The least recently used connection of the source with the most connections.
    fn given_up(&self) -> Option<u64> {
        let mut held: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for place in self.0.values() {
            *held.entry(place.source).or_default() += 1;
        }
        let (most, _) = held.into_iter().max_by_key(|(_, held)| *held)?;
        let of_it = self.0.iter().filter(|(_, place)| place.source == most);
        of_it.min_by_key(|(_, place)| place.used).map(|(number, _)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn strangers_take_places_from_each_other_and_never_from_a_peer() {
        let mut places = Places::default();
        let peer = places.reserve(source(1));
        for connection in 0..10_000_u64 {
            places.reserve(source(2 + u8::try_from(connection % 100).unwrap()));
        }
        assert_eq!(places.0.len(), PLACES);
        assert!(places.0.contains_key(&peer));
    }

    #[test]
    fn from_one_address_the_connection_that_is_used_stays() {
        let mut places = Places::default();
        let peer = places.reserve(source(1));
        for _ in 0..1_000 {
            places.reserve(source(1));
            places.used(peer);
        }
        assert!(places.0.contains_key(&peer));
    }
}
