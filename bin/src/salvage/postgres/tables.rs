//! The tables of a database, and what must be known about a table to compare its rows.

use interrex_events::{
    cluster_events::IS_OWN_TABLE,
    postgres::{identifier, literal},
};

use super::database::{Database, DatabaseError, Name, Row, name_in_hex};

/// Columns with their place in the primary key, and the operator by which the key compares them.
///
/// The type to which a value of the key is cast must not run code of its owner: a domain's constraint would run with our superuser
/// rights. So it is the base type of a domain, and none if the type may contain domains.
const COLUMNS: &str = "SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated <> '', \
    a.attidentity <> '', k.place, 'OPERATOR(' || quote_ident(s.nspname) || '.' || o.oprname || ')', \
    pg_get_serial_sequence(a.attrelid::regclass::text, a.attname), plain.type \
    FROM pg_attribute a \
    LEFT JOIN LATERAL ( \
      WITH RECURSIVE base (number, modifier) AS ( \
        SELECT a.atttypid, a.atttypmod \
        UNION ALL SELECT t.typbasetype, t.typtypmod FROM base JOIN pg_type t ON t.oid = number WHERE t.typtype = 'd') \
      SELECT format_type(t.oid, modifier) AS type FROM base JOIN pg_type t ON t.oid = number \
      LEFT JOIN pg_type e ON e.oid = t.typelem AND t.typlen = -1 \
      WHERE t.typtype <> 'd' AND (t.oid < 16384::oid OR t.typtype IN ('b', 'e') AND coalesce(e.typtype, 'b') IN ('b', 'e')) \
    ) plain ON true \
    LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
    LEFT JOIN LATERAL (SELECT place, i.indclass[place - 1] AS class FROM generate_series(1, i.indnkeyatts) place \
                       WHERE i.indkey[place - 1] = a.attnum) k ON true \
    LEFT JOIN pg_opclass c ON c.oid = k.class \
    LEFT JOIN pg_amop m ON m.amopfamily = c.opcfamily AND m.amopstrategy = 3 \
                       AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype \
    LEFT JOIN pg_operator o ON o.oid = m.amopopr LEFT JOIN pg_namespace s ON s.oid = o.oprnamespace \
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ";

/// Whether an index or a statistics object of the table `c` calls a function of a role that is not a superuser. PostgreSQL runs
/// such a function when it plans a query (it folds constants), with the rights of the session, which is a superuser here.
const RUNS_FOREIGN_CODE: &str = "EXISTS (SELECT FROM ( \
      SELECT 'pg_class'::regclass::oid AS class, indexrelid AS part FROM pg_index WHERE indrelid = c.oid \
      UNION ALL SELECT 'pg_statistic_ext'::regclass::oid, oid FROM pg_statistic_ext WHERE stxrelid = c.oid) AS own \
    JOIN pg_depend d ON d.classid = own.class AND d.objid = own.part \
    LEFT JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND o.oid = d.refobjid \
    JOIN pg_proc p ON p.oid = CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid ELSE o.oprcode::oid END \
    JOIN pg_roles r ON r.oid = p.proowner WHERE NOT r.rolsuper)";

/// Keeps a query of a table from running other roles' code, for the rest of this transaction: no index and no statistics object can
/// be made meanwhile, and the table cannot be replaced. Other sessions read and write rows as usual.
pub(super) async fn hold(server: &Database, table: &TableName) -> Result<(), DatabaseError> {
    let name = table.in_sql();
    server.ask("BEGIN").await?;
    server.ask(&format!("LOCK TABLE ONLY {name} IN SHARE UPDATE EXCLUSIVE MODE")).await?;
    let kind = format!(
        "SELECT CASE WHEN {RUNS_FOREIGN_CODE} THEN 'runs' ELSE c.relkind::text END FROM pg_class c \
         WHERE c.oid = {}::regclass",
        literal(&name)
    );
    match server.value(&kind).await?.as_str() {
        "r" => Ok(()),
        "runs" => Err(server.error(format!("{}: {FOREIGN_CODE}", table.in_words()))),
        _ => Err(server.error(format!("{} is no longer a table", table.in_words()))),
    }
}

/// Why such a table is left out.
pub(super) const FOREIGN_CODE: &str = "an index or a statistics object of the table calls a function of a role that is not a \
                                       superuser, and PostgreSQL would run that function as a superuser here. To compare the \
                                       table, review the function. If it is harmless: ALTER FUNCTION ... OWNER TO a superuser, on \
                                       the new main and on a server on a copy of the kept directory; then salvage that copy";

