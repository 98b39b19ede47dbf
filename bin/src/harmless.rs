//! Text of others, where people read it.

/// The text on one line and without control characters: a name or a server's answer must not steer the reader's terminal.
pub(crate) fn harmless(text: &str) -> String {
    let blank = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(blank).collect::<String>().trim_end().to_owned()
}

/// The same of a text of several lines.
pub(crate) fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_becomes_blank_and_all_else_stays() {
        assert_eq!(harmless("esc\x1b[31mRED\x1b[2J"), "esc [31mRED [2J");
        assert_eq!(harmless("two\r\nlines\u{9b}2J\u{7f} Zürich\n"), "two  lines 2J  Zürich");
        assert_eq!(harmless_lines("error: \x1b[2J\n  because: x"), "error:  [2J\n  because: x");
    }
}
