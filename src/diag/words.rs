//! Finds the known word that resembles an unknown one, quotes words for a shell, and removes control
//! and invisible characters from untrusted text.

/// Returns the `known` word that `word` most likely means: at most two letters differ, or the
/// beginnings are equal.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(Likeness, &str)> = None;
    for candidate in known {
        let Some(likeness) = Likeness::of(word, candidate) else {
            continue;
        };
        if best.as_ref().is_none_or(|(so_far, _)| likeness < *so_far) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Returns a help text for an unknown `word`: the likely word, or all known words.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    if let Some(meant) = closest(word, known.iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    format!("known here: {}", known.join(", "))
}

/// The similarity of two words; the least value is the most similar.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Likeness {
    /// The number of different letters: at most two, and less than half of the word.
    Typo(usize),
    /// Equal beginnings; the number of further letters of the longer word.
    Beginning(usize),
}

impl Likeness {
    /// Number of equal letters at the beginning that two similar words need.
    const BEGINNING: usize = 3;
    /// Maximum length of compared words: hostile text must not cost time.
    const MAX_LETTERS: usize = 64;

    fn of(word: &str, candidate: &str) -> Option<Self> {
        let letters = word.chars().take(Self::MAX_LETTERS + 1).count();
        if letters > Self::MAX_LETTERS || word.is_empty() {
            return None;
        }
        let longer = letters.max(candidate.chars().count());
        let distance = strsim::osa_distance(word, candidate);
        if distance <= 2 && distance * 2 < longer {
            return Some(Self::Typo(distance));
        }
        let pairs = word.chars().zip(candidate.chars());
        let shared = pairs.take_while(|(a, b)| a == b).count();
        (shared >= Self::BEGINNING).then(|| Self::Beginning(longer.saturating_sub(shared)))
    }
}

/// Quotes a text as one word of a POSIX shell. Control characters become `?`, because a terminal
/// would act on them.
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    let text: String = text.chars().map(shown).collect();
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Returns a text of others for a display, cut to `max_chars` characters: control and invisible
/// characters, with which the text could draw another answer on a terminal, are `?`.
pub fn clean(text: &str, max_chars: usize) -> String {
    let plain = |letter: char| if misleads(letter) { '?' } else { letter };
    cut(&text.chars().map(plain).collect::<String>(), max_chars)
}

/// Whether a character changes a display, or is invisible: controls, line and paragraph separators,
/// direction marks, zero-width characters, tags.
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

/// Truncates a text to `longest` characters; an ellipsis stands for the rest.
pub fn cut(text: &str, longest: usize) -> String {
    if text.chars().count() <= longest {
        return text.to_owned();
    }
    text.chars()
        .take(longest.saturating_sub(1))
        .chain(std::iter::once('…'))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_cannot_draw_on_the_terminal() {
        assert_eq!(clean("a\x1b[2Jb\r\n\u{202e}c", 20), "a?[2Jb???c");
        assert_eq!(clean("a\u{9b}2Jb\u{ad}\u{e0041}c", 20), "a?2Jb??c");
    }

    #[test]
    fn a_long_text_is_cut_visibly() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("äöü", 3), "äöü");
    }

    #[test]
    fn a_word_of_a_shell_is_quoted_where_it_has_to_be() {
        for (text, word) in [
            ("/etc/tidegate.toml", "/etc/tidegate.toml"),
            ("/my policy", "'/my policy'"),
            ("it's", r"'it'\''s'"),
            ("a\u{1b}b", "'a?b'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }

    const KEYS: [&str; 6] = [
        "flows",
        "flows-per-caller",
        "header-count",
        "header-size",
        "hosts",
        "idle",
    ];

    #[test]
    fn a_typo_is_taken_for_the_nearest_word() {
        assert_eq!(closest("host", KEYS), Some("hosts"));
        assert_eq!(closest("hsots", KEYS), Some("hosts"));
        assert_eq!(closest("flow", KEYS), Some("flows"));
        assert_eq!(closest("header-sise", KEYS), Some("header-size"));
    }

    #[test]
    fn a_word_that_begins_alike_is_taken_where_no_typo_explains_it() {
        assert_eq!(closest("header-co", KEYS), Some("header-count"));
        assert_eq!(
            closest("flows-for-each-caller", KEYS),
            Some("flows-per-caller")
        );
    }

    #[test]
    fn short_and_foreign_words_mean_nothing() {
        assert_eq!(closest("id", KEYS), None);
        assert_eq!(closest("", KEYS), None);
        assert_eq!(closest(&"h".repeat(10_000), KEYS), None);
        assert_eq!(did_you_mean("xyz", &["a", "b"]), "known here: `a`, `b`");
    }
}
