//! Search keys: how a name is written down so that it is found again.
//!
//! A *name key* is a name without accents, case, hyphens, apostrophes and spaces, `Saint`/`Sainte` as `st`/`ste`:
//! `D'Amours`, `d amours` and `DAMOURS` are one. A *sound key* is what Double Metaphone makes of a word, after the silent
//! endings of French are folded, so that `Thibault` and `Thibeau` sound alike.
//!
//! Stored: [`name_keys`] and [`sounds`] of each name of a file (more keys than a query needs). Asked: [`query`], whose
//! keys must **all** be held. So `Marc Tremblay` finds those who are both, and `Pierre` also finds `St-Pierre`.
//! A whole name as one key ([`normalise_name`]) is stored too, in either order of surname and given names.

use rphonetic::DoubleMetaphone;
use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Longest Double Metaphone code: longer names are told apart, shorter misspellings are not.
const CODE_LENGTH: usize = 6;

/// Longest key, in characters: no name of a person is longer, and what an extract got wrong must not be more than an
/// index entry holds (2,046 bytes). A query's keys are cut alike, so they still begin what they would have begun.
const KEY_LENGTH: usize = 255;

/// Particles that are not searched alone.
const PARTICLES: &[&str] =
    &["de", "du", "des", "la", "le", "les", "d", "l", "van", "von", "der", "den", "al", "el", "st", "ste"];

/// What a query asks for; a file is found by name when it has all `names`, by sound when it has all `sounds`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// One name key a word.
    pub names: Vec<String>,
    /// One sound key a word.
    pub sounds: Vec<String>,
}

/// The words of a name: unaccented, lower case, letters and digits only; `saint` and `sainte` joined to what follows.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    for c in name.nfkd().filter(|c| !is_combining_mark(*c)).flat_map(char::to_lowercase) {
        let Some(word) = words.last_mut() else { continue };
        match c {
            'œ' => word.push_str("oe"),
            'æ' => word.push_str("ae"),
            'ß' => word.push_str("ss"),
            'ø' => word.push('o'),
            'ł' => word.push('l'),
            'đ' | 'ð' => word.push('d'),
            'þ' => word.push_str("th"),
            'ı' => word.push('i'),
            c if c.is_alphanumeric() => word.push(c),
            // An apostrophe, a full stop or a glottal stop does not end a word: O'Brien, St. Pierre, T'Seleie.
            '\'' | '\u{2019}' | '\u{2018}' | '\u{2bc}' | '`' | '.' => {}
            _ => words.push(String::new()),
        }
    }
    let mut joined: Vec<String> = Vec::new();
    let mut saint: Option<&str> = None;
    for word in words.iter().filter(|word| !word.is_empty()) {
        match (saint.take(), word.as_str()) {
            (None, "saint" | "st") => saint = Some("st"),
            (None, "sainte" | "ste") => saint = Some("ste"),
            (Some(prefix), word) => joined.push(format!("{prefix}{word}")),
            (None, word) => joined.push(glued_saint(word)),
        }
    }
    joined.extend(saint.map(str::to_owned));
    joined
}

/// `saintpierre`, written as one word, is `stpierre`.
fn glued_saint(word: &str) -> String {
    for (long, short) in [("sainte", "ste"), ("saint", "st")] {
        if let Some(rest) = word.strip_prefix(long)
            && rest.len() >= 4
        {
            return format!("{short}{rest}");
        }
    }
    word.to_owned()
}

/// The name key of a whole name. Empty if there is no letter or digit in it.
pub fn normalise_name(name: &str) -> String {
    words(name).concat()
}

/// Every name key of one name, to be stored: the whole, each word, and what follows a particle.
pub fn name_keys(name: &str) -> Vec<String> {
    let words = words(name);
    let mut keys: Vec<String> = Vec::new();
    for start in 0..words.len() {
        keys.push(words[start..].concat());
        if !PARTICLES.contains(&words[start].as_str()) {
            keys.push(words[start].clone());
        }
        if let Some(bare) = without_saint(&words[start]) {
            keys.push(bare.to_owned());
        }
    }
    tidy(keys)
}

/// `pierre` of `stpierre`, as [`words`] joins it.
fn without_saint(word: &str) -> Option<&str> {
    let rest = word.strip_prefix("ste").or_else(|| word.strip_prefix("st"))?;
    (rest.len() >= 4).then_some(rest)
}

/// Every sound key of one name, to be stored: of each of its [`name_keys`], both readings of Double Metaphone.
pub fn sounds(name: &str) -> Vec<String> {
    let metaphone = DoubleMetaphone::new(Some(CODE_LENGTH));
    let mut keys = Vec::new();
    for key in name_keys(name) {
        let code = metaphone.double_metaphone(&fold_endings(&key));
        keys.push(code.primary());
        keys.push(code.alternate());
    }
    tidy(keys)
}

