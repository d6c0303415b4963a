//! When a schedule is due: `@at`, `@every`, six fields of cron, and the names for some.
//!
//! Owns the patterns of `Nats-Schedule` and the times they stand for, in UTC. Does not own
//! what is done then ([`super::schedule`]).
//!
//! # Invariants
//! - The search for a time ends after the days of five years.
//!
//! Source: ADR-51; which patterns are possible, and the times, seen from nats-server 2.15.1.

use crate::jetstream::engine::publish::go_duration_nanos;
use crate::time::Timestamp;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// As far as a time is looked for.
const DAYS_MAX: i64 = 5 * 366;

/// What `Nats-Schedule` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// Once, at this time.
    At(i64),
    /// Again and again, so many nanoseconds apart.
    Every(i64),
    Cron(Cron),
}

/// The values each field allows, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cron {
    seconds: u64,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// The day of the month and that of the week must fit both, not only one of them.
    both_days: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Pattern {
    /// `None`: no pattern, or one that is never due.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_end();
        if let Some(time) = text.strip_prefix("@at ") {
            let is_whole = time.as_bytes().get(10) == Some(&b'T');
            let time = Timestamp::parse_rfc3339(time).filter(|_| is_whole)?;
            return Some(Self::At(time.0));
        }
        if let Some(every) = text.strip_prefix("@every ") {
            let every = i64::try_from(go_duration_nanos(every.as_bytes())?).ok()?;
            return (every >= SECOND).then_some(Self::Every(every));
        }
        let cron = Cron::parse(match text {
            "@yearly" | "@annually" => "0 0 0 1 1 *",
            "@monthly" => "0 0 0 1 * *",
            "@weekly" => "0 0 0 * * 0",
            "@daily" | "@midnight" => "0 0 0 * * *",
            "@hourly" => "0 0 * * * *",
            fields => fields,
        })?;
        Some(Self::Cron(cron))
    }

    /// The first time of a schedule that is stored at `stored`.
    pub(super) fn first(&self, stored: i64) -> Option<i64> {
        match self {
            Self::At(at) => Some(*at),
            Self::Every(every) => {
                let whole = stored.checked_add(SECOND - 1)?.div_euclid(SECOND) * SECOND;
                whole.checked_add(*every)
            }
            Self::Cron(cron) => cron.next(stored),
        }
    }

    /// The next time after `now`, for one that was due at `at`. `None`: that was the last.
    pub(super) fn next(&self, at: i64, now: i64) -> Option<i64> {
        match self {
            Self::At(_) => None,
            Self::Every(every) => {
                let missed = now.saturating_sub(at).max(0) / every;
                at.checked_add(every.checked_mul(missed.checked_add(1)?)?)
            }
            Self::Cron(cron) => cron.next(now.max(at)),
        }
    }
}

impl Cron {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split_ascii_whitespace();
        let mut field = |min, max, names: &[&str]| bits(fields.next()?, min, max, names);
        let (seconds, _) = field(0, 59, &[])?;
        let (minutes, _) = field(0, 59, &[])?;
        let (hours, _) = field(0, 23, &[])?;
        let (days, any_day) = field(1, 31, &[])?;
        let (months, _) = field(1, 12, &MONTHS)?;
        let (weekdays, any_weekday) = field(0, 6, &WEEKDAYS)?;
        let both_days = any_day || any_weekday;
        let cron = Self { seconds, minutes, hours, days, months, weekdays, both_days };
        fields.next().is_none().then_some(cron)
    }

    /// The first time after this one.
    fn next(&self, after: i64) -> Option<i64> {
        let from = after.div_euclid(SECOND).checked_add(1)?;
        let first_day = from.div_euclid(DAY);
        for day in first_day..first_day.saturating_add(DAYS_MAX) {
            if !self.has_day(day)? {
                continue;
            }
            let earliest = if day == first_day { from.rem_euclid(DAY) } else { 0 };
            if let Some(second) = self.second_of_day(earliest) {
                return day.checked_mul(DAY)?.checked_add(second)?.checked_mul(SECOND);
            }
        }
        None
    }

    fn has_day(&self, day: i64) -> Option<bool> {
        let civil = Timestamp(day.checked_mul(DAY)?.checked_mul(SECOND)?).civil();
        if !has(self.months, civil.month) {
            return Some(false);
        }
        // The first day of Unix time was a Thursday.
        let weekday = (day + 4).rem_euclid(7);
        let (in_month, in_week) = (has(self.days, civil.day), has(self.weekdays, weekday));
        Some(if self.both_days { in_month && in_week } else { in_month || in_week })
    }

    /// The first second of a day from `earliest` on.
    fn second_of_day(&self, earliest: i64) -> Option<i64> {
        let units = (earliest / 3600, earliest / 60 % 60, earliest % 60);
        let (hour, minute, second) = units;
        if bit_from(self.hours, hour) == Some(hour) {
            if bit_from(self.minutes, minute) == Some(minute)
                && let Some(second) = bit_from(self.seconds, second)
            {
                return Some(hour * 3600 + minute * 60 + second);
            }
            if let Some(minute) = bit_from(self.minutes, minute + 1) {
                return Some(hour * 3600 + minute * 60 + bit_from(self.seconds, 0)?);
            }
        }
        let hour = bit_from(self.hours, hour + 1)?;
        Some(hour * 3600 + bit_from(self.minutes, 0)? * 60 + bit_from(self.seconds, 0)?)
    }
}

