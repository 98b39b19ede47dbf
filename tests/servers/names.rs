//! What main says of the files that another server's log names.

use std::time::Duration;

use interrex::sandbox::ALPHA;
use interrex_actors::ports::{FileNode, HandoverPort as _, Held, MainServerPort};
use interrex_events::{Address, cluster_events::migrate};
use tokio_postgres::Client;

use crate::pair::{Pair, on_one_thread};

async fn log_in(pair: &Pair, database: &str) -> Client {
    pair.sandbox.session(ALPHA, database).await.unwrap()
}

/// The file of a relation.
async fn file(client: &Client, relation: &str) -> FileNode {
    let sql = format!(
        "SELECT coalesce(nullif(c.reltablespace, 0), d.dattablespace), d.oid, pg_relation_filenode(c.oid)::oid \
         FROM pg_class c, pg_database d WHERE c.oid = {relation} AND d.datname = current_database()"
    );
    let row = client.query_one(&sql, &[]).await.unwrap();
    let number = |place: usize| row.try_get(place).unwrap();
    FileNode { tablespace: number(0), database: number(1), file: number(2) }
}

fn main_at(pair: &Pair, port: u16) -> Box<dyn MainServerPort> {
    pair.beta.main_server(&Address::new("127.0.0.1", port))
}

#[test]
fn tables_of_every_database_are_named_and_what_is_none_is_told_apart() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let here = log_in(&pair, "postgres").await;
        here.batch_execute("CREATE TABLE public.orders (id int PRIMARY KEY, note text)").await.unwrap();
        let own = "CREATE SCHEMA IF NOT EXISTS interrex; CREATE TABLE interrex.cluster_runs_7 (id int); \
                   CREATE TABLE interrex.a_users (id int)";
        here.batch_execute(own).await.unwrap();
        for database in ["radius", "closed"] {
            here.batch_execute(&format!("CREATE DATABASE {database}")).await.unwrap();
        }
        let there = log_in(&pair, "radius").await;
        there.batch_execute("CREATE SCHEMA app; CREATE TABLE app.\"Acct\" (id int)").await.unwrap();
        let closed = log_in(&pair, "closed").await;
        closed.batch_execute("CREATE TABLE t (id int)").await.unwrap();
        let in_closed = file(&closed, "'t'::regclass").await;
        here.batch_execute("ALTER DATABASE closed ALLOW_CONNECTIONS false").await.unwrap();

        let orders = file(&here, "'orders'::regclass").await;
        let large = "(SELECT reltoastrelid FROM pg_class WHERE oid = 'orders'::regclass)";
        let large = file(&here, large).await;
        let own = file(&here, "'interrex.cluster_runs_7'::regclass").await;
        let users = file(&here, "'interrex.a_users'::regclass").await;
        let accounts = file(&there, "'app.\"Acct\"'::regclass").await;
        let none = FileNode { file: 4_000_000_000, ..orders };
        let nowhere = FileNode { database: 4_000_000_000, ..orders };
        let port = pair.sandbox.node(ALPHA).unwrap().postgres_port;
        let files = [orders, large, own, users, accounts, none, nowhere, in_closed];
        let held = main_at(&pair, port).held_in(&files).await;
        let table = |database: &str, name: &str| Held::Table { database: database.into(), name: name.into() };
        let expected = [
            (orders, table("postgres", "public.orders")),
            (large, Held::NoTableOfUsers),
            (own, Held::NoTableOfUsers),
            (users, table("postgres", "interrex.a_users")),
            (accounts, table("radius", "app.Acct")),
            (none, Held::Nothing),
            (nowhere, Held::Nothing),
        ];
        assert_eq!(held.found, expected.into());
        let why = held.not_asked.unwrap();
        assert!(why.contains("database closed: ") && why.contains("not currently accepting"), "{why}");
    });
}

#[test]
fn every_table_of_interrexs_own_is_known_as_such() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let mut here = log_in(&pair, "postgres").await;
        migrate(&mut here).await.unwrap();
        let tables =
            "SELECT oid::int8 FROM pg_class WHERE relnamespace = 'interrex'::regnamespace AND relkind = 'r'";
        let mut own = Vec::new();
        for row in here.query(tables, &[]).await.unwrap() {
            own.push(file(&here, &row.try_get::<_, i64>(0).unwrap().to_string()).await);
        }
        assert!(own.len() > 4, "{own:?}");
        let port = pair.sandbox.node(ALPHA).unwrap().postgres_port;
        let held = main_at(&pair, port).held_in(&own).await;
        let expected = own.iter().map(|file| (*file, Held::NoTableOfUsers)).collect();
        assert_eq!((held.found, held.not_asked), (expected, None));
    });
}

#[test]
fn a_server_that_is_silent_or_gone_costs_a_second_at_most() {
    on_one_thread(async {
        let pair = Pair::start().await;
        let file = FileNode { tablespace: 1663, database: 5, file: 16_384 };
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let main = main_at(&pair, port);
        let login = tokio::time::timeout(Duration::from_millis(1_900), main.log_in_ahead()).await.unwrap();
        assert!(login.unwrap_err().to_string().contains("no login within 1s"));
        let files = [file];
        let asking = main.held_in(&files);
        let held = tokio::time::timeout(Duration::from_millis(1_900), asking).await.unwrap();
        assert!(held.found.is_empty() && held.not_asked.unwrap().contains("no answer within 1s"));
        drop(silent);
        let held = main_at(&pair, port).held_in(&[file]).await;
        assert!(held.found.is_empty() && held.not_asked.is_some());
    });
}
