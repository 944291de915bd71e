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
pub(crate) fn ipv4(address: Ipv4Addr) -> ([u8; 15], usize) {
    let (mut text, mut used) = ([b'.'; 15], 0);
    let mut add = |byte: u8| {
        if let Some(place) = text.get_mut(used) {
            *place = byte;
        }
        used += 1;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            add(b'.');
        }
        if octet >= 100 {
            add(b'0' + octet / 100);
        }
        if octet >= 10 {
            add(b'0' + octet / 10 % 10);
        }
        add(b'0' + octet % 10);
    }
    (text, used)
}

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
