//! Reading an export, every chain checked on the way.

use std::{
    fs::File,
    io::{self, BufRead, Read},
    path::Path,
};

use serde::Deserialize;

use super::{
    EXPORT_VERSION, ExportError, ExportHeader,
    chains::Chains,
    packing::{Packing, unpacked},
};
use crate::{Broken, Head, Place, Record};

/// No event comes near it: a longer line is an attack on this program's memory.
const LONGEST_LINE: u64 = 64 << 20;

/// The records of an export, in story order. What it yields was checked; after an error it yields nothing more.
pub struct ExportReader {
    file: String,
    lines: Box<dyn BufRead + Send>,
    header: ExportHeader,
    chains: Chains,
    last: Option<Place>,
    line: u64,
    ended: bool,
}

/// Whether a file begins as an export does. A file that is none may still be a journal.
///
/// # Errors
/// It cannot be read.
pub fn looks_like_an_export(path: &Path) -> io::Result<bool> {
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(Packing::detect(&first).is_some())
}

impl ExportReader {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// It cannot be read, is no export, or is of a newer version.
    pub fn open(path: &Path) -> Result<Self, ExportError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::read_from(file, &name),
            Err(error) => Err(ExportError::Unreadable { file: name, detail: error.to_string() }),
        }
    }

    /// The same from anything that can be read, called `name` in what goes wrong.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_from(source: impl Read + Send + 'static, name: &str) -> Result<Self, ExportError> {
        let file = name.to_owned();
        let unreadable =
            |error: io::Error| ExportError::Unreadable { file: name.to_owned(), detail: error.to_string() };
        let Some(mut lines) = unpacked(source).map_err(unreadable)? else {
            return Err(ExportError::NotAnExport(file));
        };
        let first = next_line(&mut lines).map_err(unreadable)?;
        let header = header(&first.unwrap_or_default(), name)?;
        let chains = Chains::after(&header.begins, header.part.has_gaps());
        Ok(Self { file, lines, header, chains, last: None, line: 1, ended: false })
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &ExportHeader {
        &self.header
    }

    /// The newest event of each node that was read so far.
    #[must_use]
    pub fn heads(&self) -> Vec<Head> {
        self.chains.heads()
    }

    fn read(&mut self) -> Result<Option<Record>, ExportError> {
        let line = match next_line(&mut self.lines) {
            Ok(Some(line)) => line,
            Ok(None) => return self.demand_all().map(|()| None),
            Err(error) => {
                return Err(ExportError::Unreadable { file: self.file.clone(), detail: error.to_string() });
            }
        };
        self.line += 1;
        let record: Record = serde_json::from_slice(&line).map_err(|error| ExportError::NoRecord {
            file: self.file.clone(),
            line: self.line,
            detail: error.to_string(),
        })?;
        self.check(&record).map_err(|broken| ExportError::Broken {
            file: self.file.clone(),
            line: self.line,
            broken,
        })?;
        Ok(Some(record))
    }

    fn check(&mut self, record: &Record) -> Result<(), Broken> {
        let (node_id, node_seq) = (record.node_id, record.node_seq);
        let broken = |problem: String| Err(Broken { node_id, node_seq, problem });
        if record.cluster_id != self.header.cluster_id {
            return broken(format!("it belongs to another cluster, {}", record.cluster_id));
        }
        let Some(newest) = self.header.heads.iter().find(|head| head.node_id == node_id) else {
            return broken("the header names no event of this node".to_owned());
        };
        if node_seq > newest.node_seq {
            return broken(format!("the header says that this node's events end at {}", newest.node_seq));
        }
        self.chains.step(record)?;
        if self.last.is_some_and(|last| record.place() < last) {
            return broken("it belongs before the event in the line before it".to_owned());
        }
        self.last = Some(record.place());
        Ok(())
    }

    /// An export that ends early is noticed here.
    fn demand_all(&self) -> Result<(), ExportError> {
        for promised in &self.header.heads {
            let found = self.chains.head(promised.node_id);
            if found != *promised {
                let (file, found) = (self.file.clone(), found.node_seq);
                return Err(ExportError::CutOff { file, promised: *promised, found });
            }
        }
        Ok(())
    }
}

impl Iterator for ExportReader {
    type Item = Result<Record, ExportError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read().transpose();
        self.ended = !matches!(next, Some(Ok(_)));
        next
    }
}

fn next_line(lines: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    if read as u64 == LONGEST_LINE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of it is longer than any event"));
    }
    Ok((read > 0).then_some(line))
}

fn header(line: &[u8], file: &str) -> Result<ExportHeader, ExportError> {
    #[derive(Deserialize)]
    struct Version {
        interrex_export: u32,
    }
    let no_export = |_| ExportError::NotAnExport(file.to_owned());
    let found = serde_json::from_slice::<Version>(line).map_err(no_export)?.interrex_export;
    if found > EXPORT_VERSION {
        return Err(ExportError::Newer { file: file.to_owned(), found });
    }
    serde_json::from_slice(line).map_err(no_export)
}
