//! How to write a policy, and how a decision comes about.
//!
//! **The floor, then an exception, then deny, then ask, then allow, then the tier's default: the
//! first that matches decides.** How specific a rule is never matters to the verdict: a deny is
//! final for what it names, however broad. Among several rules of the winning kind the record
//! names the one with the most specific host.
//!
//! - The **floor** cannot be configured away: malformed targets, metadata and link-local
//!   addresses, the gate's own listeners, and private addresses unless the deciding rule names
//!   them in `addresses`. It holds in `observe` mode too.
//! - The **tier** of a caller is the strictest of its repository's tier, the floors of its groups
//!   and the tier of the listener; without a repository, `tiers.unattributed`. Several
//!   `[[repository]]` patterns that match: the strictest.
//! - The **category** says what a host is for: a rule with `category` and `hosts`, else the
//!   built-in catalogue by path (where the path is seen) or by host, else `unknown`. Only a tier or
//!   a rule says whether it may be reached.
//! - The **action** (`read`, `write`, `call`) is seen in plain HTTP only. A tunnel is *opaque*: a
//!   deny or ask that names an action, methods or paths never matches it; an allow that does
//!   matches only where the tier says `opaque = "allow"`, and the record then says
//!   `tidegate.action = "any"`.
//! - **Ports**: none means 443 for CONNECT and 80 for plain HTTP in an allow or ask, every port in a
//!   deny.
//! - `raw = true` lets bytes that are not TLS pass in a CONNECT; `upgrade = true` lets a plain or
//!   inspected request become another protocol (WebSocket).
//!
//! What a tunnel does after its `ClientHello` is not seen: a host behind a shared front (a CDN) may be
//! asked for another of its tenants inside TLS, and whoever may reach a forge may push with a stolen
//! credential. Name hosts exactly, and nothing where anybody can get a name; `tidegate check` warns
//! of those.
//!
//! Each rule shows by example what it does (`allows`, `denies`); `[[trial]]`s assert the verdict
//! and the rule behind it. Both run at every load: a policy whose examples fail does not load.
//! An `https://` example is judged as what the gate sees of it: an opaque CONNECT.
//!
//! An `ask` is refused with `needs_approval` for now; approvals are not part of this version.
