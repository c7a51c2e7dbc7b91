//! The one place where an identifier or a text becomes part of an SQL statement.

/// `name` as a PostgreSQL identifier.
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as a PostgreSQL string constant, whatever `standard_conforming_strings` says.
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_gets_out_of_its_quotes() {
        assert_eq!(ident("share_a\"b"), "\"share_a\"\"b\"");
        assert_eq!(literal("l'Abbé"), "'l''Abbé'");
        assert_eq!(literal("a\\'b"), "E'a\\\\''b'");
    }
}
