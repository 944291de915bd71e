//! The canonical spelling of repositories and packages, and the names in file names.

/// How package names of a service are compared.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum PackageForm {
    #[default]
    AsWritten,
    /// Lower case, and `-` for any run of `-`, `_` and `.` (PEP 503).
    Python,
    /// `org/example/lib` is `org.example:lib`.
    Maven,
    /// `!c` is `C` (the escape of Go's module proxy).
    Go,
}

impl PackageForm {
    pub(super) const ALL: [(&'static str, Self); 3] = [
        ("go", Self::Go),
        ("maven", Self::Maven),
        ("python", Self::Python),
    ];

    pub(super) fn canonical(self, name: &str) -> Box<str> {
        match self {
            Self::AsWritten => name.into(),
            Self::Python => python(name).into(),
            Self::Maven => match name.rsplit_once('/') {
                Some((group, artifact)) => format!("{}:{artifact}", group.replace('/', ".")).into(),
                None => name.into(),
            },
            Self::Go => go(name).into(),
        }
    }
}

/// How a service puts package and version into a file name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum FileForm {
    #[default]
    None,
    /// Wheels, source distributions and eggs, also with `.metadata`.
    Python,
    /// `name-version.gem`, `name-version-platform.gem`.
    Gem,
    /// `name-version.tar`.
    Hex,
    /// `name@version`.
    At,
}

impl FileForm {
    pub(super) const ALL: [(&'static str, Self); 4] = [
        ("at", Self::At),
        ("gem", Self::Gem),
        ("hex", Self::Hex),
        ("python", Self::Python),
    ];

    /// Returns package and version of a file; `None` if the name is ambiguous.
    pub(super) fn split(self, file: &str) -> Option<(Box<str>, Box<str>)> {
        match self {
            Self::None => None,
            Self::Python => split_python(file),
            Self::Gem => {
                let stem = file
                    .strip_suffix(".gem")
                    .or(file.strip_suffix(".gemspec.rz"))?;
                split_at_version(stem)
            }
            Self::At => {
                let (name, version) = file.rsplit_once('@').filter(|(name, _)| !name.is_empty())?;
                Some((name.into(), version.into()))
            }
            Self::Hex => {
                let (name, version) = file.strip_suffix(".tar")?.split_once('-')?;
                Some((name.into(), version.into()))
            }
        }
    }
}

/// Returns a repository without `.git` and with single slashes: forges accept either spelling.
pub(super) fn repository(text: &str) -> Box<str> {
    let segments: Vec<&str> = text.split('/').filter(|it| !it.is_empty()).collect();
    let text = segments.join("/");
    text.strip_suffix(".git").unwrap_or(&text).into()
}

fn python(name: &str) -> String {
    let mut canonical = String::with_capacity(name.len());
    for character in name.chars() {
        match character {
            '-' | '_' | '.' if canonical.ends_with('-') => {}
            '-' | '_' | '.' => canonical.push('-'),
            _ => canonical.push(character.to_ascii_lowercase()),
        }
    }
    canonical
}

fn go(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut raised = false;
    for character in name.chars() {
        match character {
            '!' => raised = true,
            _ if raised => {
                plain.push(character.to_ascii_uppercase());
                raised = false;
            }
            _ => plain.push(character),
        }
    }
    plain
}

fn split_python(file: &str) -> Option<(Box<str>, Box<str>)> {
    let file = file.strip_suffix(".metadata").unwrap_or(file);
    let file = file.strip_suffix(".asc").unwrap_or(file);
    if let Some(stem) = file.strip_suffix(".whl") {
        // In a wheel, name and version contain no `-`; a build number may follow them.
        let parts: Vec<&str> = stem.split('-').collect();
        return match parts.as_slice() {
            [name, version, _, _, _] | [name, version, _, _, _, _] => {
                Some(((*name).into(), (*version).into()))
            }
            _ => None,
        };
    }
    let ends = [".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz"];
    let stem = ends.iter().find_map(|end| file.strip_suffix(end))?;
    split_at_version(stem)
}

/// Splits before the version, which begins with a digit after a `-`; only if there is one such
/// position, because `a-1-2` may be version `2` of `a-1`.
fn split_at_version(stem: &str) -> Option<(Box<str>, Box<str>)> {
    let mut places = stem
        .match_indices('-')
        .filter(|(at, _)| stem.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit));
    let (at, _) = places.next()?;
    if places.next().is_some() || at == 0 {
        return None;
    }
    let (name, rest) = (stem.get(..at)?, stem.get(at + 1..)?);
    // A platform follows the version of a gem.
    let version = rest.split('-').next().unwrap_or(rest);
    Some((name.into(), version.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_python_names_its_package() {
        for (file, expected) in [
            (
                "requests-2.34.2-py3-none-any.whl",
                Some(("requests", "2.34.2")),
            ),
            (
                "ruamel_yaml-0.18-1-py3-none-any.whl",
                Some(("ruamel_yaml", "0.18")),
            ),
            (
                "requests-2.34.2-py3-none-any.whl.metadata",
                Some(("requests", "2.34.2")),
            ),
            ("azure-core-1.30.0.tar.gz", Some(("azure-core", "1.30.0"))),
            ("a-1-2.tar.gz", None),
            ("-1.tar.gz", None),
            ("requests.whl", None),
            ("x-1.0.exe", None),
        ] {
            let expected = expected.map(|(name, version)| (Box::from(name), Box::from(version)));
            assert_eq!(FileForm::Python.split(file), expected, "{file}");
        }
    }

    #[test]
    fn a_gem_names_its_package_where_it_can_be_read_in_one_way() {
        for (file, expected) in [
            ("rails-7.1.0.gem", Some(("rails", "7.1.0"))),
            (
                "nokogiri-1.16.0-x86_64-linux.gem",
                Some(("nokogiri", "1.16.0")),
            ),
            ("aws-sdk-s3-1.150.0.gem", Some(("aws-sdk-s3", "1.150.0"))),
            ("good-2evil-1.0.gem", None),
        ] {
            let expected = expected.map(|(name, version)| (Box::from(name), Box::from(version)));
            assert_eq!(FileForm::Gem.split(file), expected, "{file}");
        }
    }

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(&*PackageForm::Python.canonical("Foo_.Bar"), "foo-bar");
        assert_eq!(
            &*PackageForm::Maven.canonical("org/example/lib"),
            "org.example:lib"
        );
        assert_eq!(
            &*PackageForm::Go.canonical("github.com/!burnt!sushi/toml"),
            "github.com/BurntSushi/toml"
        );
        assert_eq!(&*repository("acme/app.git"), "acme/app");
        assert_eq!(&*repository("acme//app.git/"), "acme/app");
        let split = FileForm::At.split("@acme/ui@1.0.0").unwrap();
        assert_eq!((&*split.0, &*split.1), ("@acme/ui", "1.0.0"));
        assert_eq!(FileForm::At.split("@acme"), None);
    }
}