fn has(bits: u64, value: i64) -> bool {
    bit_from(bits, value) == Some(value)
}

/// The lowest value from `from` on.
fn bit_from(bits: u64, from: i64) -> Option<i64> {
    let from = u32::try_from(from).ok()?;
    let above = bits.checked_shr(from)?;
    (above != 0).then(|| i64::from(from + above.trailing_zeros()))
}

/// The values of one field, and whether it allows all.
fn bits(field: &str, min: u32, max: u32, names: &[&str]) -> Option<(u64, bool)> {
    let value = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let value = match named {
            Some(index) => u32::try_from(index).ok()? + min,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (min..=max).contains(&value).then_some(value)
    };
    let (mut found, mut is_any) = (0, false);
    for part in field.split(',').filter(|part| !part.is_empty()) {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let step_by = match step {
            Some(step) => step.parse::<u32>().ok().filter(|step| *step > 0)?,
            None => 1,
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (value(from)?, value(to)?),
            None if matches!(range, "*" | "?") => {
                is_any |= step_by == 1;
                (min, max)
            }
            None => {
                let from = value(range)?;
                (from, if step.is_some() { max } else { from })
            }
        };
        if from > to {
            return None;
        }
        for value in (from..=to).step_by(usize::try_from(step_by).ok()?) {
            found |= 1 << value;
        }
    }
    Some((found, is_any))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> i64 {
        Timestamp::parse_rfc3339(text).unwrap().0
    }

    fn next(pattern: &str, after: &str) -> alloc::string::String {
        let found = Pattern::parse(pattern).and_then(|pattern| pattern.first(time(after)));
        found.map_or_else(|| "never".into(), |at| Timestamp(at).rfc3339())
    }

    #[test]
    fn a_pattern_is_due_at_the_times_it_names() {
        for (pattern, after, at) in [
            ("@every 1s", "2026-11-24T20:57:35.73Z", "2026-11-24T20:57:37Z"),
            ("@every 1.5s", "2026-11-24T20:58:53.13Z", "2026-11-24T20:58:55.5Z"),
            ("@at 2027-01-01T00:00:00+01:00", "2026-11-24T20:58:53Z", "2026-12-31T23:00:00Z"),
            ("* * * * * *", "2026-11-24T20:58:53.13Z", "2026-11-24T20:58:54Z"),
            ("@hourly", "2026-11-24T20:58:53.13Z", "2026-11-24T21:00:00Z"),
            ("@daily", "2026-12-31T23:59:59Z", "2027-01-01T00:00:00Z"),
            ("@weekly", "2026-11-24T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("@yearly", "2026-11-24T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 0 29 2 *", "2026-11-24T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 12 31 * MON", "2026-11-24T00:00:00Z", "2026-11-30T12:00:00Z"),
            ("0 0 12 */2 * MON", "2026-11-24T00:00:00Z", "2026-11-25T12:00:00Z"),
            ("0 0 12 * jan,Feb MON-FRI", "2026-11-24T00:00:00Z", "2027-01-01T12:00:00Z"),
            ("30 59 23 * * *", "2026-11-24T23:59:30Z", "2026-11-25T23:59:30Z"),
            ("0/15 1-5/2,7 */3 * * 0", "2026-11-29T00:07:45Z", "2026-11-29T03:01:00Z"),
        ] {
            assert_eq!(next(pattern, after), at, "{pattern} after {after}");
        }
    }

    #[test]
    fn what_is_no_pattern_or_never_due_is_refused() {
        for bad in [
            "bogus",
            "* * * * *",
            "* * * * * * *",
            "61 * * * * *",
            "*/0 * * * * *",
            "5-1 * * * * *",
            "0 0 0 L * *",
            "0 0 0 * * 7",
            "0 0 0 30 FEB *",
            "0 0 0 31 2,4 *",
            ", * * * * *",
            "@Weekly",
            "@every 500ms",
            "@every -1s",
            "@every x",
            "@at 2020-01-01T00:00:00",
            "@at  2020-01-01T00:00:00Z",
            "TZ=UTC 0 0 0 1 1 *",
            "",
        ] {
            assert_eq!(next(bad, "2026-11-24T00:00:00Z"), "never", "{bad}");
        }
        assert_ne!(next("1,,2 0  0 31 2,4 1", "2026-11-24T00:00:00Z"), "never");
        assert_ne!(next("@weekly ", "2026-11-24T00:00:00Z"), "never");
    }

    #[test]
    fn missed_times_collapse_into_one() {
        let every = Pattern::parse("@every 2s").unwrap();
        let at = time("2026-11-24T20:00:00Z");
        assert_eq!(every.next(at, at + 5), Some(at + 2 * SECOND));
        assert_eq!(every.next(at, at + 7 * SECOND), Some(at + 8 * SECOND));
        assert_eq!(every.next(at, at - 7 * SECOND), Some(at + 2 * SECOND));
        assert_eq!(Pattern::At(at).next(at, at), None);
    }
}
