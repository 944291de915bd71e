//! Words: the known word that an unknown one was probably meant to be, and the words of a shell.

/// Which of `known` was most likely meant by `word`: at most two letters away, or else beginning
/// like it.
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

/// A help for an unknown `word`: the one that was meant, or all that are known.
pub fn did_you_mean(word: &str, known: &[&str]) -> String {
    if let Some(meant) = closest(word, known.iter().copied()) {
        return format!("did you mean `{meant}`?");
    }
    let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    format!("known here: {}", known.join(", "))
}

/// How alike two words are; the least is the most alike.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
enum Likeness {
    /// So many letters differ: at most two, and less than half of the word.
    Typo(usize),
    /// All but so many letters of the longer word begin both.
    Beginning(usize),
}

impl Likeness {
    /// Letters that two words must share at their beginning to be taken for the same.
    const BEGINNING: usize = 3;
    /// Longer words are not compared: hostile text must not cost time.
    const LONGEST: usize = 64;

    fn of(word: &str, candidate: &str) -> Option<Self> {
        let word: Vec<char> = word.chars().take(Self::LONGEST + 1).collect();
        let candidate: Vec<char> = candidate.chars().collect();
        if word.len() > Self::LONGEST || word.is_empty() {
            return None;
        }
        let distance = edit_distance(&word, &candidate);
        if distance <= 2 && distance * 2 < word.len().max(candidate.len()) {
            return Some(Self::Typo(distance));
        }
        let shared = word
            .iter()
            .zip(&candidate)
            .take_while(|(a, b)| a == b)
            .count();
        (shared >= Self::BEGINNING)
            .then(|| Self::Beginning(word.len().max(candidate.len()).saturating_sub(shared)))
    }
}

/// How many letters have to be put in, taken out, replaced or swapped with their neighbour.
fn edit_distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at = |cells: &[usize], column: usize| cells.get(column).copied().unwrap_or(i + j);
            let mut cost = at(&last, j) + usize::from(from != to);
            cost = cost.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(a.len())
}

/// A text as one word of a POSIX shell. Control characters become `?`: a terminal would act on them.
pub fn shell_word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    let shown = |c: char| if c.is_control() { '?' } else { c };
    let text: String = text.chars().map(shown).collect();
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_swap_counts_once() {
        let letters = |word: &str| word.chars().collect::<Vec<_>>();
        assert_eq!(edit_distance(&letters("idel"), &letters("idle")), 1);
        assert_eq!(edit_distance(&letters(""), &letters("ab")), 2);
        assert_eq!(edit_distance(&letters("kitten"), &letters("sitting")), 3);
    }
}
