//! Reads the clone URL from a repository's configuration (`git-config(1)`).
//!
//! Includes and `url.*.insteadOf` are ignored: the URL in the file itself identifies the
//! repository.

/// Maximum number of remotes of one repository that are read.
const MAX_REMOTES: usize = 256;

/// Returns the URL of `origin`, or of the only remote if there is no `origin`. `None` if the file
/// has more than [`MAX_REMOTES`].
pub(super) fn url(config: &str) -> Option<String> {
    let mut remotes: Vec<(String, String)> = Vec::new();
    let mut section = None;
    for line in config.lines().map(str::trim) {
        if line.starts_with('[') {
            section = remote(line);
        } else if let Some(name) = &section
            && let Some((key, value)) = line.split_once('=')
            && key.trim().eq_ignore_ascii_case("url")
            && !remotes.iter().any(|(known, _)| known == name)
        {
            if remotes.len() >= MAX_REMOTES {
                return None;
            }
            remotes.push((name.clone(), plain(value)));
        }
    }
    let only = remotes.len() == 1;
    let mut remotes = remotes.into_iter();
    remotes
        .find(|(name, _)| only || name == "origin")
        .map(|(_, url)| url)
}

/// Returns the name in `[remote "NAME"]`.
fn remote(line: &str) -> Option<String> {
    let inside = line.strip_prefix('[')?.split(']').next()?.trim();
    let (section, name) = inside.split_once('"')?;
    let name = name.strip_suffix('"')?;
    (section.trim().eq_ignore_ascii_case("remote")).then(|| name.to_owned())
}

/// Returns a value without its quotes and without a comment after it.
fn plain(value: &str) -> String {
    let value = value.trim();
    let quoted = value.strip_prefix('"');
    if let Some((inside, _)) = quoted.and_then(|rest| rest.split_once('"')) {
        return inside.to_owned();
    }
    let end = value.find([';', '#']).unwrap_or(value.len());
    value.split_at(end).0.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_is_preferred_and_an_only_remote_is_taken() {
        let two = "[core]\n\tbare = false\n[remote \"fork\"]\n\turl = a:b/c\n\
                   [Remote \"origin\"]\n URL = \"https://x.example/a/b\" ; here\n\tfetch = +x\n";
        assert_eq!(url(two).as_deref(), Some("https://x.example/a/b"));
        let one = "[remote \"up\"]\nurl=ssh://git@x.example/a/b # here\n";
        assert_eq!(url(one).as_deref(), Some("ssh://git@x.example/a/b"));
        let most = (0..=MAX_REMOTES).map(|at| format!("[remote \"{at}\"]\nurl=x.example/a/b\n"));
        let most = most.collect::<String>() + "[remote \"origin\"]\nurl=x.example/a/b\n";
        assert_eq!(url(&most), None);
        let none = "[remote \"a\"]\nurl=x\n[remote \"b\"]\nurl=y\n[branch \"m\"]\nurl=z\n";
        assert_eq!(url(none), None);
    }
}
