//! Lines for people: text broken where a terminal ends, such that what is copied from it is whole.

/// What ends a command within a sentence.
const ENDS: [&str; 6] = [";", ",", ")", "`", ". ", " ("];

/// Breaks a text at its blanks; blanks that align something within a line are kept. What people copy stays whole, and is
/// longer than the line where it must be: a word, such as a path, and a command of this program.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in pieces(text) {
        let used = lines.last().map_or(0, |line| line.chars().count());
        if used > 0 && used + piece.trim_end().chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(piece);
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// The words of a text, each with the blank after it; a command is one of them.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let last = command(text).unwrap_or_default();
        let end = last + text[last..].find(' ').map_or(text.len() - last, |blank| blank + 1);
        let (piece, rest) = text.split_at(end);
        text = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where the command ends that a text begins with, if it begins with one. What ends nowhere ends with the text.
fn command(text: &str) -> Option<usize> {
    let bare = text.trim_start_matches(['(', '`']);
    let end = ENDS.iter().filter_map(|end| bare.find(end)).min().unwrap_or(bare.len());
    bare.starts_with("interrex ").then_some(text.len() - bare.len() + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_broken_at_its_blanks_and_no_word_is() {
        assert_eq!(wrap("the  quick brown fox", 10), ["the  quick", "brown fox"]);
        assert_eq!(wrap("ab cdefghij kl", 4), ["ab", "cdefghij", "kl"]);
        assert_eq!(wrap("", 4), [""]);
    }

    #[test]
    fn a_command_can_be_copied_from_one_line() {
        let salvage = "interrex salvage --kept /srv/kept/pgdata --output stranded";
        assert_eq!(wrap(salvage, 20), [salvage]);
        let sentence =
            "mend it, then: interrex rejoin beta --copy; or end it (interrex run cancel), and wait";
        let lines = [
            "mend it, then:",
            "interrex rejoin beta --copy;",
            "or end it",
            "(interrex run cancel),",
            "and wait",
        ];
        assert_eq!(wrap(sentence, 18), lines);
        assert_eq!(
            wrap(
                "without loss: interrex switchover --to beta. To take it all the same `interrex promote`",
                30
            ),
            [
                "without loss:",
                "interrex switchover --to beta.",
                "To take it all the same",
                "`interrex promote`"
            ]
        );
        assert_eq!(wrap("see interrex salvage --help", 12), ["see", "interrex salvage --help"]);
    }
}
