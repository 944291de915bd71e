//! Reads a TLS `ClientHello` without consuming it (RFC 8446 sections 4.1.2 and 5.1).
//!
//! The name in the hello must be the name that the policy judged. A server may read a hello that is
//! split into many records, so this reader does too. The reader refuses a hello that two servers
//! could understand differently: a second name, bytes after the end, a name that is not canonical.

use crate::name::HostName;

/// The kind of the first bytes of a tunnel.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Hello {
    /// The beginning of a hello.
    Incomplete,
    /// TLS, but no well-formed hello; with the reason.
    Malformed(&'static str),
    /// A well-formed hello whose server name is not a canonical host name; with the reason.
    BadName(&'static str),
    /// A protocol other than TLS.
    NotTls,
    /// A hello larger than 64 KiB.
    TooLarge,
    /// A whole hello.
    Tls(ClientHello),
}

/// The `ClientHello` of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ClientHello {
    /// The requested server name, in canonical form.
    pub(crate) server_name: Option<HostName>,
    /// The application protocols that the client offers, in the client's order.
    pub(crate) alpn: Vec<Box<[u8]>>,
    /// Whether the hello has an `encrypted_client_hello` extension (RFC 9849), or the ESNI of the
    /// drafts before it: the true name may be hidden, and `server_name` only the outer one.
    pub(crate) ech: bool,
    /// Length of the records of the hello, in bytes.
    pub(crate) len: usize,
}

/// Maximum length of the records of a hello, in bytes.
pub(crate) const MAX_HELLO_BYTES: usize = 64 * 1024;

/// Reads a hello that arrives in pieces. A record that was read whole is not read again.
#[derive(Debug, Default)]
pub(crate) struct HelloReader {
    /// The payloads of the records that were read whole.
    message: Vec<u8>,
    /// The offset of the first record that is not whole yet.
    next: usize,
    /// The number of bytes that all calls have read.
    #[cfg(test)]
    work: usize,
}

impl HelloReader {
    /// Continues to read. `bytes` are all bytes so far: those of the previous call, and the new
    /// ones.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Hello {
        match self.read_records(bytes) {
            Ok(()) if self.next > MAX_HELLO_BYTES => Hello::TooLarge,
            Ok(()) => match parse_message(&self.message) {
                Ok(hello) => Hello::Tls(ClientHello {
                    len: self.next,
                    ..hello
                }),
                Err(unfit) => unfit.into(),
            },
            Err(Hello::Incomplete) if bytes.len() >= MAX_HELLO_BYTES => Hello::TooLarge,
            Err(other) => other,
        }
    }

    /// Joins the first handshake message from its records.
    fn read_records(&mut self, bytes: &[u8]) -> Result<(), Hello> {
        loop {
            let rest = bytes.get(self.next..).unwrap_or_default();
            #[cfg(test)]
            {
                self.work += rest.len().min(RECORD_HEADER);
            }
            let payload = record(rest)?;
            self.next += RECORD_HEADER + payload.len();
            self.message.extend_from_slice(payload);
            #[cfg(test)]
            {
                self.work += payload.len();
            }
            let Some(len) = message_len(&self.message)? else {
                continue;
            };
            if len < self.message.len() {
                let why = "bytes follow the ClientHello in its record";
                return Err(Hello::Malformed(why));
            }
            if len == self.message.len() {
                return Ok(());
            }
        }
    }
}

const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const MAX_RECORD_BYTES: usize = 16 * 1024;
const MAX_EXTENSIONS: usize = 128;
const MAX_PROTOCOLS: usize = 16;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const HOST_NAME: u8 = 0;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// `encrypted_client_hello` (RFC 9849), and the extension of the drafts that hid only the name.
const ENCRYPTED: [u16; 2] = [0xfe0d, 0xffce];

