//! Numbers and addresses in decimal, written into bytes without the machinery of `fmt`.

use std::net::Ipv4Addr;

use bytes::BufMut;

/// The digits of the largest `u64`.
const MAX_DIGITS: usize = 20;

/// Appends a whole number.
pub(crate) fn put(out: &mut impl BufMut, value: u64) {
    put_padded(out, value, 1);
}

/// Appends a whole number, with zeros before it where it has fewer than `least` digits (at most 20).
pub(crate) fn put_padded(out: &mut impl BufMut, value: u64, least: usize) {
    let (text, from) = digits(value, least);
    out.put_slice(text.get(from..).unwrap_or_default());
}

/// Returns a whole number as digits, and where the digits begin. Zeros precede a number with fewer
/// than `least` digits (at most 20).
pub(crate) fn digits(mut value: u64, least: usize) -> ([u8; MAX_DIGITS], usize) {
    let mut text = [b'0'; MAX_DIGITS];
    let mut used = 0;
    for digit in text.iter_mut().rev() {
        *digit = digit_of(value % 10);
        value /= 10;
        used += 1;
        if value == 0 && used >= least {
            break;
        }
    }
    (text, MAX_DIGITS - used)
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
pub(crate) fn two_digits(value: u8) -> [u8; 2] {
    [b'0' + value / 10 % 10, b'0' + value % 10]
}

fn digit_of(value: u64) -> u8 {
    b'0' + u8::try_from(value).unwrap_or(0)
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
            let printed = format!("{number} {:03} {address}", number % 1000);
            prop_assert_eq!(String::from_utf8(out), Ok(printed));
        }
    }
}
