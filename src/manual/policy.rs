//! How to write a policy, and how the gate decides.
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
//! - The **category** is the purpose of a host: a rule with `category` and `hosts`, else the
//!   built-in catalogue by path (where the path is seen) or by host, else `unknown`. Only a tier or
//!   a rule says whether it may be reached.
//! - The **action** (`read`, `write`, `call`) is seen in plain HTTP and where TLS is inspected. Any
//!   other tunnel is *opaque*: a deny or ask rule with a condition on the request never matches it. An
//!   allow rule with such a condition matches only where the tier says `opaque = "allow"`, and the
//!   record then has `tidegate.action = "any"`. Where TLS is inspected, the CONNECT passes if a request
//!   could pass, and then each request is decided in the same order.
//! - **Ports**: a rule without `ports` means 443 for CONNECT and 80 for plain HTTP in an allow or ask,
//!   and every port in a deny.
//! - `raw = true` lets bytes that are not TLS pass in a CONNECT; `upgrade = true` lets a plain or
//!   inspected request become another protocol (WebSocket).
//!
//! # Conditions of a rule on a request
//!
//! All conditions of a rule have to hold; of a list, one entry. No condition changes the order of a
//! decision.
//!
//! | key | holds where |
//! |---|---|
//! | `methods` | the method is one of these; `GET` stands for `HEAD` too |
//! | `paths` | the path is one of these; `*` is one segment, a `**` at the end the rest |
//! | `actions` | the request reads, writes or calls |
//! | `operations` | the request is one of these operations of its service, e.g. `push`; `*` is any run of characters ([`actions`]) |
//! | `repositories` | the request names a repository there, e.g. `acme/*`; `*` within a segment, `**` across |
//! | `packages` | the request names a package there, e.g. `@acme/*` |
//! | `refs` | each ref that a push changes is one of these: branches, unless they begin with `refs/` |
//! | `servers` | the request goes to that `[mcp.NAME]`; this sets hosts, ports, category and `inspect`, too ([`mcp`]) |
//! | `tools` | the message calls a tool of `allow`; a tool of `deny` is refused whatever other rules allow |
//! | `mcp-methods` | the message has that method |
//! | `credentials` | the request presents only these, by keyed hash; where every other condition holds, the refusal is `credential_denied` ([`credentials`]) |
//!
//! Other keys of a rule:
//!
//! | key | meaning |
//! |---|---|
//! | `inspect` | whether TLS is ended there; the rule with the most specific host decides ([`interception`]) |
//! | `service` | the service of the hosts, where the catalogue does not list them |
//! | `upstream` | the `[upstream.NAME]` for TLS with the destination ([`upstreams`]) |
//! | `min-age` | how old a version of a package has to be, where its registry tells |
//!
//! `tidegate check` warns of a condition that the gate cannot see (`unseen`). Examples may
//! say `CLONE URL`, `PUSH URL REF` and `TOOL URL NAME`.
//!
//! [`actions`]: super::actions
//! [`credentials`]: super::credentials
//! [`interception`]: super::interception
//! [`mcp`]: super::mcp
//! [`upstreams`]: super::upstreams
//!
//! # What is not seen
//!
//! What an opaque tunnel does after its `ClientHello` is not seen: a host behind a shared front (a CDN)
//! may be asked for another of its tenants inside TLS, and a client that may reach a forge may push
//! with a stolen credential. Name hosts exactly, and no domain in which anyone can register a name;
//! `tidegate check` warns of those. Or inspect the host, and allow only certain requests.
//!
//! # A name behind the name
//!
//! With an encrypted client hello (ECH, RFC 9849) the name that the gate reads is an outer one, and the
//! true name is readable only for the server that holds the key. Every `ClientHello` with that extension
//! (`0xfe0d`, or `0xffce` of the drafts) is on record: `tidegate.tls.ech`, on the `close` line.
//!
//! `ech = "deny"` in a tier closes such tunnels (`ech_denied`); the built-in policy says so in
//! `restricted`. Elsewhere the default is `allow`, since the extension alone proves nothing: browsers
//! send a random one (GREASE) on every connection, and only its receiver can tell that from a real
//! one, by design. So `ech = "deny"` refuses browsers as well, until ECH is off there:
//!
//! | client | how |
//! |---|---|
//! | Chrome, Edge | the policy `EncryptedClientHelloEnabled` = `false` |
//! | Firefox | `network.dns.echconfig.enabled` and `security.tls.ech.grease_probability` = `0` |
//! | curl, Go, rustls, OpenSSL | send none unless told to |
//!
//! Where TLS is inspected, the gate is the server and has no ECH key: it ignores the extension and
//! never uses the inner name, and `ech` does not apply. `ech` does not apply to `raw = true` either,
//! where the gate reads no hello. A second `ClientHello`, after a `HelloRetryRequest`, is not looked at
//! in an opaque tunnel: an origin that works with the client against the policy can agree on another
//! name there, as on anything else inside. Inspect where that matters.
//!
//! # Examples
//!
//! Each rule shows by example what it does (`allows`, `denies`); `[[trial]]`s assert the verdict
//! and the rule behind it. Both run at every load: a policy whose examples fail does not load.
//! An `https://` example is judged as what the gate sees of it: an opaque CONNECT or, where TLS is
//! inspected, the CONNECT and then the request.
//!
//! An `ask` is refused with `needs_approval` for now; approvals are not part of this version.
