//! Keys, credentials and what is read from tokens.
//!
//! Owns nkeys ([`nkey`]), creds files ([`creds`]), the declarations of accounts ([`account`])
//! and users ([`user`]), signing in ([`sign_in`], [`certificate`], [`mapped`]), tokens ([`jwt`])
//! and whom they make us trust ([`trust`]), what somebody may do ([`permissions`],
//! [`access`]), and [`Secret`], the type every password, token and
//! seed travels in. Does not read files and keeps no connection.
//!
//! # Invariants
//! - The `Debug` form of a secret shows nothing of it, and its bytes are overwritten when it
//!   is dropped.

use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

pub mod access;
pub mod account;
pub mod certificate;
pub mod creds;
pub mod jwt;
pub mod mapped;
pub mod nkey;
pub mod permissions;
pub mod sign_in;
pub mod trust;
pub mod user;

/// Text that must not reach a log: a password, a token, a JWT.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes `text` over.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text itself, for putting it on the wire.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Default for Secret {
    fn default() -> Self {
        Self::new("")
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let mut bytes = core::mem::take(&mut self.0).into_boxed_bytes();
        wipe(&mut bytes);
    }
}

/// Overwrites `bytes` in a way the optimiser does not see through.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    core::hint::black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn debug_form_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("s3cr3t")), "Secret");
    }
}
