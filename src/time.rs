//! Time as values: [`Instant`] for timers, [`Timestamp`] for what is stored and shown.
//!
//! Nothing here reads a clock; the shell passes both in as [`Now`].
//!
//! # Invariants
//! - An [`Instant`] never goes backwards within one run; a [`Timestamp`] may (clocks lie on
//!   gateways), so timers use only the former.
//!
//! Source: RFC 3339 for the text form; Go's `time.Duration.String` for durations in texts.

use alloc::string::String;
use core::fmt::{self, Write};
use core::ops::{Add, Sub};
pub use core::time::Duration;

/// Monotonic nanoseconds since the shell started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub u64);

/// Unix nanoseconds, UTC. 0 is "never".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Both clocks, read together by the shell once a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For timers.
    pub instant: Instant,
    /// For what is stored and shown.
    pub wall: Timestamp,
}

/// `duration` in whole nanoseconds, at most `u64::MAX` (584 years).
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Instant {
    /// The time from `earlier` to this one, zero if it lies ahead.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(duration)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(duration)))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add_unsigned(nanos(duration)))
    }
}

const NANOS_PER_SEC: i64 = 1_000_000_000;
const SECS_PER_DAY: i64 = 86_400;

impl Timestamp {
    /// The text Go gives the zero time; clients of JetStream depend on it.
    pub const ZERO_TEXT: &'static str = "0001-01-01T00:00:00Z";

    /// From a civil date and time of day, UTC. `None` if a part is out of its range or the
    /// result does not fit (years 1678 to 2262).
    pub fn from_civil(
        year: i64,
        month: u8,
        day: u8,
        second_of_day: i64,
        nanos: i64,
    ) -> Option<Self> {
        if !(1..=12).contains(&month) || day == 0 || day > days_in_month(year, month) {
            return None;
        }
        let seconds = days_from_civil(year, month, day)?
            .checked_mul(SECS_PER_DAY)?
            .checked_add(second_of_day)?;
        seconds.checked_mul(NANOS_PER_SEC)?.checked_add(nanos).map(Timestamp)
    }

    /// Parses RFC 3339 with 0 to 9 fraction digits and any zone. The zero time of Go parses
    /// as `Timestamp(0)`.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        if text == Self::ZERO_TEXT {
            return Some(Timestamp(0));
        }
        let bytes = text.as_bytes();
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = bytes.get(from..to)?;
            digits.iter().try_fold(0_i64, |sum, &byte| {
                byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
            })
        };
        let at = |index: usize, expected: u8| bytes.get(index) == Some(&expected);
        if !at(4, b'-') || !at(7, b'-') || !at(13, b':') || !at(16, b':') {
            return None;
        }
        if !matches!(bytes.get(10), Some(b'T' | b't' | b' ')) {
            return None;
        }
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let mut rest = 19;
        let mut fraction = 0_i64;
        if at(rest, b'.') {
            rest += 1;
            let mut unit = NANOS_PER_SEC / 10;
            let start = rest;
            while let Some(digit) = bytes.get(rest).filter(|byte| byte.is_ascii_digit()) {
                fraction += i64::from(digit - b'0') * unit;
                unit /= 10;
                rest += 1;
            }
            if rest == start {
                return None;
            }
        }
        let offset_minutes = match bytes.get(rest) {
            Some(b'Z' | b'z') if bytes.len() == rest + 1 => 0,
            Some(sign @ (b'+' | b'-')) if bytes.len() == rest + 6 && at(rest + 3, b':') => {
                let minutes = number(rest + 1, rest + 3)? * 60 + number(rest + 4, rest + 6)?;
                if *sign == b'+' { minutes } else { -minutes }
            }
            _ => return None,
        };
        let second_of_day = hour * 3600 + minute * 60 + second - offset_minutes * 60;
        Self::from_civil(
            year,
            u8::try_from(month).ok()?,
            u8::try_from(day).ok()?,
            second_of_day,
            fraction,
        )
    }

    /// Its parts in UTC.
    pub fn civil(self) -> Civil {
        let seconds = self.0.div_euclid(NANOS_PER_SEC);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECS_PER_DAY));
        let time = seconds.rem_euclid(SECS_PER_DAY);
        Civil {
            year,
            month,
            day,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
            nanos: self.0.rem_euclid(NANOS_PER_SEC),
        }
    }

    /// RFC 3339 in UTC, trailing zeros of the fraction dropped, as Go's `RFC3339Nano`.
    /// `Timestamp(0)` gives the zero time of Go.
    pub fn rfc3339(self) -> String {
        let mut text = String::with_capacity(30);
        // Writing to a String cannot fail.
        let _ = write!(text, "{self}");
        text
    }
}

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// 1678 to 2262.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
    /// Below 1,000,000,000.
    pub nanos: i64,
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str(Self::ZERO_TEXT);
        }
        let Civil { year, month, day, hour, minute, second, nanos: fraction } = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if fraction != 0 {
            let (mut digits, mut width) = (fraction, 9);
            while digits % 10 == 0 {
                digits /= 10;
                width -= 1;
            }
            write!(f, ".{digits:0width$}")?;
        }
        f.write_str("Z")
    }
}

