//! Whether callers of a gate run as a different user than the gate.

use rustix::process::geteuid;

use crate::policy::is_service_user;

/// The strength of the policy against its callers, by the user that runs the gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// The user is root or a service's: callers are other users.
    Wall,
    /// The user is a person: the processes of that user can change the policy.
    Advice(u32),
}

impl Standing {
    /// The standing of the user of this process.
    pub fn of_this_process() -> Self {
        Self::of(geteuid().as_raw())
    }

    fn of(user: u32) -> Self {
        if is_service_user(user) {
            Self::Wall
        } else {
            Self::Advice(user)
        }
    }

    /// Why the policy is advice; `None` where it is not.
    pub fn why_advice(self) -> Option<String> {
        match self {
            Self::Wall => None,
            Self::Advice(user) => Some(format!(
                "user {user} runs the gate: each process of that user can change the policy"
            )),
        }
    }
}

/// The two ways to make the policy a wall, as commands.
pub const WALLS: [(&str, &str); 2] = [
    ("for one command", "tidegate exec --jail -- COMMAND"),
    (
        "for every caller",
        "sudo systemctl enable --now tidegate.socket tidegate.service",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_of_services_are_not_those_of_people() {
        for service in [0, 1, 999, 61_184, 65_519, 65_532, 65_534] {
            assert_eq!(Standing::of(service), Standing::Wall, "{service}");
        }
        for person in [1000, 1001, 61_183, 65_520, 65_531, 65_535, 100_000] {
            assert_eq!(Standing::of(person), Standing::Advice(person), "{person}");
        }
    }
}
