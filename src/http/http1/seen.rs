//! The fields of a request that decide how the rest of the request is read.

use super::fields::{Name, content_length, elements};
use super::{BodyLength, HeadError, Method, Version};

/// The fields that a request may have only once, or that frame it.
#[derive(Default)]
pub(super) struct Seen<'h> {
    hosts: usize,
    proxy_authorizations: usize,
    length: Option<u64>,
    chunked: bool,
    /// Whether the client waits for `100 Continue`.
    pub(super) expect_continue: bool,
    upgrade: Option<&'h [u8]>,
    upgrades: usize,
    options: Options,
    method: Option<&'h [u8]>,
}

/// The options of `Connection` and `Proxy-Connection`.
#[derive(Default)]
struct Options {
    close: bool,
    keep_alive: bool,
    /// Only of `Connection`.
    upgrade: bool,
}

impl<'h> Seen<'h> {
    /// Records one field.
    pub(super) fn field(
        &mut self,
        name: Name,
        field: &httparse::Header<'h>,
        version: Version,
    ) -> Result<(), HeadError> {
        let value = field.value;
        match name {
            Name::Connection | Name::ProxyConnection => {
                for option in elements(value) {
                    let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
                    self.options.close |= is(b"close");
                    self.options.keep_alive |= is(b"keep-alive");
                    self.options.upgrade |= name == Name::Connection && is(b"upgrade");
                }
            }
            Name::ContentLength => {
                let length = content_length(value).ok_or(HeadError::ContentLength)?;
                if self.length.replace(length).is_some() {
                    return Err(HeadError::ContentLength);
                }
            }
            // RFC 9110 section 10.1.1: a server ignores the field in an HTTP/1.0 request.
            Name::Expect if version == Version::Http10 => {}
            Name::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expect_continue = true;
            }
            Name::Expect => return Err(HeadError::Expectation),
            Name::Host if value.is_empty() => return Err(HeadError::Host),
            Name::Host => self.hosts += 1,
            Name::Other if Name::is_disguised(field.name.as_bytes()) => {
                return Err(HeadError::DisguisedField);
            }
            Name::MethodOverride if self.method.is_some_and(|said| said != value) => {
                return Err(HeadError::MethodOverride);
            }
            Name::MethodOverride => self.method = Some(value),
            Name::ProxyAuthorization => {
                self.proxy_authorizations += 1;
                if self.proxy_authorizations > 1 {
                    return Err(HeadError::ProxyAuthorization);
                }
            }
            Name::UrlOverride => return Err(HeadError::UrlOverride),
            Name::TransferEncoding => {
                let known = value.eq_ignore_ascii_case(b"chunked") && version == Version::Http11;
                if !known || self.chunked {
                    return Err(HeadError::TransferEncoding);
                }
                self.chunked = true;
            }
            Name::Upgrade => {
                self.upgrade = Some(value);
                self.upgrades += 1;
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses a field with another method: the policy judges the method of the request line.
    pub(super) fn check_method(&self, method: &Method) -> Result<(), HeadError> {
        match self.method {
            Some(said) if said != method.as_str().as_bytes() => Err(HeadError::MethodOverride),
            _ => Ok(()),
        }
    }

    /// Checks that there is one `Host`, if required (RFC 9112 section 3.2).
    pub(super) fn check_host(&self, method: &Method, version: Version) -> Result<(), HeadError> {
        let needed = version == Version::Http11 && *method != Method::Connect;
        match self.hosts {
            0 if needed => Err(HeadError::Host),
            0 | 1 => Ok(()),
            _ => Err(HeadError::Host),
        }
    }

    /// Returns the framing of the body (RFC 9112 section 6.3).
    pub(super) fn body(&self, method: &Method, version: Version) -> Result<BodyLength, HeadError> {
        let body = match (self.chunked, self.length) {
            (true, Some(_)) => return Err(HeadError::Lengths),
            (true, None) if version == Version::Http11 => BodyLength::Chunked,
            (true, None) => return Err(HeadError::TransferEncoding),
            (false, Some(length)) => BodyLength::Length(length),
            (false, None) => BodyLength::None,
        };
        let bodiless = matches!(
            method,
            Method::Connect | Method::Get | Method::Head | Method::Options
        );
        if bodiless && !body.is_empty() {
            Err(HeadError::UnexpectedBody)
        } else {
            Ok(body)
        }
    }

    /// Whether the client keeps the connection open after the response (RFC 9112 section 9.3).
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        !self.options.close && (version == Version::Http11 || self.options.keep_alive)
    }

    /// Returns the one requested protocol, if the upgrade may be passed on.
    pub(super) fn upgrade(&self, body: BodyLength) -> Option<&'h [u8]> {
        let one = self.upgrades == 1 && self.options.upgrade && body.is_empty();
        self.upgrade
            .filter(|protocol| one && is_protocol(protocol) && !starts_like_http2(protocol))
    }
}

/// Whether a value is one protocol of `Upgrade`: a token, optionally with a version.
fn is_protocol(value: &[u8]) -> bool {
    !value.is_empty()
        && value
            .iter()
            .all(|&byte| byte.is_ascii_alphanumeric() || b"-_./+".contains(&byte))
}

fn starts_like_http2(protocol: &[u8]) -> bool {
    ["h2", "http/2"].iter().any(|name| {
        protocol
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
    })
}
