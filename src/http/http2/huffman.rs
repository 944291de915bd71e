//! Decoder of the Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).

/// The octets by the length of their codes in bits, in the order of their codes.
///
/// The code is canonical: the codes of one length are consecutive numbers, and the first code of a
/// length follows from the last code of the length before. The end of the string (30 bits, all
/// ones) is no octet: a string that contains it is malformed.
const OCTETS: &[(u32, &[u8])] = &[
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, b"\x80\x82\x83\xa2\xb8\xc2\xe0\xe2"),
    (21, b"\x99\xa1\xa7\xac\xb0\xb1\xb3\xd1\xd8\xd9\xe3\xe5\xe6"),
    (
        22,
        b"\x81\x84\x85\x86\x88\x92\x9a\x9c\xa0\xa3\xa4\xa9\xaa\xad\xb2\xb5\xb9\xba\xbb\xbd\xbe\
           \xc4\xc6\xe4\xe8\xe9",
    ),
    (
        23,
        b"\x01\x87\x89\x8a\x8b\x8c\x8d\x8f\x93\x95\x96\x97\x98\x9b\x9d\x9e\xa5\xa6\xa8\xae\xaf\
           \xb4\xb6\xb7\xbc\xbf\xc5\xe7\xef",
    ),
    (24, b"\t\x8e\x90\x91\x94\x9f\xab\xce\xd7\xe1\xec\xed"),
    (25, b"\xc7\xcf\xea\xeb"),
    (
        26,
        b"\xc0\xc1\xc8\xc9\xca\xcd\xd2\xd5\xda\xdb\xee\xf0\xf2\xf3\xff",
    ),
    (
        27,
        b"\xcb\xcc\xd3\xd4\xd6\xdd\xde\xdf\xf1\xf4\xf5\xf6\xf7\xf8\xfa\xfb\xfc\xfd\xfe",
    ),
    (
        28,
        b"\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x0e\x0f\x10\x11\x12\x13\x14\x15\x17\x18\x19\x1a\
           \x1b\x1c\x1d\x1e\x1f\x7f\xdc\xf9",
    ),
    (30, b"\n\r\x16"),
];
/// Bits of the longest code.
const MAX_CODE_BITS: u32 = 30;

/// Decodes one string, in pieces of any size.
#[derive(Default)]
pub(super) struct Huffman {
    /// The bits of an incomplete code.
    bits: u64,
    /// The number of bits.
    count: u32,
}

impl Huffman {
    /// Processes the next octet of the string and calls `decoded` with each octet; `None` if no
    /// octet has this code.
    pub(super) fn take(&mut self, octet: u8, mut decoded: impl FnMut(u8)) -> Option<()> {
        self.bits = self.bits << 8 | u64::from(octet);
        self.count += 8;
        while let Some((octet, length)) = self.first() {
            self.count -= length;
            self.bits &= (1 << self.count) - 1;
            decoded(octet);
        }
        (self.count < MAX_CODE_BITS).then_some(())
    }

    /// Ends the string; `None` if the padding is not up to seven ones.
    pub(super) fn end(self) -> Option<()> {
        let is_padding = self.count < 8 && self.bits == (1 << self.count) - 1;
        is_padding.then_some(())
    }

    /// Returns the octet of the first code and the length of the code, if the code is complete.
    fn first(&self) -> Option<(u8, u32)> {
        let (mut code, mut before) = (0, 0);
        for (length, octets) in OCTETS {
            let more = self.count.checked_sub(*length)?;
            code <<= length - before;
            let place = usize::try_from((self.bits >> more).checked_sub(code)?).ok()?;
            if let Some(octet) = octets.get(place) {
                return Some((*octet, *length));
            }
            code += octets.len() as u64;
            before = *length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &[u8]) -> Option<Vec<u8>> {
        let (mut huffman, mut all) = (Huffman::default(), Vec::new());
        for octet in text {
            huffman.take(*octet, |octet| all.push(octet))?;
        }
        huffman.end()?;
        Some(all)
    }

    #[test]
    fn the_strings_of_the_standard_are_decoded() {
        let custom = [0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf];
        let strings: [(&[u8], &[u8]); 7] = [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                b"www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], b"no-cache"),
            (&custom, b"custom-value"),
            (&[0x64, 0x02], b"302"),
            // `#` and the octets beside it, a tab, a line feed, 0xff.
            (&[0xff, 0xaf], b"#"),
            (&[0xff, 0xff, 0xea], b"\t"),
            (&[0xff, 0xff, 0xff, 0xf3], b"\n"),
        ];
        for (text, decoded) in strings {
            assert_eq!(decode(text).as_deref(), Some(decoded), "{text:x?}");
        }
    }

    #[test]
    fn every_octet_has_one_code_and_the_end_has_the_last() {
        let mut all: Vec<u8> = OCTETS
            .iter()
            .flat_map(|(_, octets)| *octets)
            .copied()
            .collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..=255));
        let share = |(length, octets): &(u32, &[u8])| (octets.len() as u64) << (30 - length);
        assert_eq!(OCTETS.iter().map(share).sum::<u64>(), (1 << 30) - 1);
    }

    #[test]
    fn padding_that_is_long_or_no_ones_and_the_end_are_refused() {
        for text in [
            &[0xff][..],
            &[0x07, 0xff],
            &[0x06],
            &[0xff, 0xff, 0xff, 0xff],
            &[0xff; 64],
        ] {
            assert_eq!(decode(text), None, "{text:x?}");
        }
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
    }
}