/// A table's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableName {
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) table: String,
    /// Why it is not compared, if so.
    pub(super) left_out: Option<LeftOutFor>,
    /// The role that owns it.
    pub(super) owner: String,
}

/// Why a table is not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LeftOutFor {
    /// Interrex's own: its events are in the journals, and reach the new main from there.
    Own,
    /// Its rows are not in the WAL.
    Unlogged,
    /// Its name cannot be written in a statement.
    Name,
    /// A query of it would run another role's code.
    ForeignCode,
}

impl TableName {
    /// `database.schema.table`, for people and files.
    pub(super) fn in_words(&self) -> String {
        format!("{}.{}.{}", self.database, self.schema, self.table)
    }

    /// As statements name it.
    pub(super) fn in_sql(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }

    /// Whether `text` names it; the database, or database and schema, may be left out.
    pub(super) fn is_meant_by(&self, text: &str) -> bool {
        let with_schema = format!("{}.{}", self.schema, self.table);
        [self.in_words(), with_schema, self.table.clone()].iter().any(|name| name == text)
    }
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    /// Its type with its schema, as a cast names it.
    pub(super) of_type: String,
    /// Computed from others: no statement may give it a value.
    pub(super) is_generated: bool,
    /// An identity column: a statement that gives it a value needs OVERRIDING.
    pub(super) is_identity: bool,
    /// Its place in the primary key, from 1, and the key's operator for "the same".
    pub(super) key: Option<(usize, String)>,
    /// The sequence that it owns.
    pub(super) sequence: Option<String>,
    /// The type to which its values can be cast without running other roles' code.
    pub(super) plain_type: Option<String>,
}

/// Every table of a database that can have stranded rows: a partition, but not the partitioned table.
pub(super) async fn tables(server: &Database, database: &str) -> Result<Vec<TableName>, DatabaseError> {
    let of_all = "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' \
         AND n.nspname <> 'information_schema' ORDER BY n.nspname, c.relname";
    let names = format!(
        "SELECT {}, {}, {} {of_all}",
        name_in_hex("n.nspname"),
        name_in_hex("c.relname"),
        name_in_hex("pg_get_userbyid(c.relowner)")
    );
    let kinds = format!("SELECT {IS_OWN_TABLE}, c.relpersistence = 'u', {RUNS_FOREIGN_CODE} {of_all}");
    let kinds = server.ask(&kinds).await?;
    let names = server.names(&names).await?.into_iter().zip(kinds);
    let tables = names.filter_map(|(names, kind)| {
        let [schema, table, owner] = <[Name; 3]>::try_from(names).ok()?;
        let is = |place: usize| kind.get(place).and_then(Option::as_deref) == Some("t");
        let is_text = |name: &Name| matches!(name, Name::Text(_));
        let left_out = match (is(0), is(1), is(2)) {
            _ if !is_text(&schema) || !is_text(&table) => Some(LeftOutFor::Name),
            (_, _, true) => Some(LeftOutFor::ForeignCode),
            (true, ..) => Some(LeftOutFor::Own),
            (_, true, _) => Some(LeftOutFor::Unlogged),
            _ => None,
        };
        let [schema, table, owner] = [schema, table, owner].map(|name| name.shown().to_owned());
        Some(TableName { database: database.to_owned(), schema, table, left_out, owner })
    });
    Ok(tables.collect())
}

/// The columns of a table in order; none if there is no such table.
pub(super) async fn columns(server: &Database, table: &TableName) -> Result<Vec<Column>, DatabaseError> {
    let sql = format!("{COLUMNS}to_regclass({})::oid ORDER BY a.attnum", literal(&table.in_sql()));
    Ok(server.ask(&sql).await?.into_iter().filter_map(column).collect())
}

fn column(row: Row) -> Option<Column> {
    let mut values = row.into_iter();
    let mut next = || values.next().flatten();
    let (name, of_type) = (next()?, next()?);
    let (is_generated, is_identity) = (next()? == "t", next()? == "t");
    let (place, operator, sequence, plain_type) = (next(), next(), next(), next());
    let key = place.and_then(|place| place.parse().ok()).zip(operator);
    Some(Column { name, of_type, is_generated, is_identity, key, sequence, plain_type })
}
