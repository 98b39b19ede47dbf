//! A journal at one moment, read in story order without an index of that order.
//!
//! ```text
//! node 1  ──●──────●────●──────>  node_seq      each node's moments rise with its numbers (the chain says so),
//! node 2  ────●─────────────●──>                so a merge of the nodes' own orders is the story
//! ```

use std::ops::ControlFlow;

use rusqlite::{
    Connection, Row, Rows, Transaction, fallible_streaming_iterator::FallibleStreamingIterator as _,
    params_from_iter, types::Value,
};

use super::{
    Selection, row,
    seal::{self, Segment},
};
use crate::{Base, Broken, ChainWalks, Hlc, NodeId, NodeSeq, RecordRef, Seen};

/// Why a journal cannot be read on.
pub(super) enum Unreadable {
    /// A row is no event.
    Row(Broken),
    /// SQLite failed.
    File(rusqlite::Error),
}

impl Unreadable {
    /// For a row that cannot be read as an event.
    pub(super) fn row(row: &Row<'_>, error: &rusqlite::Error) -> Self {
        Self::Row(row::unreadable(row, error))
    }
}

impl From<rusqlite::Error> for Unreadable {
    fn from(error: rusqlite::Error) -> Self {
        Self::File(error)
    }
}

/// What a walk returns: whether the visitor of the events broke it off.
pub(super) type Walked<B> = Result<ControlFlow<B>, Unreadable>;

/// What is in a journal at one moment: what is appended meanwhile is not seen.
pub(super) struct Snapshot<'a> {
    transaction: Transaction<'a>,
}

impl<'a> Snapshot<'a> {
    /// The journal now. Until the snapshot is dropped, the connection can take no other.
    pub(super) fn of(connection: &'a Connection) -> rusqlite::Result<Self> {
        Ok(Self { transaction: connection.unchecked_transaction()? })
    }

    /// The segments that were sealed.
    pub(super) fn segments(&self) -> rusqlite::Result<Vec<Segment>> {
        seal::segments(&self.transaction)
    }

    /// The chains, as they begin here.
    pub(super) fn begins(&self) -> rusqlite::Result<ChainWalks> {
        let bases = seal::bases(self.segments()?);
        Ok(ChainWalks::continuing(bases.values().map(Base::walk)))
    }

