//! The bodies of requests about a consumer that exists, one member each.
//!
//! Owns how they are read; what they ask for is `info`'s.
//!
//! Source: seen from nats-server 2.15.1, the names of its structs from its error texts.

use alloc::string::String;

use super::config::time;
use crate::jetstream::json::{self, FromJson, Json, Path};
use crate::time::Timestamp;

/// A body with one member that counts, under its name in nats-server.
macro_rules! request {
    ($name:ident, $theirs:literal, $member:ident: $kind:ty = $key:literal, $read:expr) => {
        #[doc = concat!("`", $theirs, "`")]
        #[derive(Debug, Default)]
        pub(super) struct $name {
            pub(super) $member: $kind,
        }

        impl FromJson for $name {
            const NAME: &'static str = $theirs;

            fn field(&mut self, key: &str, value: &Json, path: Path<'_>) -> Result<bool, String> {
                let read: fn(&mut $kind, &Json, Path<'_>) -> Result<bool, String> = $read;
                if key == $key { read(&mut self.$member, value, path) } else { Ok(false) }
            }
        }
    };
}

request!(PageRequest, "JSApiConsumersRequest", offset: i64 = "offset",
    |to, value, path| json::number(to, value, path, "int"));
request!(ResetRequest, "JSApiConsumerResetRequest", seq: u64 = "seq", json::uint);
request!(UnpinRequest, "JSApiConsumerUnpinRequest", group: String = "group", json::string);
request!(PauseRequest, "JSApiConsumerPauseRequest", until: Option<Timestamp> = "pause_until",
    |to, value, _| time(to, value));
