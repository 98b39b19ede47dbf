//! What main prepares for a node that comes back.

use std::time::Duration;

use interrex::sandbox::{ALPHA, BETA, until};
use interrex_actors::ports::{HandoverPort as _, PostgresPort as _};
use interrex_adapters::runtime;
use interrex_events::{Address, TimelineId};
use rustix::process::Signal;

use crate::pair::{LIMIT, Pair, on_one_thread};

#[test]
fn main_writes_a_checkpoint_where_a_rewind_would_not_see_its_promotion_and_none_where_it_would() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let checkpointer = pair.sandbox.psql_value(BETA, sql).await.unwrap().parse().unwrap();
        let address = Address::new("127.0.0.1", pair.sandbox.node(BETA).unwrap().postgres_port);
        let main = pair.alpha.main_server(&address);
        runtime::signal(checkpointer, Signal::STOP);
        pair.beta.promote().await.unwrap();
        assert_eq!(pair.beta.control_timeline().await, Ok(TimelineId(1)));

        let is_asked_for = async {
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event LIKE 'Checkpoint%' AND query LIKE '%CHECKPOINT'";
            until("a CHECKPOINT is waited for", LIMIT, async || {
                let waiting = pair.sandbox.psql_value(BETA, sql).await;
                if waiting.as_deref().is_ok_and(|count| count == "1") {
                    Ok(())
                } else {
                    Err(format!("{waiting:?}"))
                }
            })
            .await
            .unwrap();
            runtime::signal(checkpointer, Signal::CONT);
        };
        let (made, ()) = tokio::join!(main.prepare_return(ALPHA), is_asked_for);
        assert_eq!(made, Ok(true), "the slot was made");
        assert_eq!(pair.beta.control_timeline().await, Ok(TimelineId(2)));

        runtime::signal(checkpointer, Signal::STOP);
        let again = tokio::time::timeout(Duration::from_secs(20), main.prepare_return(ALPHA)).await;
        runtime::signal(checkpointer, Signal::CONT);
        assert_eq!(again.expect("nothing waits for the checkpointer"), Ok(false));
    });
}