/// Returns the payload of the record at the start of `bytes`, if all of it has arrived.
fn record(bytes: &[u8]) -> Result<&[u8], Hello> {
    let header = bytes.get(..RECORD_HEADER).unwrap_or(bytes);
    // Decided on the first byte that differs: a peer that speaks another protocol may wait for an
    // answer.
    if header.first().is_some_and(|&kind| kind != HANDSHAKE)
        || header.get(1).is_some_and(|&major| major != 3)
        || header.get(2).is_some_and(|&minor| minor > 4)
    {
        return Err(Hello::NotTls);
    }
    let Some(&[_, _, _, high, low]) = header.first_chunk() else {
        return Err(Hello::Incomplete);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    match len {
        0 => return Err(Hello::Malformed("an empty handshake record")),
        1..=MAX_RECORD_BYTES => {}
        _ => return Err(Hello::Malformed("a record longer than 16 KiB")),
    }
    let payload = bytes.get(RECORD_HEADER..).unwrap_or_default();
    payload.get(..len).ok_or(Hello::Incomplete)
}

/// Returns the length of the whole message, if its header has arrived.
fn message_len(message: &[u8]) -> Result<Option<usize>, Hello> {
    if message.first().is_some_and(|&kind| kind != CLIENT_HELLO) {
        return Err(Hello::Malformed(
            "a handshake that does not begin with a ClientHello",
        ));
    }
    let Some(&[_, a, b, c]) = message.first_chunk() else {
        return Ok(None);
    };
    let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
    let len = len.saturating_add(MESSAGE_HEADER);
    if len > MAX_HELLO_BYTES {
        return Err(Hello::TooLarge);
    }
    Ok(Some(len))
}

/// Why a whole message is refused as a hello.
enum Unfit {
    /// The message is not well-formed (RFC 8446 section 6: `decode_error`).
    Malformed(&'static str),
    /// The message is well-formed; its server name is not a canonical host name.
    Name(&'static str),
}

impl From<&'static str> for Unfit {
    fn from(why: &'static str) -> Self {
        Self::Malformed(why)
    }
}

impl From<Unfit> for Hello {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Malformed(why) => Self::Malformed(why),
            Unfit::Name(why) => Self::BadName(why),
        }
    }
}

fn parse_message(message: &[u8]) -> Result<ClientHello, Unfit> {
    let mut body = Reader(message.get(MESSAGE_HEADER..).unwrap_or_default());
    let version = body.number()?;
    if !(0x0300..=0x0303).contains(&version) {
        return Err("the version of the ClientHello is unknown".into());
    }
    body.take(32)?;
    if body.short()?.0.len() > 32 {
        return Err("the session id is too long".into());
    }
    let ciphers = body.long()?.0.len();
    if ciphers == 0 || ciphers % 2 != 0 {
        return Err("the list of cipher suites is malformed".into());
    }
    if body.short()?.0.is_empty() {
        return Err("the list of compression methods is empty".into());
    }
    let mut hello = ClientHello {
        server_name: None,
        alpn: Vec::new(),
        ech: false,
        len: 0,
    };
    if !body.is_empty() {
        let extensions = body.long()?;
        body.end()?;
        read_extensions(extensions, &mut hello)?;
    }
    Ok(hello)
}

fn read_extensions(mut extensions: Reader<'_>, hello: &mut ClientHello) -> Result<(), Unfit> {
    let mut seen = Vec::with_capacity(32);
    while !extensions.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.long()?;
        if seen.contains(&kind) {
            return Err("an extension occurs twice".into());
        }
        if seen.len() == MAX_EXTENSIONS {
            return Err("there are too many extensions".into());
        }
        seen.push(kind);
        match kind {
            ALPN => hello.alpn = protocols(data)?,
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            _ => hello.ech |= ENCRYPTED.contains(&kind),
        }
    }
    Ok(())
}

/// Reads a `server_name` extension, a list of one name (RFC 6066 section 3).
fn server_name(mut data: Reader<'_>) -> Result<HostName, Unfit> {
    let mut list = data.long()?;
    data.end()?;
    if list.byte()? != HOST_NAME {
        return Err(Unfit::Name("the server name is not a host name"));
    }
    let name = list.long()?.0;
    if name.is_empty() {
        return Err("the server name is empty".into());
    }
    if !list.is_empty() {
        return Err(Unfit::Name("there is more than one server name"));
    }
    if name.ends_with(b".") {
        return Err(Unfit::Name("the server name ends in a dot"));
    }
    HostName::parse(name).map_err(|_| Unfit::Name("the server name is not a DNS name"))
}

