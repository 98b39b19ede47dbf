//! Aligned columns; the last one wraps where the terminal ends.

use super::output::{Style, Tone, harmless};
use crate::wrap::wrap;

/// One cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text in a tone.
    pub(super) fn toned(tone: Tone, text: impl Into<String>) -> Self {
        Self { text: harmless(&text.into()), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(Tone::Plain, text)
    }
}

/// Rows of cells under headings.
#[derive(Debug, Default)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    right: Vec<usize>,
    rows: Vec<Vec<Cell>>,
}

/// Between two columns.
const GAP: &str = "  ";
/// A last column narrower than this is not wrapped: the terminal does that no worse.
const NARROWEST: usize = 24;

impl Table {
    /// With headings.
    pub(super) fn headed(headings: impl IntoIterator<Item = &'static str>) -> Self {
        Self { headings: headings.into_iter().collect(), ..Self::default() }
    }

    /// Without headings.
    pub(super) fn plain() -> Self {
        Self::default()
    }

    /// These columns hold numbers: aligned to the right.
    pub(super) fn right(mut self, columns: impl IntoIterator<Item = usize>) -> Self {
        self.right.extend(columns);
        self
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The whole table, each line ended.
    pub(super) fn render(&self, style: Style) -> String {
        let widths = self.widths();
        let mut text = String::new();
        if !self.headings.is_empty() {
            let headings: Vec<Cell> =
                self.headings.iter().map(|heading| Cell::toned(Tone::Faint, *heading)).collect();
            text.push_str(&self.line(&headings, &widths, style));
        }
        for row in &self.rows {
            text.push_str(&self.line(row, &widths, style));
        }
        text
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).chain([self.headings.len()]).max().unwrap_or_default();
        let widest = |column: usize| {
            let heading = self.headings.get(column).map_or(0, |heading| heading.len());
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.text.chars().count()).max().unwrap_or_default().max(heading)
        };
        (0..columns).map(widest).collect()
    }

    /// One row; more than one line if its last cell wraps.
    fn line(&self, cells: &[Cell], widths: &[usize], style: Style) -> String {
        let Some((last, before)) = cells.split_last() else { return "\n".to_owned() };
        let mut line = String::new();
        let mut indent = 0;
        for (column, cell) in before.iter().enumerate() {
            let blanks = " ".repeat(widths[column] - cell.text.chars().count());
            let painted = style.paint(cell.tone, &cell.text);
            let padded = if self.right.contains(&column) { blanks + &painted } else { painted + &blanks };
            line.push_str(&padded);
            line.push_str(GAP);
            indent += widths[column] + GAP.len();
        }
        let is_last_column = before.len() + 1 == widths.len();
        let room = style.width.filter(|_| is_last_column).map(|width| width.saturating_sub(indent));
        let parts = match room {
            Some(room) if room >= NARROWEST => wrap(&last.text, room),
            _ => vec![last.text.clone()],
        };
        let parts: Vec<String> = parts.iter().map(|part| style.paint(last.tone, part)).collect();
        line.push_str(&parts.join(&format!("\n{}", " ".repeat(indent))));
        line.truncate(line.trim_end_matches(' ').len());
        line + "\n"
    }
}

/// A text cut where the line ends, marked as cut.
pub(super) fn cut(text: String, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => {
            text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_the_last_one_wraps_under_itself() {
        let mut table = Table::headed(["NAME", "BYTES", "DETAIL"]).right([1]);
        table.row(["alpha".into(), "7".into(), "the quick brown fox jumps over the lazy dog".into()]);
        table.row([Cell::toned(Tone::Bad, "β"), "1234567".into(), "a\u{1b}[31m\nb".into()]);
        let style = Style { colour: false, width: Some(45) };
        assert_eq!(
            table.render(style),
            "NAME     BYTES  DETAIL\n\
             alpha        7  the quick brown fox jumps\n\
             \x20               over the lazy dog\n\
             β      1234567  a [31m b\n"
        );
        assert!(table.render(Style { colour: true, width: None }).contains("\x1b[31mβ\x1b[0m      1234567"));
    }

    #[test]
    fn a_text_that_is_cut_is_marked_as_cut() {
        assert_eq!(cut("abcdef".to_owned(), Some(4)), "abc…");
    }
}
