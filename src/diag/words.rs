//! The known word that is most like an unknown one.

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

#[cfg(test)]
mod tests {
    use super::*;

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
