//! Names and texts in SQL, and names that are none in UTF-8.

/// A text as a literal, for sessions with `standard_conforming_strings`.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as an identifier.
#[must_use]
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in libpq's connection string, in quotation marks if it needs them.
#[must_use]
pub fn conninfo_value(value: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/:,".contains(letter);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Hexadecimal digits of UTF-8.
const UTF8: &str = "^([0-7].|(c[2-9a-f]|d.)[89ab].|e0[ab].[89ab].|e[1-9a-cef]([89ab].){2}|ed[89].[89ab].\
    |f0[9ab].([89ab].){2}|f[1-3]([89ab].){3}|f48.([89ab].){2})*$";

/// The bytes of a text, in SQL, even if they are not text in the encoding of a session.
#[must_use]
pub fn bytes_of(text: &str) -> String {
    format!(
        "CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN convert_to({text}::text, 'SQL_ASCII') ELSE textsend({text}::text) END"
    )
}

/// A name of all databases, in SQL, as it can be shown: a name that is not UTF-8 has its bytes escaped, as in `caf\351`. The
/// server hands on the bytes as they are, for in its own database they could not have come to be.
#[must_use]
pub fn shown(name: &str) -> String {
    let bytes = bytes_of(name);
    format!(
        "CASE WHEN encode({bytes}, 'hex') ~ '{UTF8}' THEN {name}::text ELSE encode({bytes}, 'escape') END"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_one_value_whatever_is_in_it() {
        assert_eq!(conninfo_value("replicator"), "replicator");
        assert_eq!(conninfo_value("/var/lib/postgresql/.pgpass"), "/var/lib/postgresql/.pgpass");
        assert_eq!(conninfo_value(""), "''");
        assert_eq!(conninfo_value("x host=evil"), "'x host=evil'");
        assert_eq!(conninfo_value(r"it's \ here"), r"'it\'s \\ here'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
