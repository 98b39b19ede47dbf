//! The rows of one table that transactions after the switchpoint left, compared with the new main by primary key.

use std::collections::HashMap;

use interrex_adapters::postgres::fork::Xids;
use interrex_events::postgres::identifier;

use super::{
    super::summary::TableSummary,
    SalvageError,
    database::{Database, DatabaseError, Row, Told},
    files::TableFiles,
    tables::{self, Column, TableName},
};

/// Rows that are compared with one query.
const BATCH: usize = 200;
/// How many large objects are named.
const EXAMPLES: usize = 10;
/// Intervals of transaction ids in one statement.
const MOST_INTERVALS: usize = 1_000;

/// Gives the scratch server the ids of the transactions, for this session.
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

/// The number of these rows.
pub(super) async fn count(kept: &Database, table: &TableName) -> Result<u64, DatabaseError> {
    let count = kept.value(&format!("SELECT count(*) {}", from_where(table))).await?;
    Ok(count.parse().unwrap_or_default())
}

/// How many large objects those transactions wrote to, and the numbers of some.
pub(super) async fn large_objects(kept: &Database) -> Result<(u64, Vec<String>), DatabaseError> {
    let written =
        "FROM pg_largeobject WHERE xmin::text::bigint IN (SELECT xid FROM pg_temp.interrex_committed)";
    let count = kept.value(&format!("SELECT count(DISTINCT loid) {written}")).await?;
    let sql = format!("SELECT DISTINCT loid {written} ORDER BY 1 LIMIT {EXAMPLES}");
    let examples = kept.ask(&sql).await?.into_iter().flatten().flatten().collect();
    Ok((count.parse().unwrap_or_default(), examples))
}

/// Why a table's rows were not written. The rows of other tables are.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Files(#[from] SalvageError),
}

impl TableError {
    /// Whether a retry with the bytes of the values can work.
    pub(super) fn is_about_encoding(&self) -> bool {
        matches!(self, Self::Database(error) if error.is_about_encoding())
    }
}

/// A table whose rows are written.
pub(super) struct Comparison<'a> {
    pub(super) table: &'a TableName,
    pub(super) columns: &'a [Column],
    pub(super) kept: &'a Database,
    pub(super) told: &'a Told,
}

impl Comparison<'_> {
    /// Writes the stranded rows, batch by batch. The table is on both servers, with the same columns and a primary key.
    pub(super) async fn write(
        &self,
        main: &Database,
        files: &mut TableFiles<'_>,
    ) -> Result<TableSummary, TableError> {
        let mut summary = TableSummary::of(self.table.in_words());
        self.open().await?;
        loop {
            let rows = self.next().await?;
            if rows.is_empty() {
                break;
            }
            let mut on_main = self.on_main(main, &rows).await?;
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

    /// Writes all rows that those transactions left, without a comparison. Returns their number and the files.
    pub(super) async fn write_all(
        &self,
        files: &mut TableFiles<'_>,
    ) -> Result<(u64, Vec<String>), TableError> {
        let mut count = 0;
        self.open().await?;
        loop {
            let rows = self.next().await?;
            if rows.is_empty() {
                break;
            }
            for row in &rows {
                files.row(row)?;
            }
            count += rows.len() as u64;
        }
        self.kept.ask("ROLLBACK").await?;
        Ok((count, files.finish()?))
    }

    async fn open(&self) -> Result<(), DatabaseError> {
        let selected = self.selected();
        let declare =
            format!("DECLARE kept NO SCROLL CURSOR FOR SELECT {selected} {}", from_where(self.table));
        self.kept.ask("BEGIN").await?;
        self.kept.ask(&declare).await.map(drop)
    }

    async fn next(&self) -> Result<Vec<Row>, DatabaseError> {
        self.kept.ask(&format!("FETCH {BATCH} FROM kept")).await
    }

    fn selected(&self) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|column| self.told.selected(&format!("t.{}", identifier(&column.name))));
        columns.collect::<Vec<_>>().join(", ")
    }

    /// The table's owner could replace the table with a view of the same name, or add an index that runs code: that code would run
    /// with our superuser rights. For this one query the table is locked against that.
    async fn ask_of_table(&self, main: &Database, sql: &str) -> Result<Vec<Row>, DatabaseError> {
        tables::hold(main, self.table).await?;
        main.ask(sql).await
    }

    /// The new main's rows with the same keys, by their place in the batch.
    async fn on_main(&self, main: &Database, rows: &[Row]) -> Result<HashMap<usize, Row>, DatabaseError> {
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
                format!(", {}::{of_type}", self.told.in_sql(value, of_type))
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
        let answer = self.ask_of_table(main, &sql).await;
        main.ask("ROLLBACK").await?;
        let answer = answer?.into_iter();
        let found = answer.filter_map(|mut row| {
            let number = row.remove(0)?.parse().ok()?;
            Some((number, row))
        });
        Ok(found.collect())
    }
}
