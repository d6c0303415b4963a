//! Texts with a unit or a shape: durations, sizes, addresses, URLs.
//!
//! Owns their grammar. Does not own limits or defaults of any key. Errors are the end of
//! a sentence that begins with the key.
//!
//! Source: the nats-server configuration documentation, checked against nats-server 2.15.

use super::{RemoteUrl, Scheme, Secret};
use std::time::Duration;

/// The port of a leaf remote whose URL names none.
pub const LEAF_PORT: u16 = 7422;

/// `"1h30m"`, `"1.5s"`, `"500ms"`, `"0"`: decimal numbers with `ns us ms s m h`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: &[(&str, u64)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let wrong = || format!("\"{}\" is no duration; write like \"30s\", \"1h30m\"", short(text));
    if text.starts_with('-') {
        return Err(format!("\"{}\" is negative", short(text)));
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    // In a 64-bit count of nanoseconds: 292 years, the same bound as nats-server's.
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => {
                let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
                after.split_at(end)
            }
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(wrong());
        }
        let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let Some((_, nanos)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(if unit.is_empty() {
                format!("\"{}\" lacks a unit; write like \"30s\", \"1h30m\"", short(text))
            } else {
                format!("\"{}\" has an unknown unit; there are ns us ms s m h", short(text))
            });
        };
        let mut part = if whole.is_empty() {
            Some(0)
        } else {
            whole.parse::<u64>().ok().and_then(|number| number.checked_mul(*nanos))
        };
        let mut scale = *nanos;
        for digit in fraction.bytes() {
            scale /= 10;
            part = part.and_then(|part| part.checked_add(u64::from(digit - b'0') * scale));
        }
        total = part
            .and_then(|part| total.checked_add(part))
            .filter(|total| i64::try_from(*total).is_ok())
            .ok_or_else(|| format!("\"{}\" is longer than 292 years", short(text)))?;
        rest = after;
    }
    Ok(Duration::from_nanos(total))
}

/// A quoted size, which only `jetstream` has: digits and one of `K M G T`, in 1024s.
pub(crate) fn quoted_size(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!(
            "\"{}\" is no size; quoted it takes one of K M G T (\"10G\"), unquoted also 10GB",
            short(text)
        )
    };
    let power = match text.chars().last() {
        Some('K') => 10,
        Some('M') => 20,
        Some('G') => 30,
        Some('T') => 40,
        _ => return Err(wrong()),
    };
    let number: i64 = text.get(..text.len() - 1).unwrap_or("").parse().map_err(|_| wrong())?;
    number.checked_mul(1 << power).ok_or_else(wrong)
}

/// `host:port`, `:port`, `[v6]:port`. The host may be empty.
pub(crate) fn host_port(text: &str) -> Result<(String, i64), String> {
    let wrong = || format!("\"{}\" is no address; write \"host:port\" or a port", short(text));
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(wrong)?,
        None if host.contains(':') => return Err(wrong()),
        None => host,
    };
    let port = port
        .parse()
        .map_err(|_| format!("\"{}\" has no port number after the ':'", short(text)))?;
    Ok((host.to_owned(), port))
}

/// `scheme://[user[:password]@]host[:port]` of a leaf remote. No error quotes the user or
/// the password.
pub(crate) fn remote_url(text: &str) -> Result<RemoteUrl, String> {
    let text = text.trim();
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("a remote's URL must be written scheme://host:port, like \
                    \"nats-leaf://hub.example.com:7422\""
            .into());
    };
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "nats" | "nats-leaf" | "leaf" => Scheme::Nats,
        "tls" => Scheme::Tls,
        "ws" | "wss" => {
            return Err(format!(
                "Sedge does not have leaf links over WebSocket ({scheme}://) yet; use nats-leaf:// \
                 or tls://"
            ));
        }
        _ => {
            return Err(format!(
                "\"{}://\" is no scheme of a remote; there are nats-leaf:// nats:// tls://",
                short(scheme)
            ));
        }
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    let (userinfo, address) = match authority.rsplit_once('@') {
        Some((userinfo, address)) => (Some(userinfo), address),
        None => (None, authority),
    };
    if address.contains(['/', '?', '#']) {
        return Err("a remote's URL ends after the port; there is no path in it (a / @ : in a \
                    user or password is written %2F %40 %3A)"
            .into());
    }
    let (user, password) = match userinfo {
        None => (None, None),
        Some(userinfo) => {
            let (user, password) = match userinfo.split_once(':') {
                Some((user, password)) => (user, Some(percent_decoded(password)?)),
                None => (userinfo, None),
            };
            (Some(percent_decoded(user)?), password.map(Secret::from))
        }
    };
    let (host, port) = match address.strip_prefix('[') {
        Some(v6) => {
            let (host, after) =
                v6.split_once(']').ok_or("a remote's URL has a [ without its ] in the host")?;
            (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, Some("")),
        },
    };
    let port = match port {
        Some("") => LEAF_PORT,
        port => port
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0)
            .ok_or("a remote's URL needs a port of 1 to 65535 after the ':'")?,
    };
    if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("a remote's URL needs a host name without blanks".into());
    }
    Ok(RemoteUrl { scheme, host: host.to_owned(), port, user, password })
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || "the user or password in a remote's URL has a wrong % escape".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit().zip(digit()).map(|(high, low)| high * 16 + low).ok_or_else(wrong)?;
        bytes.push(u8::try_from(value).map_err(|_| wrong())?);
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