/// Reads the list of application protocols (RFC 7301 section 3.1).
fn protocols(mut data: Reader<'_>) -> Result<Vec<Box<[u8]>>, &'static str> {
    let mut list = data.long()?;
    data.end()?;
    let mut protocols = Vec::new();
    while !list.is_empty() {
        let name = list.short()?.0;
        if name.is_empty() || protocols.len() == MAX_PROTOCOLS {
            return Err("the list of application protocols is malformed");
        }
        protocols.push(name.into());
    }
    Ok(protocols)
}

/// Reads a message from its front.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, len: usize) -> Result<&'m [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or("a length is wrong")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.take(1)?.first().copied().ok_or("a length is wrong")
    }

    fn number(&mut self) -> Result<u16, &'static str> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// Reads a part that has its length in one byte before it.
    fn short(&mut self) -> Result<Self, &'static str> {
        let len = self.byte()?;
        self.take(len.into()).map(Self)
    }

    /// Reads a part that has its length in two bytes before it.
    fn long(&mut self) -> Result<Self, &'static str> {
        let len = self.number()?;
        self.take(len.into()).map(Self)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.is_empty() {
            Ok(())
        } else {
            Err("bytes follow where nothing should")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// Returns the hello of a real client for a server called `name`.
    fn real(name: &str, alpn: &[&str]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = name.to_owned().try_into().expect("a name");
        let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("in memory");
        bytes
    }

    /// Returns the message in the one record of a real hello.
    fn message(hello: &[u8]) -> Vec<u8> {
        hello[RECORD_HEADER..].to_vec()
    }

    /// Splits `message` into records of `step` bytes.
    fn records(message: &[u8], step: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            let len = u16::try_from(part.len()).expect("short").to_be_bytes();
            [&[HANDSHAKE, 3, 1][..], &len, part].concat()
        };
        message.chunks(step).flat_map(record).collect()
    }

    fn long(parts: &[&[u8]]) -> Vec<u8> {
        let bytes = parts.concat();
        [
            &u16::try_from(bytes.len()).expect("short").to_be_bytes()[..],
            &bytes,
        ]
        .concat()
    }

    fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &long(&[data])].concat()
    }

    /// Returns the data of a `server_name` extension with one name.
    fn name_data(kind: u8, name: &[u8]) -> Vec<u8> {
        long(&[&[kind], &long(&[name])])
    }

    /// Returns a small hello with these extensions, and with `after` behind them.
    fn made(extensions: &[Vec<u8>], after: &[u8]) -> Vec<u8> {
        let extensions = long(&extensions.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[0, 0, 2, 0x13, 1, 1, 0],
            &extensions,
            after,
        ]
        .concat();
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        records(
            &[&[CLIENT_HELLO], &len[1..], &body].concat(),
            MAX_RECORD_BYTES,
        )
    }

    fn named(name: &[u8]) -> Hello {
        read_hello(&made(
            &[extension(SERVER_NAME, &name_data(HOST_NAME, name))],
            b"",
        ))
    }

    fn read_hello(bytes: &[u8]) -> Hello {
        HelloReader::default().read(bytes)
    }

    fn tls(hello: Hello) -> ClientHello {
        match hello {
            Hello::Tls(hello) => hello,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_real_hello_tells_its_name_and_protocols() {
        let bytes = real("Files.Example.com", &["h2", "http/1.1"]);
        let hello = tls(read_hello(&bytes));
        assert_eq!(
            hello.server_name.expect("a name").as_str(),
            "files.example.com"
        );
        assert_eq!(
            hello.alpn,
            [b"h2"[..].into(), b"http/1.1"[..].into()] as [Box<[u8]>; 2]
        );
        assert_eq!((hello.ech, hello.len), (false, bytes.len()));
    }

    #[test]
    fn an_address_is_no_server_name() {
        assert_eq!(tls(read_hello(&real("192.0.2.1", &[]))).server_name, None);
    }

    #[test]
    fn every_beginning_of_a_hello_is_incomplete() {
        let bytes = real("example.com", &["h2"]);
        for len in 0..bytes.len() {
            assert_eq!(read_hello(&bytes[..len]), Hello::Incomplete, "{len}");
        }
        let bytes = records(&message(&bytes), 7);
        for len in 0..bytes.len() {
            assert_eq!(read_hello(&bytes[..len]), Hello::Incomplete, "{len}");
        }
    }

    #[test]
    fn a_hello_reads_the_same_in_however_many_records() {
        let bytes = real("example.com", &["h2"]);
        let whole = tls(read_hello(&bytes));
        for step in 1..bytes.len() {
            let cut = records(&message(&bytes), step);
            let hello = tls(read_hello(&[&cut[..], b"next"].concat()));
            assert_eq!(hello.len, cut.len());
            assert_eq!(
                ClientHello {
                    len: whole.len,
                    ..hello
                },
                whole,
                "{step}"
            );
        }
    }

    #[test]
    fn other_protocols_are_told_by_their_first_bytes() {
        for bytes in [
            &b"S"[..],
            b"GET / HTTP/1.1",
            b"SSH-2.0",
            b"\x80\x2e\x01",
            b"\x16\x02",
            b"\x15\x03",
        ] {
            assert_eq!(read_hello(bytes), Hello::NotTls, "{bytes:?}");
        }
    }

    #[test]
    fn a_name_is_read_only_if_it_can_be_read_in_one_way() {
        for name in [
            &b"example.com\0.example.net"[..],
            b"example.com.",
            b".example.com",
            b"exa mple.com",
            b"192.0.2.1",
            b"0x7f.1",
            b"::1",
            b"[::1]",
            b"example.com:443",
            b"ex\xc3\xa4mple.com",
        ] {
            assert!(matches!(named(name), Hello::BadName(_)), "{name:?}");
        }
        assert!(matches!(named(b""), Hello::Malformed(_)));
        assert_eq!(
            tls(named(b"EXAMPLE.com"))
                .server_name
                .expect("a name")
                .as_str(),
            "example.com"
        );
    }

    #[test]
    fn a_second_reading_of_the_name_is_refused() {
        let good = name_data(HOST_NAME, b"example.com");
        let other = name_data(HOST_NAME, b"example.net");
        let entry = |name: &[u8]| [&[HOST_NAME][..], &long(&[name])].concat();
        let two_names = long(&[&entry(b"example.com"), &entry(b"example.net")]);
        for extensions in [
            vec![
                extension(SERVER_NAME, &good),
                extension(SERVER_NAME, &other),
            ],
            vec![extension(SERVER_NAME, &[&good[..], b"x"].concat())],
            vec![extension(SERVER_NAME, b"")],
            vec![extension(SERVER_NAME, &[0, 0])],
            vec![extension(ALPN, &[0, 1, 0])],
            vec![extension(ALPN, &[0, 2, 2, b'h'])],
        ] {
            let hello = read_hello(&made(&extensions, b""));
            assert!(matches!(hello, Hello::Malformed(_)), "{extensions:?}");
        }
        for data in [two_names, name_data(1, b"example.com")] {
            let hello = read_hello(&made(&[extension(SERVER_NAME, &data)], b""));
            assert!(matches!(hello, Hello::BadName(_)), "{data:?}");
        }
        let trailing = made(&[extension(SERVER_NAME, &good)], b"x");
        assert_eq!(
            read_hello(&trailing),
            Hello::Malformed("bytes follow where nothing should")
        );
    }

    #[test]
    fn bytes_after_the_hello_in_its_record_are_refused() {
        let mut message = message(&real("example.com", &[]));
        message.push(0);
        assert!(matches!(
            read_hello(&records(&message, MAX_RECORD_BYTES)),
            Hello::Malformed(_)
        ));
    }

    #[test]
    fn encryption_of_the_name_is_noticed() {
        let name = || extension(SERVER_NAME, &name_data(HOST_NAME, b"example.com"));
        for kind in ENCRYPTED {
            // Outer, inner, and data that no server could use: each counts as ECH.
            for data in [&b"\0"[..], b"\x01", b"?", b""] {
                assert!(tls(read_hello(&made(&[extension(kind, data)], b""))).ech);
                assert!(tls(read_hello(&made(&[name(), extension(kind, data)], b""))).ech);
                assert!(tls(read_hello(&made(&[extension(kind, data), name()], b""))).ech);
            }
            let twice = made(&[extension(kind, b"\0"), extension(kind, b"\0")], b"");
            assert!(matches!(read_hello(&twice), Hello::Malformed(_)));
        }
        let both = made(&ENCRYPTED.map(|kind| extension(kind, b"\0")), b"");
        assert!(tls(read_hello(&both)).ech);
        // `ech_outer_extensions` occurs only in an encrypted inner hello: alone it hides no name.
        assert!(!tls(read_hello(&made(&[extension(0xfd00, b"")], b""))).ech);
    }

    /// Returns how many bytes are read while `bytes` arrive in pieces of `step` bytes.
    fn work(bytes: &[u8], step: usize) -> usize {
        let mut reader = HelloReader::default();
        let mut came = 0;
        while came < bytes.len() {
            came = (came + step).min(bytes.len());
            match reader.read(&bytes[..came]) {
                Hello::Incomplete => {}
                Hello::Tls(hello) => assert_eq!((hello.len, came), (bytes.len(), came)),
                other => panic!("{other:?}"),
            }
        }
        reader.work
    }

    #[test]
    fn a_dribbled_hello_is_not_read_again_and_again() {
        let filler = extension(0xff01, &vec![0; 55_000]);
        let hello = made(&[filler], b"");
        let whole = hello.chunks(MAX_RECORD_BYTES + RECORD_HEADER);
        let message: Vec<u8> = whole
            .flat_map(|record| record[RECORD_HEADER..].to_vec())
            .collect();
        for (size, step) in [
            (MAX_RECORD_BYTES, 1),
            (100, 1),
            (100, 7),
            (MAX_RECORD_BYTES, 1400),
        ] {
            let bytes = records(&message, size);
            let pieces = bytes.len().div_ceil(step);
            let most = 2 * bytes.len() + pieces * RECORD_HEADER;
            assert!(
                work(&bytes, step) <= most,
                "records of {size}, pieces of {step}"
            );
        }
        let small = records(&message[..], 12);
        assert_eq!(
            read_hello(&small),
            Hello::TooLarge,
            "the bound is on bytes of records"
        );
    }

    #[test]
    fn odd_records_are_refused() {
        assert!(matches!(read_hello(&[22, 3, 1, 0, 0]), Hello::Malformed(_)));
        assert!(matches!(
            read_hello(&[22, 3, 1, 0x40, 1]),
            Hello::Malformed(_)
        ));
        assert!(matches!(
            read_hello(&[22, 3, 1, 0, 1, 2]),
            Hello::Malformed(_)
        ));
        let mut cut = records(&message(&real("example.com", &[])), 100);
        cut[105] = 23;
        assert_eq!(read_hello(&cut), Hello::NotTls);
    }

    #[test]
    fn a_hello_beyond_the_bound_is_not_waited_for() {
        assert_eq!(read_hello(&records(&[1, 1, 0, 0], 4)), Hello::TooLarge);
        let dribble = records(
            &[&[CLIENT_HELLO, 0, 0xff, 0][..], &vec![0; 20_000]].concat(),
            1,
        );
        assert_eq!(
            read_hello(&dribble[..MAX_HELLO_BYTES - 1]),
            Hello::Incomplete
        );
        assert_eq!(read_hello(&dribble[..MAX_HELLO_BYTES]), Hello::TooLarge);
    }

    #[test]
    fn a_flood_of_extensions_is_refused() {
        let many: Vec<_> = (1000..2000).map(|kind| extension(kind, b"")).collect();
        assert_eq!(
            read_hello(&made(&many, b"")),
            Hello::Malformed("there are too many extensions")
        );
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes: Vec<u8>) {
            let _ = read_hello(&bytes);
            let len = u32::try_from(bytes.len()).expect("short").to_be_bytes();
            let message = [&[CLIENT_HELLO][..], &len[1..], &bytes].concat();
            let _ = read_hello(&records(&message, MAX_RECORD_BYTES));
        }

        #[test]
        fn no_change_of_a_byte_makes_it_panic_or_find_another_name(at in 0usize..500, to: u8) {
            let mut bytes = made(
                &[extension(SERVER_NAME, &name_data(HOST_NAME, b"a.example")), extension(ALPN, &long(&[b"\x02h2"]))],
                b"",
            );
            let at = at % bytes.len();
            bytes[at] = to;
            if let Hello::Tls(hello) = read_hello(&bytes) {
                let name = hello.server_name.map(|name| name.as_str().len());
                prop_assert!(name.is_none_or(|len| len == 9));
            }
        }
    }
}
