//! The files for a table's stranded rows: SQL and CSV. Each file is made when its first row comes.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use interrex_events::postgres::{identifier, literal};

use super::{
    super::output::create,
    SalvageError,
    database::{Row, Told},
    tables::{Column, TableName},
};
use crate::harmless::harmless; // a name in a comment must not end it either

/// The most letters of a table's name in a file's name.
const LONGEST_NAME: usize = 150;

/// Names for the files of tables; each name is given only once.
#[derive(Default)]
pub(super) struct FileNames(HashSet<String>);

impl FileNames {
    /// The table's name, with only letters that are harmless in a file's name.
    pub(super) fn of(&mut self, table: &TableName) -> String {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
        let name: String =
            table.in_words().chars().map(|letter| if plain(letter) { letter } else { '_' }).collect();
        let name = name.trim_start_matches(['.', '-']).chars().take(LONGEST_NAME).collect::<String>();
        let numbered = (2..).map(|number: usize| format!("{name}-{number}"));
        let mut names = std::iter::once(name.clone()).chain(numbered);
        let free = names.find(|name| !self.0.contains(&name.to_lowercase())).unwrap_or_default();
        self.0.insert(free.to_lowercase());
        free
    }
}

/// The files of one table.
pub(super) struct TableFiles<'a> {
    folder: &'a Path,
    name: String,
    table: &'a TableName,
    columns: &'a [Column],
    told: Told,
    sql: Option<BufWriter<File>>,
    csv: Option<BufWriter<File>>,
    conflicts: Option<BufWriter<File>>,
    rows: Option<BufWriter<File>>,
    made: Vec<String>,
}

impl<'a> TableFiles<'a> {
    /// No file is made yet.
    pub(super) fn new(
        folder: &'a Path,
        name: String,
        (table, columns): (&'a TableName, &'a [Column]),
        told: Told,
    ) -> Self {
        let (sql, csv, conflicts, rows) = (None, None, None, None);
        Self { folder, name, table, columns, told, sql, csv, conflicts, rows, made: Vec::new() }
    }

    /// A row of a table that is not compared.
    pub(super) fn row(&mut self, row: &Row) -> Result<(), SalvageError> {
        self.try_row(row).map_err(|error| self.failed(&error))
    }

