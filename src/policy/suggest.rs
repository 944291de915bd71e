//! What somebody may have meant.

/// The word of `known` that is nearest to `word`, where one is near enough to be a slip of the pen.
pub fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements between two words; case does not count.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, from) in left.to_lowercase().chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        if let Some(first) = row.first_mut() {
            *first = before;
        }
        for (cell, to) in row.iter_mut().skip(1).zip(&right) {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = *cell;
            before = replaced.min(before + 1).min(*cell + 1);
            *cell = before;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_found() {
        let known = ["open", "standard", "restricted"];
        assert_eq!(suggest("standart", known), Some("standard"));
        assert_eq!(suggest("Restricted", known), Some("restricted"));
        assert_eq!(suggest("oepn", known), None);
        assert_eq!(suggest("opn", known), Some("open"));
    }

    #[test]
    fn what_is_not_near_is_not_suggested() {
        assert_eq!(
            suggest("paranoid", ["open", "standard", "restricted"]),
            None
        );
        assert_eq!(suggest("", ["open"]), None);
    }

    #[test]
    fn distances_are_those_of_levenshtein() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
