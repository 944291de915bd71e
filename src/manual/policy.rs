//! How to write a policy, and how the gate decides.
//!
//! **The floor, then deny, then ask, then allow, then the tier's own word (its ask list, its allow
//! list, its default): the first that matches decides.** A tier's deny list is a deny like any other.
//! How specific a rule is never matters to the verdict: a deny is final for what it names, however
//! broad. Among several rules of the winning kind the record names the one with the most specific host.
//!
//! - The **floor** cannot be configured away: malformed targets, metadata and link-local addresses, the
//!   gate's own listeners, and private addresses unless an allow grants them (`grant.addresses`). It
//!   holds in `observe` mode too. Where an allow for this caller and destination grants a private
//!   address, a refusal tells the rules' own reason (a port, a method), not `address_denied`.
//! - The **tier** of a caller is the strictest of its repository's tier, the floors of its groups
//!   and the tier of the listener; without a repository, `tiers.unattributed`. Several
//!   `[[repository]]` patterns that match: the strictest.
//! - The **category** is the purpose of a host: the most specific `[[destination]]`, else the
//!   built-in catalogue by path (where the path is seen) or by host, else `unknown`. Rules select by
//!   category and never change it. Only a tier or a rule says whether a host may be reached.
//! - The **action** (`read`, `write`, `call`) is seen in plain HTTP and where TLS is inspected. Any
//!   other tunnel is *opaque*: a deny or ask with `does` never matches it. An allow with `does` matches
//!   only where the tier says `opaque = "allow"`, and the record then has `tidegate.action = "any"`.
//!   Where TLS is inspected, the CONNECT passes if a request could pass, and then each request is
//!   decided in the same order.
//! - **Ports**: a deny without `to.ports` is for every port. An allow or ask without them is for the
//!   ports of the destination; where it has none, 443. Plain HTTP on port 80 passes where a rule names
//!   the host, or where the destination has `ports = [80]`.
//!
//! # A rule
//!
//! ```toml
//! [[rule]]
//! id      = "agents-push-to-their-branches"
//! verdict = "allow"
//! from.tiers        = ["standard"]
//! to.hosts          = ["github.com"]
//! does.operations   = ["push"]
//! does.repositories = ["acme/*"]
//! does.refs         = ["agent/**"]
//! grant.inspect     = true
//! reason            = "agents propose on branches of their own"
//! allows = ["PUSH https://github.com/acme/app agent/x"]
//! denies = ["PUSH https://github.com/acme/app main"]
//! ```
//!
//! All keys of a rule have to hold; of a list, one entry. A key that is not written always holds.
//!
//! | key | holds where |
//! |---|---|
//! | `from.tiers`, `from.groups` | the caller is in one of these tiers, in one of these groups |
//! | `from.repositories` | the caller's own verified repository is one of these, as `match` of `[[repository]]`. A repository that the caller only claims counts for a deny or ask |
//! | `from.subjects` | the verified user is one of these; `*` at either end |
//! | `to.hosts` | the host is one of these names or addresses, below `*.suffix`, or in a network. A deny of a network also denies names that resolve into it |
//! | `to.categories`, `to.ports` | the destination is for one of these, on one of these ports |
//! | `does.methods` | the method is one of these; `GET` stands for `HEAD` too |
//! | `does.paths` | the path is one of these; `*` is one segment, a `**` at the end the rest |
//! | `does.actions` | the request reads, writes or calls |
//! | `does.operations` | the request is one of these operations of its service, e.g. `push`; `*` is any run of characters ([`actions`]) |
//! | `does.repositories` | the request names a repository there, e.g. `acme/*`; `*` within a segment, `**` across |
//! | `does.packages` | the request names a package there, e.g. `@acme/*` |
//! | `does.refs` | each ref that a push changes is one of these: branches, unless they begin with `refs/` |
//! | `does.servers` | the request goes to that `[mcp.NAME]`; this sets hosts, ports and `grant.inspect`, too ([`mcp`]) |
//! | `does.tools` | the message calls one of these tools |
//! | `does.mcp-methods` | the message has that method |
//!
//! An allow holds of the request exactly as it is forwarded. A deny or an ask holds of every spelling
//! that some server takes for the same: letters of either case, a slash at the end, `;parameters`,
//! doubled slashes, `%2F`. A path that an allow covers as written, but not as some server reads it,
//! is refused (`bad_path`).
//!
//! | key of an allow | what it grants |
//! |---|---|
//! | `grant.addresses` | private networks that it may reach |
//! | `grant.raw` | bytes that are not TLS in a CONNECT |
//! | `grant.upgrade` | another protocol in a plain or inspected request (WebSocket) |
//! | `grant.inspect` | TLS is ended there, or (`false`) passed through; the rule with the most specific host decides ([`interception`]) |
//! | `grant.upstream` | the `[upstream.NAME]` for TLS with the destination ([`upstreams`]) |
//!
//! | key of a deny | where it does not match |
//! |---|---|
//! | `unless.min-age` | the version of the package was published so long ago; an unknown age does not count ([`ages`](super::ages)) |
//! | `unless.credentials` | every credential of the request is one of these, by keyed hash ([`credentials`]) |
//!
//! In an opaque tunnel nothing of `unless` holds: such a deny matches every tunnel that is not inspected.
//!
//! `tidegate check` follows each rule through every kind of flow, and warns:
//!
//! | code | meaning |
//! |---|---|
//! | `never-matches` | no flow meets the conditions, or a deny, an ask or the floor decides each of them first |
//! | `shadowed` | other rules say the same of each of its flows first |
//! | `not-enforced` | a deny or ask by `does`, and tunnels pass uninspected in the tiers that are named |
//! | `unseen` | an allow by `does` that lets whole tunnels pass, because `opaque` is `allow` |
//!
//! The summary names the tiers' own lists that tunnels escape. `check --strict` exits with 1 on a
//! warning and on a rule or list that is not enforced. A policy that names more than 50,000 hosts is
//! not followed.
//!
//! Examples may
//! say `CLONE URL`, `PUSH URL REF` and `TOOL URL NAME`. `reason` stands in the refusals of a deny or ask;
//! `[refusal] contact` adds whom to ask.
//!
//! # What hosts are for
//!
//! ```toml
//! [[destination]]
//! category = "package-registry"
//! hosts    = ["npm.acme.example", "*.mirror.acme.example"]
//! service  = "npm"
//! ```
//!
//! A `[[destination]]` goes before the built-in catalogue; of several, the most specific host counts.
//! `service` names the data file that reads requests there. `[catalogue] agents` leaves out the model
//! APIs, logins, telemetry, updates and plugins that only other agents need.
//!
//! # Tiers
//!
//! `extend = "standard"` takes every key that is not written from that tier. A file without `[tiers]`
//! changes the built-in tiers key by key: `[tier.standard]` with `default = "deny"` keeps its lists.
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
