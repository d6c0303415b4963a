//! Counters: whole numbers of any size as decimal text.
//!
//! Owns adding an increment to the total that is stored on a subject. Does not own which
//! publishes may ask for it ([`super::publish`]).
//!
//! # Invariants
//! - The work is in proportion to the digits, which headers bound.
//!
//! Source: ADR-49; totals as nats-server 2.15.1 writes them.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

/// A sign and digits without leading zeros; zero has none and is not negative.
struct Number {
    negative: bool,
    digits: Vec<u8>,
}

impl Number {
    fn read(text: &[u8]) -> Option<Self> {
        let (negative, digits) = match text {
            [b'-', digits @ ..] => (true, digits),
            _ => (false, text.strip_prefix(b"+").unwrap_or(text)),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
        let digits = digits.get(zeros..).unwrap_or_default().to_vec();
        Some(Self { negative: negative && !digits.is_empty(), digits })
    }

    fn text(&self) -> String {
        if self.digits.is_empty() {
            return "0".into();
        }
        let sign = self.negative.then_some('-');
        sign.into_iter().chain(self.digits.iter().map(|digit| char::from(*digit))).collect()
    }
}

/// Is this an increment?
pub(super) fn is_increment(text: &[u8]) -> bool {
    Number::read(text).is_some()
}

/// The sum of two numbers; `None` if one of them is none.
pub(super) fn add(total: &[u8], increment: &[u8]) -> Option<String> {
    let (a, b) = (Number::read(total)?, Number::read(increment)?);
    let sum = if a.negative == b.negative {
        Number { negative: a.negative, digits: plus(&a.digits, &b.digits) }
    } else {
        let order = a.digits.len().cmp(&b.digits.len()).then_with(|| a.digits.cmp(&b.digits));
        match order {
            Ordering::Equal => Number { negative: false, digits: Vec::new() },
            Ordering::Greater => {
                Number { negative: a.negative, digits: minus(&a.digits, &b.digits) }
            }
            Ordering::Less => Number { negative: b.negative, digits: minus(&b.digits, &a.digits) },
        }
    };
    Some(sum.text())
}

fn plus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(a.len().max(b.len()) + 1);
    let (mut a, mut b) = (a.iter().rev(), b.iter().rev());
    let mut carry = 0;
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() {
            break;
        }
        let sum = x.map_or(0, |digit| digit - b'0') + y.map_or(0, |digit| digit - b'0') + carry;
        carry = sum / 10;
        digits.push(b'0' + sum % 10);
    }
    if carry > 0 {
        digits.push(b'1');
    }
    digits.reverse();
    digits
}

/// `a` is the larger.
fn minus(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = Vec::with_capacity(a.len());
    let mut b = b.iter().rev();
    let mut borrow = 0;
    for x in a.iter().rev() {
        let less = b.next().map_or(0, |digit| digit - b'0') + borrow;
        let x = x - b'0';
        borrow = u8::from(x < less);
        digits.push(b'0' + x + borrow * 10 - less);
    }
    while digits.last() == Some(&b'0') {
        digits.pop();
    }
    digits.reverse();
    digits
}

/// The number in a stored total, `{"val":"…"}`.
pub(super) fn stored(payload: &[u8]) -> Option<&[u8]> {
    let text = payload.strip_prefix(b"{\"val\":\"")?.strip_suffix(b"\"}")?;
    is_increment(text).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_agree_with_machine_numbers_and_go_on_beyond() {
        let some = [0_i64, 1, -1, 9, -9, 10, 99, -100, 101, 12_345, -99_999];
        for a in some {
            for b in some {
                let sum = add(alloc::format!("{a}").as_bytes(), alloc::format!("{b:+}").as_bytes());
                assert_eq!(sum, Some(alloc::format!("{}", a + b)), "{a} {b}");
            }
        }
        let big = add(b"99999999999999999999999999", b"+007");
        assert_eq!(big.as_deref(), Some("100000000000000000000000006"));
        assert_eq!(add(b"5", b"-0").as_deref(), Some("5"));
        for bad in [&b""[..], b"+", b"-", b"+-1", b"1.5", b"x"] {
            assert!(!is_increment(bad));
        }
        assert_eq!(stored(b"{\"val\":\"-3\"}"), Some(&b"-3"[..]));
        assert_eq!(stored(b"{\"val\":3}"), None);
    }
}
