//! Writing an export.

use std::io::{self, Write};

use super::{
    ExportHeader,
    packing::{Packed, Packing},
};
use crate::Record;

/// Writes the header and then records into a sink. Without [`Self::finish`] the export is incomplete.
pub struct ExportWriter<W: Write> {
    sink: Packed<W>,
}

impl<W: Write> ExportWriter<W> {
    /// Begins an export.
    ///
    /// # Errors
    /// The sink's.
    pub fn begin(sink: W, packing: Packing, header: &ExportHeader) -> io::Result<Self> {
        let mut sink = Packed::into(sink, packing)?;
        serde_json::to_writer(&mut sink, header)?;
        sink.write_all(b"\n")?;
        Ok(Self { sink })
    }

    /// Writes a record, in story order.
    ///
    /// # Errors
    /// The sink's; or the record's payload has line breaks of its own, and would change if they were left out.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        if line.contains(&b'\n') {
            let message = format!("event {} of node {} does not fit a line", record.node_seq, record.node_id);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        line.push(b'\n');
        self.sink.write_all(&line)
    }

    /// Writes what is still held back, and gives the sink back.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(self) -> io::Result<W> {
        self.sink.finish()
    }
}