    /// Hands over the selected events in story order; of kinds that `reads` refuses, only their places.
    pub(super) fn story<B>(
        &self,
        selection: &Selection,
        reads: impl Fn(&str) -> bool,
        mut visit: impl FnMut(Seen<'_>) -> ControlFlow<B>,
    ) -> Walked<B> {
        let choices = match selection.run {
            Some(run) => vec![self.of_run(Value::Blob(run.0.as_bytes().to_vec()), selection)],
            None => {
                let nodes = self.nodes()?.into_iter();
                let nodes = nodes.filter(|node| selection.node.is_none_or(|only| only == *node));
                nodes.map(|node| self.of_node(node, selection)).collect::<Result<_, _>>()?
            }
        };
        self.merge(choices, |row| {
            if reads(row::kind(row)?) {
                return Ok(visit(Seen::Read(&row::read(row)?)));
            }
            Ok(visit(Seen::PassedOver(row::place(row)?)))
        })
    }

    /// Hands over every event, node by node.
    pub(super) fn chains<B>(&self, mut visit: impl FnMut(&RecordRef<'_>) -> ControlFlow<B>) -> Walked<B> {
        self.merge(vec![Choice::new("node_id, node_seq")], |row| Ok(visit(&row::read(row)?)))
    }

    /// Hands over one node's events after a place, in that node's order.
    pub(super) fn after<B>(
        &self,
        node: NodeId,
        seq: NodeSeq,
        mut visit: impl FnMut(&RecordRef<'_>) -> ControlFlow<B>,
    ) -> Walked<B> {
        let place = [node.0.into(), seq.0.cast_signed().into()];
        let choice = Choice::new("node_seq").and("node_id = ? AND node_seq > ?", place);
        self.merge(vec![choice], |row| Ok(visit(&row::read(row)?)))
    }

    /// The nodes whose events are here: one look for each, not a scan.
    fn nodes(&self) -> rusqlite::Result<Vec<NodeId>> {
        let mut next = self
            .transaction
            .prepare("SELECT node_id FROM cluster_events WHERE node_id > ? ORDER BY node_id LIMIT 1")?;
        let mut nodes: Vec<NodeId> = Vec::new();
        loop {
            let last = nodes.last().map_or(-1, |node| i64::from(node.0));
            let mut rows = next.query([last])?;
            let Some(row) = rows.next()? else { return Ok(nodes) };
            nodes.push(NodeId(row.get(0)?));
        }
    }

    /// Where a node's events at or after a moment begin: found by binary search, because its times rise with its numbers.
    fn first_at(&self, node: NodeId, moment: Hlc) -> rusqlite::Result<i64> {
        let newest = "SELECT max(node_seq) FROM cluster_events WHERE node_id = ?";
        let newest: Option<i64> = self.transaction.query_row(newest, [node.0], |row| row.get(0))?;
        let mut at = self.transaction.prepare_cached(
            "SELECT hlc FROM cluster_events WHERE node_id = ? AND node_seq >= ? ORDER BY node_seq LIMIT 1",
        )?;
        let (mut first, mut end) = (1, newest.unwrap_or(0) + 1);
        while first < end {
            let middle = first + (end - first) / 2;
            if at.query_row((node.0, middle), |row| row.get(0).map(Hlc))? < moment {
                first = middle + 1;
            } else {
                end = middle;
            }
        }
        Ok(first)
    }

    fn of_node(&self, node: NodeId, selection: &Selection) -> rusqlite::Result<Choice> {
        let mut choice = Choice::new("node_seq").and("node_id = ?", [node.0.into()]);
        let since = selection.begin().max(selection.after.map(|(moment, ..)| moment));
        if let Some(since) = since {
            choice = choice.and("node_seq >= ?", [self.first_at(node, since)?.into()]);
        }
        if let Some(end) = selection.end() {
            choice = choice.and("node_seq < ?", [self.first_at(node, end)?.into()]);
        }
        Ok(choice.and_selected(selection))
    }

    /// A run has an index of its own, in story order.
    fn of_run(&self, run: Value, selection: &Selection) -> Choice {
        let choice = Choice::new("hlc, node_id, node_seq").and("run_id = ?", [run]).and_selected(selection);
        match selection.node {
            Some(node) => choice.and("node_id = ?", [node.0.into()]),
            None => choice,
        }
    }

    /// Hands over the rows of all choices, each of which is in story order, in story order.
    fn merge<B>(
        &self,
        choices: Vec<Choice>,
        mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<B>>,
    ) -> Walked<B> {
        let columns = row::COLUMNS;
        let mut statements = choices
            .iter()
            .map(|choice| self.transaction.prepare(&choice.sql(columns)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut scans = Vec::with_capacity(choices.len());
        for (statement, choice) in statements.iter_mut().zip(choices) {
            scans.push(Scan::begin(statement.query(params_from_iter(choice.values))?)?);
        }
        // a cluster has a handful of nodes: a heap would find the earliest no faster
        while let Some(scan) =
            scans.iter_mut().filter(|scan| scan.moment.is_some()).min_by_key(|scan| scan.moment)
        {
            if let Some(row) = scan.rows.get()
                && let ControlFlow::Break(value) = visit(row).map_err(|error| Unreadable::row(row, &error))?
            {
                return Ok(ControlFlow::Break(value));
            }
            scan.advance()?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Rows in an order, and the moment of the one that is next; none at the end.
struct Scan<'a> {
    rows: Rows<'a>,
    moment: Option<Hlc>,
}

impl<'a> Scan<'a> {
    fn begin(rows: Rows<'a>) -> Result<Self, Unreadable> {
        let mut scan = Self { rows, moment: None };
        scan.advance()?;
        Ok(scan)
    }

    fn advance(&mut self) -> Result<(), Unreadable> {
        self.rows.advance()?;
        let moment = |row| row::moment(row).map_err(|error| Unreadable::row(row, &error));
        self.moment = self.rows.get().map(moment).transpose()?;
        Ok(())
    }
}

/// Some of the events, in some order: a query.
struct Choice {
    conditions: Vec<String>,
    values: Vec<Value>,
    order: &'static str,
}

impl Choice {
    fn new(order: &'static str) -> Self {
        Self { conditions: vec!["1".to_owned()], values: Vec::new(), order }
    }

    fn and(mut self, condition: &str, values: impl IntoIterator<Item = Value>) -> Self {
        self.conditions.push(condition.to_owned());
        self.values.extend(values);
        self
    }

    /// What holds of every selected event, of whichever node or run.
    fn and_selected(mut self, selection: &Selection) -> Self {
        if !selection.kinds.is_empty() {
            let places = vec!["?"; selection.kinds.len()].join(", ");
            let kinds = selection.kinds.iter().cloned().map(Value::from);
            self = self.and(&format!("kind IN ({places})"), kinds);
        }
        if let Some(begin) = selection.begin() {
            self = self.and("hlc >= ?", [begin.0.into()]);
        }
        if let Some(end) = selection.end() {
            self = self.and("hlc < ?", [end.0.into()]);
        }
        if let Some((hlc, node, seq)) = selection.after {
            let place = [hlc.0.into(), node.0.into(), seq.0.cast_signed().into()];
            self = self.and("(hlc, node_id, node_seq) > (?, ?, ?)", place);
        }
        self
    }

    fn sql(&self, columns: &str) -> String {
        let conditions = self.conditions.join(" AND ");
        format!("SELECT {columns} FROM cluster_events WHERE {conditions} ORDER BY {}", self.order)
    }
}
