//! Answers: every value as the text that PostgreSQL writes. The driver's own way to a value panics where it is no UTF-8, as
//! the name of a role can be that was made in a LATIN1 database.

use std::sync::Arc;

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The rows of a question.
pub type Answer = Result<Vec<Row>, Error>;

/// A row whose values all read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    names: Arc<[String]>,
    values: Vec<Option<String>>,
}

/// What names a column.
pub trait Column: Copy {
    /// Its place in a row.
    fn place(self, names: &[String]) -> Option<usize>;
}

impl Column for usize {
    fn place(self, _: &[String]) -> Option<usize> {
        Some(self)
    }
}

impl Column for &str {
    fn place(self, names: &[String]) -> Option<usize> {
        names.iter().position(|name| name == self)
    }
}

impl Row {
    /// A value; `None` if it is null, or the column is missing.
    #[must_use]
    pub fn get(&self, column: impl Column) -> Option<&str> {
        self.values.get(column.place(&self.names)?)?.as_deref()
    }

    /// A value, if it is there and reads.
    #[must_use]
    pub fn parsed<T: std::str::FromStr>(&self, column: impl Column) -> Option<T> {
        self.get(column)?.parse().ok()
    }

    /// All of them.
    #[must_use]
    pub fn into_values(self) -> Vec<Option<String>> {
        self.values
    }
}

/// Runs statements. The rows of all of them.
///
/// # Errors
/// PostgreSQL failed, or a value is not UTF-8: then the whole answer is an error, because a part could be taken for the whole.
#[allow(clippy::disallowed_methods, reason = "this is the one place")]
pub async fn rows(client: &Client, sql: &str) -> Answer {
    let (mut names, mut rows): (Arc<[String]>, _) = (Arc::default(), Vec::new());
    for message in client.simple_query(sql).await? {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                names = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                let values = (0..row.len()).map(|place| Ok(row.try_get(place)?.map(str::to_owned)));
                rows.push(Row { names: names.clone(), values: values.collect::<Result<_, Error>>()? });
            }
            _ => {}
        }
    }
    Ok(rows)
}
