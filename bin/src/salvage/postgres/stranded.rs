//! The rows of one table that transactions after the switchpoint left, compared with the new main's by primary key.

use std::collections::HashMap;

use interrex_actors::replication::fork::Xids;
use interrex_events::postgres::{identifier, literal};

use super::{
    super::summary::TableSummary,
    SalvageError,
    database::{Database, DatabaseError, Row, literal_or_null},
    files::TableFiles,
    tables::{Column, TableName},
};

/// Rows that are compared with one question.
const BATCH: usize = 200;
/// Intervals of transaction ids in one statement.
const MOST_INTERVALS: usize = 1_000;

/// Tells the scratch server which transactions are meant, for this session.
pub(super) async fn tell_committed(kept: &Database, committed: &Xids) -> Result<(), DatabaseError> {
    kept.ask("CREATE TEMP TABLE interrex_committed (xid bigint)").await?;
    let intervals: Vec<String> =
        committed.intervals().map(|(first, last)| format!("({first}::bigint, {last}::bigint)")).collect();
    for some in intervals.chunks(MOST_INTERVALS) {
        let values = some.join(", ");
        let sql = format!(
            "INSERT INTO pg_temp.interrex_committed \
             SELECT generate_series(first, last) FROM (VALUES {values}) AS v (first, last)"
        );
        kept.ask(&sql).await?;
    }
    kept.ask("ANALYZE pg_temp.interrex_committed").await?;
    Ok(())
}

/// The rows of a table that these transactions wrote, as `FROM` and `WHERE`.
fn from_where(table: &TableName) -> String {
    format!(
        "FROM ONLY {} AS t WHERE t.xmin::text::bigint IN (SELECT xid FROM pg_temp.interrex_committed)",
        table.in_sql()
    )
}

/// How many rows they are.
pub(super) async fn count(kept: &Database, table: &TableName) -> Result<u64, DatabaseError> {
    let count = kept.value(&format!("SELECT count(*) {}", from_where(table))).await?;
    Ok(count.parse().unwrap_or_default())
}

/// A table on both servers, with the same columns and a primary key.
pub(super) struct Comparison<'a> {
    pub(super) table: &'a TableName,
    pub(super) columns: &'a [Column],
    pub(super) kept: &'a Database,
    pub(super) main: &'a Database,
}

impl Comparison<'_> {
    /// Writes what is stranded, batch by batch.
    pub(super) async fn write(&self, files: &mut TableFiles<'_>) -> Result<TableSummary, SalvageError> {
        let mut summary = TableSummary::of(self.table.in_words());
        let selected = self.selected();
        let declare =
            format!("DECLARE kept NO SCROLL CURSOR FOR SELECT {selected} {}", from_where(self.table));
        self.kept.ask("BEGIN").await?;
        self.kept.ask(&declare).await?;
        loop {
            let rows = self.kept.ask(&format!("FETCH {BATCH} FROM kept")).await?;
            if rows.is_empty() {
                break;
            }
            let mut on_main = self.on_main(&rows).await?;
            for (place, row) in rows.iter().enumerate() {
                summary.rows += 1;
                match on_main.remove(&place) {
                    None => {
                        summary.inserts += 1;
                        files.insert(row)?;
                    }
                    Some(other) if other != *row => {
                        summary.conflicts += 1;
                        files.conflict(row, &other)?;
                    }
                    Some(_) => {}
                }
            }
        }
        self.kept.ask("ROLLBACK").await?;
        summary.files = files.finish()?;
        Ok(summary)
    }

    fn selected(&self) -> String {
        let columns = self.columns.iter().map(|column| format!("t.{}", identifier(&column.name)));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// Its owner, who is at work there, could put a view of the same name into its place: what that calls would run as we do,
    /// who are a superuser. For the one question that follows, it stays the table that it is.
    async fn hold_table(&self) -> Result<(), DatabaseError> {
        let table = self.table.in_sql();
        let of_kind = format!("SELECT relkind FROM pg_class WHERE oid = {}::regclass", literal(&table));
        self.main.ask("BEGIN").await?;
        let hold = format!("LOCK TABLE ONLY {table} IN ACCESS SHARE MODE; {of_kind}");
        if self.main.value(&hold).await? == "r" {
            return Ok(());
        }
        Err(self.main.error(format!("{} is no table any more", self.table.in_words())))
    }

    /// The new main's rows with the same keys, by their place in the batch.
    async fn on_main(&self, rows: &[Row]) -> Result<HashMap<usize, Row>, DatabaseError> {
        let keys = || {
            let columns = self.columns.iter().enumerate();
            columns.filter_map(|(index, column)| {
                column.key.as_ref().map(|(place, operator)| (index, column, place, operator))
            })
        };
        let wanted = rows.iter().enumerate().map(|(number, row)| {
            let values = keys().map(|(index, column, ..)| {
                let value = row.get(index).and_then(Option::as_deref);
                let of_type = column.plain_type.as_ref().unwrap_or(&column.of_type);
                format!(", {}::{of_type}", literal_or_null(value))
            });
            format!("({number}{})", values.collect::<String>())
        });
        let wanted = wanted.collect::<Vec<_>>().join(", ");
        let names = keys().map(|(_, _, place, _)| format!(", k{place}")).collect::<String>();
        let same = keys().map(|(_, column, place, operator)| {
            format!("t.{} {operator} w.k{place}", identifier(&column.name))
        });
        let same = same.collect::<Vec<_>>().join(" AND ");
        let sql = format!(
            "SELECT w.number, {} FROM (VALUES {wanted}) AS w (number{names}) JOIN ONLY {} AS t ON {same}",
            self.selected(),
            self.table.in_sql()
        );
        self.hold_table().await?;
        let answer = self.main.ask(&sql).await?.into_iter();
        let found = answer.filter_map(|mut row| {
            let number = row.remove(0)?.parse().ok()?;
            Some((number, row))
        });
        let found = found.collect();
        self.main.ask("ROLLBACK").await?;
        Ok(found)
    }
}
