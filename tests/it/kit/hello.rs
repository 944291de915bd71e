//! A `ClientHello` written by hand, so that a test can bend any part of it.

/// A `ClientHello` as a test wants it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hello {
    extensions: Vec<u8>,
}

impl Hello {
    /// Without any name.
    pub(crate) fn nameless() -> Self {
        Self::default().versions()
    }

    /// With one name.
    pub(crate) fn naming(name: &str) -> Self {
        Self::nameless().names(&[(0, name.as_bytes())])
    }

    /// Adds a `server_name` extension with these entries of (type, bytes).
    #[must_use]
    pub(crate) fn names(self, entries: &[(u8, &[u8])]) -> Self {
        let mut list = Vec::new();
        for (kind, name) in entries {
            list.push(*kind);
            list.extend(prefixed(name));
        }
        self.extension(0x0000, &prefixed(&list))
    }

    /// Adds an `encrypted_client_hello` extension of the outer kind.
    #[must_use]
    pub(crate) fn encrypted(self) -> Self {
        let mut outer = vec![0, 0x00, 0x01, 0x00, 0x01, 7];
        outer.extend(prefixed(&[5; 32]));
        outer.extend(prefixed(&[9; 128]));
        self.extension(0xfe0d, &outer)
    }

    /// Adds an extension of the test's own, e.g. to make the hello large.
    #[must_use]
    pub(crate) fn extension(mut self, kind: u16, body: &[u8]) -> Self {
        self.extensions.extend(kind.to_be_bytes());
        self.extensions.extend(prefixed(body));
        self
    }

    /// In one TLS record.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.in_records(usize::from(u16::MAX))
    }

    /// In several TLS records of at most `size` bytes each.
    pub(crate) fn in_records(&self, size: usize) -> Vec<u8> {
        let size = size.min(16 * 1024);
        self.handshake().chunks(size).flat_map(record).collect()
    }

    fn versions(self) -> Self {
        self.extension(0x002b, &[2, 0x03, 0x04])
            .extension(0x000a, &prefixed(&[0x00, 0x1d]))
            .extension(0x000d, &prefixed(&[0x04, 0x03]))
            .extension(
                0x0033,
                &prefixed(&[&[0x00, 0x1d][..], &prefixed(&[3; 32])].concat()),
            )
    }

    fn handshake(&self) -> Vec<u8> {
        let mut body = vec![0x03, 0x03];
        body.extend([7; 32]);
        body.push(0);
        body.extend(prefixed(&[0x13, 0x01]));
        body.extend([1, 0]);
        body.extend(prefixed(&self.extensions));
        let length = u32::try_from(body.len()).expect("a length").to_be_bytes();
        [&[1][..], &length[1..], &body].concat()
    }
}

fn record(fragment: &[u8]) -> Vec<u8> {
    [&[22, 0x03, 0x01][..], &prefixed(fragment)].concat()
}

/// The bytes with their length in two bytes before them.
fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a length").to_be_bytes();
    [&length[..], bytes].concat()
}
