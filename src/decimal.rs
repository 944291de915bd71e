//! Numbers and addresses in digits, written into bytes without the machinery of `fmt`.

use std::net::Ipv4Addr;

use bytes::BufMut;

/// Pairs of digits of a `u64`, at most.
const MAX_PAIRS: usize = 10;

/// Appends a whole number.
pub(crate) fn put(out: &mut impl BufMut, value: u64) {
    out.put_slice(Digits::of(value, 1).as_bytes());
}

/// Appends a whole number, with zeros before it where it has fewer than `least` digits (at most 20).
pub(crate) fn put_padded(out: &mut impl BufMut, value: u64, least: usize) {
    out.put_slice(Digits::of(value, least).as_bytes());
}

/// A whole number in decimal.
pub(crate) struct Digits {
    text: [[u8; 2]; MAX_PAIRS],
    /// Where the digits begin in `text`.
    from: usize,
}

impl Digits {
    /// Returns the digits of a number. Zeros precede a number with fewer than `least` digits (at
    /// most 20).
    #[inline]
    pub(crate) fn of(mut value: u64, least: usize) -> Self {
        let mut text = [[b'0'; 2]; MAX_PAIRS];
        let mut from = 2 * MAX_PAIRS;
        for place in text.iter_mut().rev() {
            from -= 2;
            *place = two_digits(value % 100);
            if value < 100 {
                from += usize::from(value < 10);
                break;
            }
            value /= 100;
        }
        let from = from.min(2 * MAX_PAIRS - least.min(2 * MAX_PAIRS));
        Self { text, from }
    }

    /// The digits as text.
    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.text
            .as_flattened()
            .get(self.from..)
            .unwrap_or_default()
    }
}

/// Appends an IPv4 address.
pub(crate) fn put_ipv4(out: &mut impl BufMut, address: Ipv4Addr) {
    let (text, used) = ipv4(address);
    out.put_slice(text.get(..used).unwrap_or_default());
}

/// Returns an IPv4 address as text, and the length of the text.
pub(crate) fn ipv4(address: Ipv4Addr) -> ([u8; 16], usize) {
    let (mut text, mut used) = ([b'.'; 16], 0);
    for octet in address.octets() {
        let digits = OCTETS.get(usize::from(octet)).unwrap_or(&[b'.'; 4]);
        let place = text.get_mut(used..).and_then(|rest| rest.first_chunk_mut());
        if let Some(place) = place {
            *place = *digits;
        }
        used += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
    }
    (text, used - 1)
}

/// The digits of each octet, and dots behind them.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, and an octet is less than 256"
)]
const OCTETS: [[u8; 4]; 256] = {
    let mut all = [[b'.'; 4]; 256];
    let mut octet = 0_u8;
    loop {
        let ones = b'0' + octet % 10;
        let tens = b'0' + octet / 10 % 10;
        all[octet as usize] = match octet {
            0..=9 => [ones, b'.', b'.', b'.'],
            10..=99 => [tens, ones, b'.', b'.'],
            100..=255 => [b'0' + octet / 100, tens, ones, b'.'],
        };
        match octet.checked_add(1) {
            Some(next) => octet = next,
            None => break all,
        }
    }
};

/// The two digits of a number below 100.
#[expect(
    clippy::indexing_slicing,
    reason = "the remainder is less than the length"
)]
pub(crate) fn two_digits(value: impl Into<u64>) -> [u8; 2] {
    PAIRS[(value.into() % 100) as usize]
}

/// The two digits of each number below 100.
#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, and the number is less than 100"
)]
const PAIRS: [[u8; 2]; 100] = {
    let mut all = [[b'0'; 2]; 100];
    let mut value = 0_u8;
    while value < 100 {
        all[value as usize] = [b'0' + value / 10, b'0' + value % 10];
        value += 1;
    }
    all
};

/// The digits of bytes in hexadecimal, in lower case.
pub(crate) fn hex<const N: usize>(bytes: &[u8; N]) -> [[u8; 2]; N] {
    // Without a table and with a fixed length, the compiler works on many digits at once.
    let digit = |half: u8| half + if half < 10 { b'0' } else { b'a' - 10 };
    let mut text = [[0; 2]; N];
    for (pair, byte) in text.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 15)];
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_addresses_are_written_as_they_print(number: u64, address: Ipv4Addr) {
            let mut out = Vec::new();
            put(&mut out, number);
            out.push(b' ');
            put_padded(&mut out, number % 1000, 3);
            out.push(b' ');
            put_ipv4(&mut out, address);
            out.push(b' ');
            out.extend_from_slice(hex(&number.to_be_bytes()).as_flattened());
            let printed = format!("{number} {:03} {address} {number:016x}", number % 1000);
            prop_assert_eq!(String::from_utf8(out), Ok(printed));
        }
    }
}
