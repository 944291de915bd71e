//! The exit codes.

use std::process::ExitCode;

/// The result of a command, as its exit code.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// 4: an operation outside the program failed (a file, a socket, another program).
    Failed,
    /// 1: a trial failed, a flow would not pass, a gate is not ready.
    No,
    /// 3: there is another way out than the proxy.
    NotContained,
    /// 2: the arguments or the configuration are wrong.
    Wrong,
    /// 0: success, or the answer is yes.
    Yes,
}

impl Answer {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Wrong => 2,
            Self::NotContained => 3,
            Self::Failed => 4,
        }
    }

    /// Returns `Yes` if `holds`, otherwise `No`.
    pub fn whether(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        Self::from(answer.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let codes = [
            (Answer::Yes, 0),
            (Answer::No, 1),
            (Answer::Wrong, 2),
            (Answer::NotContained, 3),
            (Answer::Failed, 4),
        ];
        for (answer, code) in codes {
            assert_eq!(answer.code(), code);
        }
    }
}
