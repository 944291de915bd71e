//! The form of a part of a command: a flag, an operator, the end of a quote.

use super::Expects;

/// Whether a part is a one-letter flag or a long flag.
pub(super) fn is_flag(part: &str) -> bool {
    part.len() > 2 && part.starts_with("--") || part.len() == 2 && part.starts_with('-')
}

/// Whether a part separates the commands of a script.
pub(super) fn is_operator(part: &str) -> bool {
    matches!(
        part,
        "|" | "||" | "&&" | ";" | "&" | "|&" | "(" | "{" | "then" | "do"
    )
}

/// Whether a part ends with a quote that is not escaped.
pub(super) fn ends_with_quote(part: &str, quote: char) -> bool {
    let part = part.trim_end_matches([';', ')', '&', '|']);
    part.ends_with(quote) && !part.ends_with(&format!("\\{quote}"))
}

/// Whether a part closes a quote or a bracket.
pub(super) fn closes(part: &str) -> bool {
    part.trim_end_matches([';', ',', '}', ']', '|', '&'])
        .ends_with(['\'', '"', ')', '`'])
        || part.ends_with(['}', ']'])
}

/// Input within the command: `<<END` up to END, `<<<WORD`.
pub(super) fn heredoc(part: &str) -> Option<Expects> {
    let (_, after) = part.split_once("<<")?;
    if let Some(word) = after.strip_prefix('<') {
        return word.is_empty().then_some(Expects::Secret);
    }
    let end = after
        .trim_start_matches('-')
        .trim_matches(['\'', '"', '\\']);
    Some(Expects::Until(end.to_owned()))
}
