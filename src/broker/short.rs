//! Byte strings that are mostly short: tokens of subjects and the names clients give to their
//! subscriptions.
//!
//! Owns the representation. A short one is in place and needs neither memory of its own nor a
//! look at another place, which is what matching among very many subscriptions waits for.

use alloc::boxed::Box;
use core::ops::Deref;

/// Bytes in place.
const SHORT: usize = 22;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Short(Bytes);

#[derive(Clone, Debug)]
enum Bytes {
    Here(u8, [u8; SHORT]),
    There(Box<[u8]>),
}

impl From<&[u8]> for Short {
    fn from(text: &[u8]) -> Self {
        let mut bytes = [0; SHORT];
        Self(match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(len)) => {
                place.copy_from_slice(text);
                Bytes::Here(len, bytes)
            }
            _ => Bytes::There(text.into()),
        })
    }
}

impl Deref for Short {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Bytes::Here(len, bytes) => bytes.get(..usize::from(*len)).unwrap_or(&[]),
            Bytes::There(bytes) => bytes,
        }
    }
}

impl PartialEq for Short {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Short {}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn every_length_comes_back_as_it_was() {
        for len in 0..64 {
            let text = vec![b'x'; len];
            let short = Short::from(&text[..]);
            assert_eq!(*short, text[..]);
            assert_eq!(matches!(short.0, Bytes::Here(..)), len <= SHORT);
        }
        assert!(size_of::<Short>() <= 24);
    }
}