/// Is this a subject or filter, wildcards included?
pub(crate) fn is_filter(text: &str) -> bool {
    let mut tokens = text.split('.').peekable();
    while let Some(token) = tokens.next() {
        let last = tokens.peek().is_none();
        if token.is_empty()
            || token.chars().any(|c| c.is_whitespace() || c.is_control())
            || (token == ">" && !last)
        {
            return false;
        }
    }
    true
}

/// The beginning of a value, for a message.
pub(crate) fn short(text: &str) -> String {
    const CHARACTERS: usize = 48;
    let mut short: String = text.chars().take(CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(CHARACTERS).is_some() {
        short.push_str("...");
    }
    short
}

/// Bytes in nats-server's words: `512 B`, `1.00 GB`, in 1024s.
#[expect(clippy::cast_precision_loss, reason = "two digits after the point are shown")]
pub fn size(bytes: u64) -> String {
    let units = ["KB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.2} {}", units.get(unit).unwrap_or(&"EB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, nanos) in [
            ("30s", 30_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("+5s", 5_000_000_000),
            ("1.s", 1_000_000_000),
            ("5us", 5_000),
            ("5µs", 5_000),
            ("0", 0),
            ("0s", 0),
            ("1m1ms1ns", 60_001_000_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "1d", "s", "5x", "-5s", "1h 30m", "99999999h", ".", "1..5s", "5 s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn quoted_sizes_take_one_capital_letter() {
        assert_eq!(quoted_size("1G"), Ok(1 << 30));
        assert_eq!(quoted_size("10K"), Ok(10 * 1024));
        for text in ["", "1GB", "1g", "100", "G", "-", "99999999999T", "é"] {
            assert!(quoted_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(host_port("h:1"), Ok(("h".into(), 1)));
        assert_eq!(host_port(":-1"), Ok((String::new(), -1)));
        assert_eq!(host_port("[::1]:4222"), Ok(("::1".into(), 4222)));
        for text in ["h", "h:", "h:x", "a:b:1", "[::1:1", "::1"] {
            assert!(host_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn remote_urls_carry_scheme_host_port_and_user() {
        let url = remote_url("tls://u%40x:p%3Aq@hub.example.com:4443").unwrap();
        assert_eq!(
            (url.scheme, url.host.as_str(), url.port),
            (Scheme::Tls, "hub.example.com", 4443)
        );
        assert_eq!(url.user.as_deref(), Some("u@x"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p:q"));
        let url = remote_url("nats-leaf://[fd00::1]").unwrap();
        assert_eq!((url.host.as_str(), url.port), ("fd00::1", LEAF_PORT));
        assert_eq!(remote_url("nats://u:p@w@h").unwrap().host, "h");
        for text in [
            "",
            "h:1",
            "nats://",
            "nats://h:x",
            "nats://h:0",
            "nats://h:70000",
            "nats://[::1",
            "foo://h",
            "ws://h",
            "nats://h/x",
            "nats://h h",
            "nats://u:p%zz@h",
            "nats://u:p%é@h",
            "nats://[::1]x",
        ] {
            assert!(remote_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn no_message_quotes_a_password() {
        for text in [
            "nats://u:hunter2@h:x",
            "nats://u:hunter2%@h",
            "nats://u:hunter2@",
            "nats://u:hunter2@h/x",
        ] {
            let message = remote_url(text).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn sizes_have_two_digits() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1536), "1.50 KB");
        assert_eq!(size(u64::MAX), "16.00 EB");
    }
}