/// What somebody asked for, as keys; particles are joined to what follows them.
pub fn query(name: &str) -> Query {
    let metaphone = DoubleMetaphone::new(Some(CODE_LENGTH));
    let mut names = Vec::new();
    let mut prefix = String::new();
    for word in words(name) {
        prefix.push_str(&word);
        if !PARTICLES.contains(&word.as_str()) {
            names.push(std::mem::take(&mut prefix));
        }
    }
    if !prefix.is_empty() {
        names.push(prefix);
    }
    let sounds = names.iter().map(|key| metaphone.double_metaphone(&fold_endings(key)).primary()).collect();
    Query { names: tidy(names), sounds: tidy(sounds) }
}

/// Silent endings of French family names, all written `o`: Thibault, Thibeau, Arsenault, Arseneaux.
fn fold_endings(word: &str) -> String {
    for ending in ["eaults", "eault", "aults", "ault", "eaux", "eau", "auds", "aud", "aux", "aut", "ots", "ot"] {
        if let Some(stem) = word.strip_suffix(ending)
            && stem.len() >= 2
        {
            return format!("{stem}o");
        }
    }
    word.to_owned()
}

/// In order, each once, none empty and none too long.
fn tidy(mut keys: Vec<String>) -> Vec<String> {
    keys.retain(|key| !key.is_empty());
    for key in &mut keys {
        if let Some((end, _)) = key.char_indices().nth(KEY_LENGTH) {
            key.truncate(end);
        }
    }
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writings_of_one_name_are_one_key() {
        for (a, b) in [
            ("D'Amours", "damours"),
            ("D\u{2019}Amours", "D AMOURS"),
            ("Jean-Sébastien", "jean sebastien"),
            ("Saint-Pierre", "St. Pierre"),
            ("Saintpierre", "St-Pierre"),
            ("Sainte-Marie", "Ste Marie"),
            ("O'Brien", "OBrien"),
            ("Lefrançois", "LEFRANCOIS"),
            ("Nuñez", "nunez"),
            ("Bjørn", "Bjorn"),
            ("Kwìkwèxwelhp", "kwikwexwelhp"),
        ] {
            assert_eq!(normalise_name(a), normalise_name(b), "{a} {b}");
        }
        assert_eq!(normalise_name(" - "), "");
    }

    fn found(stored: &[&str], asked: &str) -> (bool, bool) {
        let names: Vec<String> = stored.iter().flat_map(|n| name_keys(n)).collect();
        let sounds: Vec<String> = stored.iter().flat_map(|n| sounds(n)).collect();
        let q = query(asked);
        (q.names.iter().all(|k| names.contains(k)), q.sounds.iter().all(|k| sounds.contains(k)))
    }

    #[test]
    fn a_query_finds_by_any_writing() {
        assert_eq!(found(&["St-Pierre", "Marc"], "saint pierre"), (true, true));
        assert_eq!(found(&["St-Pierre", "Marc"], "Pierre"), (true, true));
        assert_eq!(found(&["Tremblay-Gagnon", "Marc-André"], "marc andre tremblay"), (true, true));
        assert_eq!(found(&["Tremblay-Gagnon", "Marc-André"], "Marcandré Gagnon"), (true, true));
        assert_eq!(found(&["De la Durantaye", "Luc"], "durantaye"), (true, true));
        assert_eq!(found(&["De la Durantaye", "Luc"], "luc de la durantaye"), (true, true));
        assert_eq!(found(&["Eagle Speaker", "Rose"], "eaglespeaker"), (true, true));
        assert_eq!(found(&["Tremblay", "Marc"], "Marc Gagnon"), (false, false));
    }

    #[test]
    fn a_key_is_never_longer_than_an_index_holds() {
        let name = "É\u{20d0}".repeat(5_000) + " \u{20000}".repeat(4_000).as_str();
        let keys = name_keys(&name);
        assert!(keys.iter().all(|key| key.chars().count() <= KEY_LENGTH && key.len() <= 2_046));
        assert!(query(&name).names.iter().all(|asked| keys.iter().any(|key| key.starts_with(asked.as_str()))));
    }

    #[test]
    fn alike_sounds_are_found() {
        for (stored, asked) in [
            ("Thibault", "Thibeau"),
            ("Tremblay", "Tremblai"),
            ("Arsenault", "Arseneaux"),
            ("MacDonald", "McDonald"),
            ("Smith", "Smyth"),
            ("Stephen", "Steven"),
        ] {
            assert!(found(&[stored], asked).1, "{stored} {asked}: {:?} {:?}", sounds(stored), query(asked));
        }
    }
}
