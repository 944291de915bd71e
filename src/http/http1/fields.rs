//! The fields of a head, as ranges into it.

use bytes::Bytes;

/// Maximum number of fields of a head; no configuration raises it.
pub(super) const MAX_FIELDS: usize = 256;

/// The name of a gate, as in messages of a gate to its clients.
const GATE: &[u8] = b"tidegate";

/// Fields by which servers and frameworks replace the request's method.
const METHOD_OVERRIDES: [&str; 7] = [
    "http-method-override",
    "x-http-method",
    "x-http-method-override",
    "x-http-method-overrides",
    "x-method",
    "x-method-override",
    "x-override-method",
];

/// Fields by which servers and frameworks replace the request's path or host, as set by a reverse
/// proxy (besides `X-Forwarded-…`): of IIS, ASP.NET, Symfony, Zend, Laminas, nginx, Traefik, Envoy,
/// Azure and others.
const URL_OVERRIDES: [&str; 22] = [
    "x-backend-host",
    "x-envoy-original-host",
    "x-envoy-original-path",
    "x-host",
    "x-http-host-override",
    "x-http-path-override",
    "x-http-url-override",
    "x-original-host",
    "x-original-path",
    "x-original-request-uri",
    "x-original-uri",
    "x-original-url",
    "x-override-url",
    "x-path-info",
    "x-proxy-url",
    "x-real-url",
    "x-replaced-path",
    "x-request-uri",
    "x-rewrite-uri",
    "x-rewrite-url",
    "x-script-name",
    "x-waws-unencoded-url",
];

/// The fields of one head in their order, as they were written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    head: Bytes,
    entries: Vec<Entry>,
    /// The names that occur, one bit each: most look-ups are for a field that a head lacks.
    present: u32,
}

