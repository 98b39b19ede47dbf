//! Starting PostgreSQL.

use interrex_actors::ports::{PostgresPort as _, StopMode};

use crate::pair::{Pair, on_one_thread};

#[test]
fn of_two_starts_at_once_one_starts_it_and_the_other_finds_it_started() {
    on_one_thread(async {
        let pair = Pair::start().await;
        pair.beta.stop(StopMode::Fast).await.unwrap();
        // as when a supervisor dies while it starts its server, and its successor does the same
        let (first, second) = tokio::join!(pair.beta.start(), pair.beta.start());
        assert_eq!(u8::from(first.unwrap()) + u8::from(second.unwrap()), 1);
    });
}
