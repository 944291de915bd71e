//! The syntax of `NAME=value` in shells and env files.

/// A supported shell.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(super) enum Shell {
    /// GNU bash, dash and other shells in the manner of POSIX.
    Bash,
    /// fish.
    Fish,
    /// PowerShell.
    #[value(name = "powershell")]
    Power,
    /// zsh.
    Zsh,
}

impl Shell {
    /// Returns the statement that sets and exports a variable. Every value stays one word: in each
    /// of these shells a quoted text ends only at its closing quote.
    pub(super) fn export(self, name: &str, value: &str) -> String {
        match self {
            Self::Bash | Self::Zsh => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Fish => {
                let value = value.replace('\\', r"\\").replace('\'', r"\'");
                format!("set -gx {name} '{value}'")
            }
            Self::Power => {
                // PowerShell also accepts typographic quotes.
                let doubled = |letter: char| match letter {
                    '\'' | '\u{2018}'..='\u{201b}' => [Some(letter); 2],
                    _ => [Some(letter), None],
                };
                let value: String = value.chars().flat_map(doubled).flatten().collect();
                format!("$env:{name} = '{value}'")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_shell_has_its_own_quotes() {
        let value = "a'b\\c $(x) `y` \"z\"";
        let lines = [
            (Shell::Bash, r#"export N='a'\''b\c $(x) `y` "z"'"#),
            (Shell::Zsh, r#"export N='a'\''b\c $(x) `y` "z"'"#),
            (Shell::Fish, r#"set -gx N 'a\'b\\c $(x) `y` "z"'"#),
            (Shell::Power, r#"$env:N = 'a''b\c $(x) `y` "z"'"#),
        ];
        for (shell, line) in lines {
            assert_eq!(shell.export("N", value), line);
        }
        assert_eq!(
            Shell::Power.export("N", "\u{2019}"),
            "$env:N = '\u{2019}\u{2019}'"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_shell_reads_back_every_value(value in "[ -~\n]{0,30}") {
            let script = format!("{}\nprintf %s \"$N\"", Shell::Bash.export("N", &value));
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), value);
        }
    }
}
