//! The zone that log times are in.
//!
//! Owns which zone that is. As nats-server's, it is read once: a zone that changes while the
//! server runs is seen after a restart.
//!
//! Source: the log of nats-server 2.15; POSIX, "Environment Variables", `TZ`.

use crate::time::Timestamp;
use tz::TimeZone;

const NANOS_PER_SEC: i64 = 1_000_000_000;

/// A time zone. What cannot be read is UTC.
#[derive(Debug)]
pub struct Zone(Option<TimeZone>);

impl Zone {
    /// UTC.
    pub const UTC: Zone = Zone(None);

    /// What the variable `TZ` says, else `/etc/localtime`.
    pub fn local() -> Self {
        match std::env::var("TZ") {
            Ok(text) => Self::named(&text),
            Err(std::env::VarError::NotPresent) => Self::named("localtime"),
            Err(std::env::VarError::NotUnicode(_)) => Self::UTC,
        }
    }

    /// By a name such as `Europe/Berlin`, the path of a file, or a rule such as
    /// `CET-1CEST,M3.5.0,M10.5.0/3`.
    fn named(text: &str) -> Self {
        Self(TimeZone::from_posix_tz(text).ok())
    }

    /// `now` moved by what this zone is ahead of UTC, so that its parts in UTC are the local
    /// ones.
    pub fn shift(&self, now: Timestamp) -> Timestamp {
        let Some(zone) = &self.0 else { return now };
        let zone = zone.as_ref();
        let kind = zone.find_local_time_type(now.0.div_euclid(NANOS_PER_SEC)).ok().or_else(|| {
            // A file without a rule for the time after its last change: that lasts.
            let last = zone.transitions().last()?;
            zone.local_time_types().get(last.local_time_type_index())
        });
        let ahead = kind.map_or(0, |kind| i64::from(kind.ut_offset()));
        Timestamp(now.0.saturating_add(ahead * NANOS_PER_SEC))
    }
}

/// The offset from UTC in seconds that a zone has at a time in Unix seconds; `None`: there is
/// no such zone. An empty name is the zone of this machine.
pub(super) fn offset(name: &str, at: i64) -> Option<i64> {
    let zone = if name.is_empty() || name == "Local" {
        Zone::local()
    } else if name == "UTC" {
        Zone::UTC
    } else if name.starts_with(['/', ':', '.']) || name.contains("..") {
        return None;
    } else {
        // A rule is no name: `by name` only.
        let zone = Zone::named(name);
        let known = zone.0.is_some() && !name.contains([',', '<', '>']);
        if known { zone } else { return None }
    };
    let moved = zone.shift(Timestamp(at.saturating_mul(NANOS_PER_SEC)));
    Some(moved.0 / NANOS_PER_SEC - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(zone: &Zone, utc: &str) -> String {
        zone.shift(Timestamp::parse_rfc3339(utc).unwrap()).rfc3339()
    }

    #[test]
    fn a_zone_is_named_by_a_rule_or_a_name() {
        let rule = Zone::named("CET-1CEST,M3.5.0,M10.5.0/3");
        assert_eq!(at(&rule, "2026-11-24T10:07:25.8Z"), "2026-11-24T11:07:25.8Z");
        assert_eq!(at(&rule, "2026-03-29T00:59:59Z"), "2026-03-29T01:59:59Z");
        assert_eq!(at(&rule, "2026-03-29T01:00:00Z"), "2026-03-29T03:00:00Z");
        assert_eq!(at(&rule, "2026-10-25T01:00:00Z"), "2026-10-25T02:00:00Z");
        let west = Zone::named("<-03>3");
        assert_eq!(at(&west, "2027-01-01T01:00:00Z"), "2026-12-31T22:00:00Z");
        // Where the system has no list of zones these are UTC.
        for (name, summer) in [("Europe/Berlin", "02:00"), ("Asia/Kolkata", "05:30")] {
            if std::path::Path::new("/usr/share/zoneinfo").join(name).exists() {
                let expected = format!("2026-07-01T{summer}:00Z");
                assert_eq!(at(&Zone::named(name), "2026-07-01T00:00:00Z"), expected, "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_read_is_utc() {
        for name in ["", "No/Such_Zone", ":/no/such/file", "/dev/null", "../../../etc/passwd"] {
            let noon = "2026-07-01T12:00:00Z";
            assert_eq!(at(&Zone::named(name), noon), noon, "{name}");
        }
    }
}