/// A field that matters to a proxy; compared without case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Name {
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Expect`.
    Expect,
    /// `Forwarded`, `X-Forwarded-…`, `X-Real-IP`: assertions of a client about itself, for an
    /// origin that may trust a proxy.
    Forwarded,
    /// `Host`.
    Host,
    /// `HTTP2-Settings`.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// `X-HTTP-Method-Override` and similar fields: another method than the judged one.
    MethodOverride,
    /// Any other field: forwarded unchanged.
    Other,
    /// `Proxy-Authorization`.
    ProxyAuthorization,
    /// `Proxy-Connection`.
    ProxyConnection,
    /// Any other `Proxy-…`.
    ProxyOther,
    /// `X-Deny-Reason`, `X-Proxy-Error`: marks of a proxy's own refusal.
    Refusal,
    /// `TE`.
    Te,
    /// `X-Tidegate-…`: set by a gate only.
    Tidegate,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `X-Original-URL` and similar fields: another path or host than the judged one.
    UrlOverride,
    /// `User-Agent`.
    UserAgent,
    /// `Via`.
    Via,
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'h> {
    /// The meaning of the name.
    pub(crate) known: Name,
    /// The name as written.
    pub(crate) name: &'h [u8],
    /// The value, without the blanks around it.
    pub(crate) value: &'h [u8],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    known: Name,
    name: Span,
    value: Span,
}

/// A range in a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Fields {
    /// No fields, with room for `count`.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            entries: Vec::with_capacity(count),
            ..Self::default()
        }
    }

    /// Adds a field, whose name and value are parts of `head`.
    pub(super) fn add(&mut self, known: Name, field: &httparse::Header<'_>, head: &[u8]) {
        self.present |= known.bit();
        self.entries.push(Entry {
            known,
            name: Span::of(field.name.as_bytes(), head),
            value: Span::of(field.value, head),
        });
    }

    /// Sets the head that contains the fields.
    pub(super) fn set_head(&mut self, head: Bytes) {
        self.head = head;
    }

    /// Returns all fields in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.entries.iter().map(|entry| Field {
            known: entry.known,
            name: entry.name.within(&self.head),
            value: entry.value.within(&self.head),
        })
    }

    /// Returns the values of all fields with this name.
    pub(crate) fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let entries = self.entries.get(..).filter(|_| self.has(name));
        let entries = entries.unwrap_or_default().iter();
        entries
            .filter(move |entry| entry.known == name)
            .map(|entry| entry.value.within(&self.head))
    }

    /// Whether there is a field with this name.
    pub(crate) fn has(&self, name: Name) -> bool {
        self.present & name.bit() != 0
    }

    /// Returns the value of the first field with this name.
    pub(crate) fn first(&self, name: Name) -> Option<&[u8]> {
        self.values(name).next()
    }

    /// Returns the elements of all lists in fields with this name.
    pub(crate) fn elements(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        self.values(name).flat_map(elements)
    }

    /// Whether a `Connection` field has `option`, without case.
    pub(crate) fn connection_has(&self, option: &str) -> bool {
        self.elements(Name::Connection)
            .any(|element| element.eq_ignore_ascii_case(option.as_bytes()))
    }

    /// Whether `Connection` names fields, besides the options that every proxy handles.
    pub(crate) fn connection_names_fields(&self) -> bool {
        self.elements(Name::Connection).any(|element| {
            !["close", "keep-alive", "te", "upgrade"]
                .iter()
                .any(|known| element.eq_ignore_ascii_case(known.as_bytes()))
        })
    }

    pub(super) fn head(&self) -> &Bytes {
        &self.head
    }
}

impl Name {
    /// Returns the meaning of a field name.
    pub(crate) fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            3 if is("via") => Self::Via,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("trailer") => Self::Trailer,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") || is("x-real-ip") => Self::Forwarded,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            10 if is("user-agent") => Self::UserAgent,
            13 if is("x-deny-reason") || is("x-proxy-error") => Self::Refusal,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::Http2Settings,
            16 if is("proxy-connection") => Self::ProxyConnection,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            19 if is("proxy-authorization") => Self::ProxyAuthorization,
            // Each of the others begins with one of these letters.
            _ if !name.first().is_some_and(|it| b"hHpPxX".contains(it)) => Self::Other,
            _ if METHOD_OVERRIDES.into_iter().any(is) => Self::MethodOverride,
            _ if starts_with(name, b"x-") && URL_OVERRIDES.into_iter().any(is) => Self::UrlOverride,
            _ if starts_with(name, b"proxy-") => Self::ProxyOther,
            _ if starts_with(name, b"x-tidegate-") => Self::Tidegate,
            _ if starts_with(name, b"x-forwarded-") => Self::Forwarded,
            _ => Self::Other,
        }
    }

    /// The bit of the name in a set of names.
    fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Whether `name` is no known field, but would be one for a reader that treats `_` or `.` as
    /// `-`, as CGI and related interfaces do.
    pub(super) fn is_disguised(name: &[u8]) -> bool {
        if !name.iter().any(|byte| matches!(byte, b'.' | b'_')) || name.len() > 64 {
            return false;
        }
        let mut plain = [0; 64];
        for (to, from) in plain.iter_mut().zip(name) {
            *to = if matches!(from, b'.' | b'_') {
                b'-'
            } else {
                *from
            };
        }
        let plain = plain.get(..name.len()).unwrap_or_default();
        let bare = if starts_with(plain, b"x-") {
            plain.get(2..).unwrap_or_default()
        } else {
            plain
        };
        [plain, bare]
            .iter()
            .any(|name| !matches!(Self::of(name), Self::Other | Self::UserAgent))
    }
}

impl Span {
    /// Returns the range of `part` in `whole`, which must contain it.
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let start = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: place(start),
            end: place(start + part.len()),
        }
    }

    /// Returns the range in `whole`.
    pub(super) fn within(self, whole: &[u8]) -> &[u8] {
        whole
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

/// Returns the elements of a comma-separated list, without the empty ones (RFC 9110 section 5.6.1).
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a message has passed the gate called `pseudonym` before (RFC 9110 section 7.6.3).
pub(crate) fn via_has(fields: &Fields, pseudonym: &str) -> bool {
    fields.elements(Name::Via).any(|element| {
        element
            .split(|byte| matches!(byte, b' ' | b'\t'))
            .filter(|part| !part.is_empty())
            .nth(1)
            .is_some_and(|by| by.eq_ignore_ascii_case(pseudonym.as_bytes()))
    })
}

/// Whether an element of `Via` names a gate, by its common name or a pseudonym.
pub(super) fn names_gate(element: &[u8]) -> bool {
    let received_by = element.split(|byte| matches!(byte, b' ' | b'\t'));
    let mut parts = received_by.filter(|part| !part.is_empty()).skip(1);
    parts.any(contains_gate)
}

/// Whether a text contains the name of the gate, in any case.
pub(super) fn contains_gate(text: &[u8]) -> bool {
    text.windows(GATE.len())
        .any(|part| part.eq_ignore_ascii_case(GATE))
}

/// Returns the proxies that forwarded a message before, from `Via`; `None` if there were none.
pub(crate) fn via_before(fields: &Fields) -> Option<Box<str>> {
    if !fields.has(Name::Via) {
        return None;
    }
    let elements = fields.elements(Name::Via);
    let elements: Vec<_> = elements.map(String::from_utf8_lossy).collect();
    let via = Some(elements.join(", "));
    Some(via.filter(|via| !via.is_empty() && via.is_ascii())?.into())
}

/// Parses a `Content-Length`: digits only, no leading zero, below 2^63.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    let canonical = match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    // At most 19 digits: below 2^64.
    let digits = value.iter().map(|digit| u64::from(digit - b'0'));
    let length = digits.fold(0, |length, digit| length * 10 + digit);
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

fn starts_with(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_that_replaces_a_method_or_a_url_has_its_name() {
        for name in METHOD_OVERRIDES {
            let upper = name.to_ascii_uppercase();
            assert_eq!(Name::of(name.as_bytes()), Name::MethodOverride, "{name}");
            assert_eq!(Name::of(upper.as_bytes()), Name::MethodOverride, "{upper}");
        }
        for name in URL_OVERRIDES {
            assert_eq!(Name::of(name.as_bytes()), Name::UrlOverride, "{name}");
        }
    }
}
