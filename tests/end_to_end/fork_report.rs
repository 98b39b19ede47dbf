//! What the fork report tells: rows by table, before anything is rewound.

use interrex::sandbox::{ALPHA, BETA, Done, Sandbox};
use interrex_events::{Event, StepId, Stranded};

/// Tables that both have when they part.
pub(crate) const SHARED: [&str; 3] = [
    "CREATE SCHEMA app",
    "CREATE TABLE app.orders (id int PRIMARY KEY, note text)",
    "CREATE TABLE app.items (id int)",
];

/// What only the old main has: 14 rows of one, with notes too long for the table's own file, and 3 of another.
pub(crate) const ONLY_THERE: [&str; 5] = [
    "INSERT INTO app.orders SELECT i, (SELECT string_agg(md5(i * j || ''), '') FROM generate_series(1, 300) AS j) \
     FROM generate_series(1, 12) AS i",
    "UPDATE app.orders SET id = 100 WHERE id = 1",
    "DELETE FROM app.orders WHERE id = 2",
    "BEGIN; INSERT INTO app.items VALUES (9); SAVEPOINT s; INSERT INTO app.items VALUES (10); ROLLBACK; \
     BEGIN; INSERT INTO app.items VALUES (1); SAVEPOINT s; INSERT INTO app.items VALUES (2), (3); COMMIT",
    "CREATE TABLE app.late AS SELECT 1 AS id FROM generate_series(1, 2)",
];

/// The tables are named in the outcome of a step that ended before the directory was touched. The rows of the writer's.
pub(crate) fn told_before_anything_was_rewound(sandbox: &Sandbox) -> Done<u64> {
    let events: Vec<Event> = sandbox.events(ALPHA)?.into_iter().map(|it| it.event).collect();
    let told = |it: &Event| matches!(it, Event::StepFinished(it) if it.step == StepId::ReportFork);
    let touched = |it: &Event| matches!(it, Event::StepStarted(it) if it.step == StepId::Rebuild);
    let (told, touched) = (events.iter().position(told).unwrap(), events.iter().position(touched).unwrap());
    assert!(told < touched);
    let Event::StepFinished(step) = &events[told] else { unreachable!() };
    let stranded: Stranded = serde_json::from_value(step.observed["stranded"].clone()).unwrap();
    let tables = stranded.tables.unwrap();
    assert_eq!((tables.more_tables, &tables.not_asked), (0, &None), "{tables}");
    let of = |name: &str| {
        let of = tables.most.iter().find(|it| it.table.as_deref() == Some(name)).unwrap();
        assert_eq!(of.database.as_deref(), Some("postgres"));
        (of.inserted, of.updated, of.deleted)
    };
    assert_eq!((of("app.orders"), of("app.items")), ((12, 1, 1), (3, 0, 0)), "{tables}");
    let (writers, _, _) = of("public.written");
    let late = tables.most.iter().find(|it| it.main_lacks_it).unwrap();
    assert_eq!((&late.table, late.inserted), (&None, 2), "{tables}");
    assert_eq!((tables.most.len(), stranded.rows), (4, writers + 14 + 3 + 2), "{tables}");
    assert!(
        step.detail.contains(&tables.to_string()) && step.detail.contains("interrex salvage --kept-redis")
    );
    Ok(writers)
}

/// The last sentence of the rejoin, as SQL has it.
pub(crate) async fn told_in_the_timeline(sandbox: &Sandbox) -> Result<(), String> {
    let sql = "SELECT count(*) FROM interrex.cluster_timeline WHERE text LIKE 'rejoin completed%14 in app.orders, 3 in app.items%' \
               AND text LIKE '%interrex salvage --kept-redis /%'";
    match sandbox.psql_value(BETA, sql).await {
        Ok(count) if count == "1" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