    /// Removes the files: they are not complete.
    pub(super) fn discard(&mut self) {
        drop((self.sql.take(), self.csv.take(), self.conflicts.take(), self.rows.take()));
        for name in self.made.drain(..) {
            // a file that stays is not named in a summary
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    /// A row whose key the new main lacks.
    pub(super) fn insert(&mut self, row: &Row) -> Result<(), SalvageError> {
        self.try_insert(row).map_err(|error| self.failed(&error))
    }

    /// A row whose key the new main has with other values: both versions.
    pub(super) fn conflict(&mut self, kept: &Row, main: &Row) -> Result<(), SalvageError> {
        self.try_conflict(kept, main).map_err(|error| self.failed(&error))
    }

    /// Completes the files, and returns their names.
    pub(super) fn finish(&mut self) -> Result<Vec<String>, SalvageError> {
        self.try_finish().map_err(|error| self.failed(&error))?;
        Ok(std::mem::take(&mut self.made))
    }

    fn failed(&self, error: &io::Error) -> SalvageError {
        SalvageError::Failed(format!("writing the rows of {}: {error}", self.table.in_words()))
    }

    fn create(&mut self, end: &str) -> io::Result<BufWriter<File>> {
        let name = format!("{}.{end}", self.name);
        let file = create(&self.folder.join(&name))?;
        self.made.push(name);
        Ok(BufWriter::new(file))
    }

    fn try_insert(&mut self, row: &Row) -> io::Result<()> {
        let mut sql = match self.sql.take() {
            Some(sql) => sql,
            None => {
                let mut sql = self.create("inserts.sql")?;
                sql.write_all(self.head().as_bytes())?;
                sql
            }
        };
        writeln!(sql, "{}", self.statement(row))?;
        self.sql = Some(sql);
        let mut csv = match self.csv.take() {
            Some(csv) => csv,
            None => {
                let mut csv = self.create("inserts.csv")?;
                csv_line(&mut csv, self.headings())?;
                csv
            }
        };
        csv_line(&mut csv, self.shown(row))?;
        self.csv = Some(csv);
        Ok(())
    }

    fn try_conflict(&mut self, kept: &Row, main: &Row) -> io::Result<()> {
        let mut conflicts = match self.conflicts.take() {
            Some(conflicts) => conflicts,
            None => {
                let mut conflicts = self.create("conflicts.csv")?;
                csv_line(&mut conflicts, std::iter::once(Some("version".to_owned())).chain(self.headings()))?;
                conflicts
            }
        };
        for (version, row) in [("kept", kept), ("main", main)] {
            csv_line(&mut conflicts, std::iter::once(Some(version.to_owned())).chain(self.shown(row)))?;
        }
        self.conflicts = Some(conflicts);
        Ok(())
    }

    fn try_row(&mut self, row: &Row) -> io::Result<()> {
        let mut rows = match self.rows.take() {
            Some(rows) => rows,
            None => {
                let mut rows = self.create("rows.csv")?;
                csv_line(&mut rows, self.headings())?;
                rows
            }
        };
        csv_line(&mut rows, self.shown(row))?;
        self.rows = Some(rows);
        Ok(())
    }

    fn headings(&self) -> impl Iterator<Item = Option<String>> {
        self.columns.iter().map(|column| Some(column.name.clone()))
    }

    fn shown<'r>(&'r self, row: &'r Row) -> impl Iterator<Item = Option<String>> + 'r {
        row.iter().map(|value| value.as_deref().map(|value| self.told.shown(value)))
    }

    fn try_finish(&mut self) -> io::Result<()> {
        if let Some(sql) = &mut self.sql {
            sql.write_all(tail(self.table, self.columns).as_bytes())?;
        }
        let files = [self.sql.take(), self.csv.take(), self.conflicts.take(), self.rows.take()];
        for file in files.into_iter().flatten() {
            file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        }
        Ok(())
    }

    fn head(&self) -> String {
        format!(
            "-- Rows of {table} that only the old main has. Review them, then apply them yourself, all or none, as\n-- the \
             table's owner:\n--   psql --no-psqlrc --username {owner} --dbname DATABASE --set ON_ERROR_STOP=1 --file \
             THIS_FILE\n-- Triggers, constraints, defaults and indexes run the code of the table's owner, with the rights of the \
             session\n-- that adds a row. A superuser who applies this gives that owner a superuser's rights; SET ROLE does not \
             help,\n-- because that code can RESET it. If the owner may not log in: CREATE ROLE helper LOGIN IN ROLE that_owner, \
             and\n-- PGOPTIONS='-c role=that_owner'.\nSET search_path = pg_catalog;\nDO $$ BEGIN\n  IF (SELECT rolsuper FROM \
             pg_roles WHERE rolname = session_user)\n      AND NOT (SELECT rolsuper FROM pg_roles JOIN pg_class ON relowner = \
             pg_roles.oid WHERE pg_class.oid = {name}::regclass)\n      AND current_setting('salvage.as_superuser', true) IS \
             DISTINCT FROM 'yes' THEN\n    RAISE EXCEPTION 'code of the table''s owner would run as a superuser: log in as the \
             owner'\n      USING HINT = 'Only if that owner may do anything on this server: PGOPTIONS=\"-c \
             salvage.as_superuser=yes\"';\n  END IF;\nEND $$;\n-- the table's own code finds its names as usual\nRESET \
             search_path;\nSET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\nSET datestyle = 'ISO, MDY';\nSET \
             intervalstyle = 'postgres';\nSET lc_monetary = 'C';\nSET xmloption = 'content';\nBEGIN;\n",
            table = harmless(&self.table.in_words()),
            owner = harmless(&self.table.owner),
            name = literal(&self.table.in_sql()),
        )
    }

    fn statement(&self, row: &Row) -> String {
        let written = || self.columns.iter().zip(row).filter(|(column, _)| !column.is_generated);
        let names: Vec<String> = written().map(|(column, _)| identifier(&column.name)).collect();
        let values: Vec<String> =
            written().map(|(column, value)| self.told.in_sql(value.as_deref(), &column.of_type)).collect();
        let has_identity = self.columns.iter().any(|column| column.is_identity);
        let overriding = if has_identity { " OVERRIDING SYSTEM VALUE" } else { "" };
        let (table, names, values) = (self.table.in_sql(), names.join(", "), values.join(", "));
        format!("INSERT INTO {table} ({names}){overriding} VALUES ({values});")
    }
}

/// The end of the statements, and a command that keeps a sequence from giving the same values again.
fn tail(table: &TableName, columns: &[Column]) -> String {
    let mut words = "COMMIT;\n".to_owned();
    for column in columns {
        let Some(sequence) = &column.sequence else { continue };
        let (name, sequence) = (identifier(&column.name), literal(sequence));
        let table = table.in_sql();
        let hint =
            format!("SELECT setval({sequence}, greatest(max({name}), nextval({sequence}))) FROM {table};");
        words.push_str(&format!(
            "-- run this afterwards, so that the sequence does not give these values again:\n-- {}\n",
            harmless(&hint)
        ));
    }
    words
}

/// In the form of `COPY ... CSV`: NULL is an empty field, and an empty text is quoted.
fn csv_line(file: &mut impl io::Write, values: impl Iterator<Item = Option<String>>) -> io::Result<()> {
    let fields = values.map(|value| match value {
        None => String::new(),
        Some(text) if text.is_empty() || text == "\\." || text.contains(['"', ',', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Some(text) => text,
    });
    writeln!(file, "{}", fields.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(table: &str) -> TableName {
        TableName {
            database: "db".to_owned(),
            schema: "public".to_owned(),
            table: table.to_owned(),
            left_out: None,
            owner: "app".to_owned(),
        }
    }

    #[test]
    fn every_table_has_files_of_its_own_whatever_its_name() {
        let mut names = FileNames::default();
        assert_eq!(names.of(&named("users")), "db.public.users");
        assert_eq!(names.of(&named("Users")), "db.public.Users-2");
        assert_eq!(names.of(&named("../../etc/x")), "db.public..._.._etc_x");
        assert_eq!(names.of(&named("a b")), "db.public.a_b");
        assert_eq!(names.of(&named("a\nb")), "db.public.a_b-2");
        assert!(names.of(&named(&"x".repeat(300))).len() <= LONGEST_NAME);
    }

    #[test]
    fn a_tables_name_is_harmless_in_a_comment_and_exact_in_a_statement() {
        let table =
            TableName { owner: "app\x1b[2J\nDROP".to_owned(), ..named("esc\x1b[31mRED\nDROP TABLE x;") };
        let folder = tempfile::tempdir().unwrap();
        let column = Column {
            name: "id".to_owned(),
            of_type: "pg_catalog.int4".to_owned(),
            is_generated: false,
            is_identity: false,
            key: None,
            sequence: Some("esc\x1b[2J_id_seq".to_owned()),
            plain_type: None,
        };
        let columns = [column];
        let mut files = TableFiles::new(folder.path(), "t".to_owned(), (&table, &columns), Told::Text);
        files.insert(&vec![Some("1".to_owned())]).unwrap();
        files.finish().unwrap();
        let text = std::fs::read_to_string(folder.path().join("t.inserts.sql")).unwrap();
        assert!(text.contains(&format!("INSERT INTO {} ", table.in_sql())), "{text}");
        let comments: Vec<&str> = text.lines().filter(|line| line.starts_with("--")).collect();
        assert!(comments.iter().any(|line| line.contains("RED DROP TABLE x;")), "{comments:?}");
        assert!(!comments.iter().any(|line| line.contains(char::is_control)), "{comments:?}");
    }

    #[test]
    fn csv_tells_null_from_an_empty_text() {
        let mut line = Vec::new();
        let values = [None, Some(""), Some("a,b"), Some("say \"x\""), Some("plain"), Some("two\nlines")];
        csv_line(&mut line, values.into_iter().map(|value| value.map(str::to_owned))).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            ",\"\",\"a,b\",\"say \"\"x\"\"\",plain,\"two\nlines\"\n"
        );
    }
}