/// A duration as Go prints it: `1m30s`, `250ms`, `0s`.
pub struct GoDuration(pub Duration);

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = nanos(self.0);
        let decimal = |f: &mut fmt::Formatter<'_>, unit: u64, name: &str| {
            let (whole, mut part, mut width) = (nanos / unit, nanos % unit, 0_usize);
            let mut scale = unit;
            while scale > 1 {
                scale /= 10;
                width += 1;
            }
            if part == 0 {
                return write!(f, "{whole}{name}");
            }
            while part % 10 == 0 {
                part /= 10;
                width -= 1;
            }
            write!(f, "{whole}.{part:0width$}{name}")
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => decimal(f, 1_000, "µs"),
            1_000_000..1_000_000_000 => decimal(f, 1_000_000, "ms"),
            _ => {
                let seconds = nanos / 1_000_000_000;
                let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
                if hours > 0 {
                    write!(f, "{hours}h{minutes}m")?;
                } else if minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                let rest = GoSeconds(seconds % 60, nanos % 1_000_000_000);
                write!(f, "{rest}")
            }
        }
    }
}

/// Seconds with their fraction, `1.5s`.
struct GoSeconds(u64, u64);

impl fmt::Display for GoSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut part, mut width) = (self.1, 9);
        if part == 0 {
            return write!(f, "{}s", self.0);
        }
        while part % 10 == 0 {
            part /= 10;
            width -= 1;
        }
        write!(f, "{}.{part:0width$}s", self.0)
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// The last day of a month, 1 to 12, of any year.
pub fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar, counted by years that start
/// in March so that the leap day comes last.
fn days_from_civil(year: i64, month: u8, day: u8) -> Option<i64> {
    let month = i64::from(month);
    let year = if month <= 2 { year.checked_sub(1)? } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era.checked_mul(146_097)?.checked_add(day_of_era - 719_468)
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn times_survive_the_way_to_text_and_back() {
        for (nanos, text) in [
            (0, "0001-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (1_795_456_083_344_606_296, "2026-11-23T17:48:03.344606296Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (4_102_444_799_500_000_000, "2099-12-31T23:59:59.5Z"),
        ] {
            assert_eq!(Timestamp(nanos).rfc3339(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Some(Timestamp(nanos)));
        }
        assert_eq!(
            Timestamp::parse_rfc3339("2026-11-23T19:48:03+02:00"),
            Timestamp::parse_rfc3339("2026-11-23T17:48:03Z")
        );
        for bad in ["", "2026-13-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-11-23T17:48:03"] {
            assert_eq!(Timestamp::parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_print_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (2_000_000_000, "2s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(GoDuration(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
