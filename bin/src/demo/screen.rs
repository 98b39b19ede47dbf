//! Where the demo is shown: lines that stay, and on a terminal a block beneath them that is redrawn.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::{AsFd, BorrowedFd},
    process::Stdio,
};

use super::DemoError;
use crate::wrap::wrap;

/// The meaning of a text; never shown by the colour alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Faint,
    Strong,
    Good,
    Bad,
}

/// Explanations are not made wider than is good to read.
const READABLE: usize = 100;

/// The demo's way out.
pub(super) struct Screen {
    /// Without a buffer of the standard library's: what a terminal that went away did not take must not be
    /// tried again by others.
    out: File,
    to_stderr: bool,
    /// Whether the block can be redrawn.
    pub(super) is_live: bool,
    colour: bool,
    /// Columns; nothing where a line may have any length.
    width: Option<usize>,
    /// Lines of the block that is drawn now.
    drawn: usize,
    block: Vec<String>,
}

impl Screen {
    pub(super) fn for_people() -> Result<Self, DemoError> {
        Self::on(io::stdout().as_fd(), false)
    }

    /// Standard output is for the figures alone.
    pub(super) fn for_programs() -> Result<Self, DemoError> {
        Self::on(io::stderr().as_fd(), true)
    }

    fn on(out: BorrowedFd<'_>, to_stderr: bool) -> Result<Self, DemoError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let out = File::from(out.try_clone_to_owned().map_err(DemoError::System)?);
        let width = width(&out);
        // a block is redrawn by the number of its lines, which is known only if none of them wraps
        let is_live = out.is_terminal() && width.is_some() && set("TERM").is_none_or(|term| term != "dumb");
        let colour = is_live && set("NO_COLOR").is_none();
        Ok(Self { out, to_stderr, is_live, colour, width, drawn: 0, block: Vec::new() })
    }

    /// Whether the figures are for a program.
    pub(super) fn is_for_programs(&self) -> bool {
        self.to_stderr
    }

    /// A text in its tone.
    pub(super) fn paint(&self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Faint => "2",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Bad => "31",
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A line that stays, above the block.
    pub(super) fn line(&mut self, line: &str) -> Result<(), DemoError> {
        let block = std::mem::take(&mut self.block);
        self.put(&format!("{}{line}\n", self.over_the_block()))?;
        self.drawn = 0;
        self.draw(block)
    }

    /// Words that wrap under themselves, after what stands before them.
    pub(super) fn hanging(&mut self, tone: Tone, before: &str, words: &str) -> Result<(), DemoError> {
        let room = self.width.map(|width| width.saturating_sub(columns(before)).max(20));
        let parts = room.map_or_else(|| vec![words.to_owned()], |room| wrap(words, room));
        for (index, part) in parts.iter().enumerate() {
            let before = if index == 0 { before.to_owned() } else { " ".repeat(columns(before)) };
            let part = self.paint(tone, part);
            self.line(&format!("{before}{part}"))?;
        }
        Ok(())
    }

    /// The begin of an act, with what a newcomer should know to follow it.
    pub(super) fn heading(&mut self, number: u32, title: &str, explanation: &str) -> Result<(), DemoError> {
        self.drop_block()?;
        let title = self.paint(Tone::Strong, &format!("{number}  {title}"));
        self.line(&format!("\n{title}"))?;
        for line in wrap(explanation, self.width.unwrap_or(READABLE).min(READABLE) - 3) {
            let line = self.paint(Tone::Faint, &format!("   {line}"));
            self.line(&line)?;
        }
        Ok(())
    }

    /// Puts a block in the place of the last one; nothing where it could not be redrawn.
    pub(super) fn draw(&mut self, block: Vec<String>) -> Result<(), DemoError> {
        if !self.is_live {
            return Ok(());
        }
        let lines = block.iter().map(|line| self.cut(line) + "\n").collect::<String>();
        self.put(&(self.over_the_block() + &lines))?;
        (self.drawn, self.block) = (block.len(), block);
        Ok(())
    }

    /// The block stays as it is from now on.
    pub(super) fn let_block_stand(&mut self) {
        self.drawn = 0;
        self.block.clear();
    }

    /// The block goes.
    pub(super) fn drop_block(&mut self) -> Result<(), DemoError> {
        self.draw(Vec::new())
    }

    /// What brings the terminal back to where the block began.
    fn over_the_block(&self) -> String {
        if self.drawn > 0 { format!("\x1b[{}A\r\x1b[J", self.drawn) } else { String::new() }
    }

    fn put(&mut self, text: &str) -> Result<(), DemoError> {
        self.out.write_all(text.as_bytes()).map_err(DemoError::Output)
    }

    /// A line that wraps would be redrawn at the wrong place. Colours take no columns.
    pub(super) fn cut(&self, line: &str) -> String {
        let Some(width) = self.width.filter(|width| columns(line) > *width) else { return line.to_owned() };
        let mut kept = String::new();
        let mut in_code = false;
        for letter in line.chars() {
            in_code |= letter == '\x1b';
            if !in_code && columns(&kept) + 1 == width {
                break;
            }
            kept.push(letter);
            in_code &= letter != 'm';
        }
        kept.push('…');
        if self.colour { kept + "\x1b[0m" } else { kept }
    }

    /// For a program that writes to the same place.
    pub(super) fn for_child(&self) -> Result<Stdio, DemoError> {
        Ok(self.out.try_clone().map_err(DemoError::System)?.into())
    }
}

fn width(out: &impl AsFd) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(out).ok()?;
    (size.ws_col >= 40).then(|| usize::from(size.ws_col))
}

/// What is seen of a line.
fn columns(line: &str) -> usize {
    let mut in_code = false;
    let seen = line.chars().filter(|letter| {
        let was_in_code = in_code || *letter == '\x1b';
        in_code = was_in_code && *letter != 'm';
        !was_in_code
    });
    seen.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(width: usize) -> Screen {
        let nowhere = File::create("/dev/null").unwrap();
        Screen { width: Some(width), ..Screen::on(nowhere.as_fd(), false).unwrap() }
    }

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        let screen = screen(6);
        assert_eq!(screen.cut("abcdef"), "abcdef");
        assert_eq!(screen.cut("abcdefg"), "abcde…");
        assert_eq!(screen.cut("\x1b[31mabcdef\x1b[0m"), "\x1b[31mabcdef\x1b[0m");
        assert_eq!(screen.cut("ab\x1b[31mcdefg\x1b[0m"), "ab\x1b[31mcde…");
    }
}
