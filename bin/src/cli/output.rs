//! The way out: lines, JSON and colours, on a terminal, into a pipe or into a test.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::failure::Failure;
pub(super) use crate::harmless::harmless;

/// The meaning of a text; shown as a colour if there are colours, and never only as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Beside the point.
    Faint,
    /// A heading, or what the eye should find first.
    Strong,
    /// As it should be.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

/// What the reader's side can show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Whether colours are understood and wanted.
    pub(super) colour: bool,
    /// Columns of the terminal; `None` if lines may have any length.
    pub(super) width: Option<usize>,
}

impl Style {
    /// The text in its tone.
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Warning => "33",
            Tone::Bad => "31",
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Whether colours are wanted on a stream: on a terminal that knows them, unless NO_COLOR says otherwise.
pub(super) fn colour_on(stream: &impl IsTerminal) -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    stream.is_terminal() && set("NO_COLOR").is_none() && set("TERM").is_none_or(|term| term != "dumb")
}

/// Where the answer is written.
pub(super) struct Output<'a> {
    writer: Box<dyn Write + 'a>,
    /// What the reader's side can show.
    pub(super) style: Style,
}

impl<'a> Output<'a> {
    /// Into any writer.
    pub(super) fn to(writer: impl Write + 'a, style: Style) -> Self {
        Self { writer: Box::new(writer), style }
    }

    /// To standard output.
    pub(super) fn standard() -> Self {
        let stdout = io::stdout();
        let width = match rustix::termios::tcgetwinsize(&stdout) {
            Ok(size) if size.ws_col >= 40 => Some(usize::from(size.ws_col)),
            _ => None,
        };
        let style = Style { colour: colour_on(&stdout), width };
        Self::to(io::BufWriter::new(stdout), style)
    }

    /// Text that ends its own lines.
    pub(super) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.writer.write_all(text.as_bytes())?)
    }

    /// One line.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(line)?;
        self.text("\n")
    }

    /// One JSON document, for people and programs.
    pub(super) fn json(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.writer, document).map_err(io::Error::from)?;
        self.text("\n")
    }

    /// One JSON object in one line.
    pub(super) fn json_line(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.writer, object).map_err(io::Error::from)?;
        self.text("\n")
    }

    /// The writer, for a caller that writes bytes.
    pub(super) fn writer(&mut self) -> &mut (dyn Write + 'a) {
        &mut self.writer
    }

    /// Hands over what was written so far.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.writer.flush()?)
    }
}

/// Writes a line to standard error, and ignores an error.
pub(super) fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

/// Writes to standard error's terminal, over the line that was written before.
pub(super) fn say_in_place(words: &str) {
    let _ = write!(io::stderr(), "\r\x1b[K{words}");
}
