//! The PROXY header: who a client behind a proxy really is.
//!
//! Owns the reading of one header, version 1 (text) or 2 (binary). Does not own the socket
//! nor the time a header may take ([`super::opening`]).
//!
//! Written here rather than taken from a crate: those that exist copy each extension into a
//! structure, and none says in nats-server's words what is wrong.
//!
//! Source: "The PROXY protocol, versions 1 & 2" of `HAProxy`; texts as nats-server 2.15.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proxied {
    /// Too few bytes to say.
    Incomplete,
    /// No header: the client speaks for itself.
    Absent,
    /// A header of this many bytes, and whom it names; `None`: the proxy itself.
    Header(usize, Option<SocketAddr>),
}

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const TEXT: &[u8; 6] = b"PROXY ";

/// The longest header of version 1, in bytes, with its line end.
const TEXT_BYTES_MAX: usize = 107;

/// Looks for a header at the front of `bytes`.
///
/// # Errors
/// It begins as a header and is none; why.
pub fn parse(bytes: &[u8]) -> Result<Proxied, String> {
    // Six bytes tell, as nats-server looks at them.
    let seen = bytes.len().min(TEXT.len());
    let front = bytes.get(..seen).unwrap_or(bytes);
    let complete = seen == TEXT.len();
    if TEXT.starts_with(front) {
        return if complete { text(bytes) } else { Ok(Proxied::Incomplete) };
    }
    if SIGNATURE.starts_with(front) {
        let seen = bytes.len().min(SIGNATURE.len());
        if !SIGNATURE.starts_with(bytes.get(..seen).unwrap_or(bytes)) {
            return Ok(Proxied::Absent);
        }
        return binary(bytes);
    }
    Ok(Proxied::Absent)
}

fn invalid(why: &str) -> String {
    format!("invalid PROXY protocol header: {why}")
}

/// `PROXY TCP4 source destination port port\r\n`.
fn text(bytes: &[u8]) -> Result<Proxied, String> {
    let window = bytes.get(..bytes.len().min(TEXT_BYTES_MAX)).unwrap_or(bytes);
    let Some(end) = window.iter().position(|&byte| byte == b'\n') else {
        return if bytes.len() >= TEXT_BYTES_MAX {
            Err(invalid("v1 line too long"))
        } else {
            Ok(Proxied::Incomplete)
        };
    };
    let line = window.get(TEXT.len()..end).unwrap_or(&[]);
    let line = line.strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or_else(|| invalid("invalid v1 format"))?;
    let fields: Vec<&str> = line.split(' ').collect();
    let (family, source, destination, port, other) = match fields.as_slice() {
        ["UNKNOWN", ..] => return Ok(Proxied::Header(end + 1, None)),
        [family, source, destination, port, other] => (*family, source, destination, port, other),
        _ => return Err(invalid("invalid v1 format")),
    };
    let address = |text: &str| text.parse::<IpAddr>().map_err(|_| invalid("invalid address"));
    let number = |what: &str, text: &str| {
        text.parse::<u16>().map_err(|error| format!("invalid {what} port: {error}"))
    };
    let (source, destination) = (address(source)?, address(destination)?);
    let (port, _) = (number("source", port)?, number("destination", other)?);
    match family {
        "TCP4" if source.is_ipv6() || destination.is_ipv6() => {
            Err(invalid("TCP4 with IPv6 address"))
        }
        "TCP6" if source.is_ipv4() || destination.is_ipv4() => {
            Err(invalid("TCP6 with IPv4 address"))
        }
        "TCP4" | "TCP6" => Ok(Proxied::Header(end + 1, Some(SocketAddr::new(source, port)))),
        other => Err(invalid(&format!("invalid protocol {other}"))),
    }
}

/// The signature, version and command, family and protocol, length, addresses, extensions.
fn binary(bytes: &[u8]) -> Result<Proxied, String> {
    let Some((head, rest)) = bytes.split_first_chunk::<16>() else {
        return Ok(Proxied::Incomplete);
    };
    let [.., command, family, high, low] = *head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if command >> 4 != 2 {
        return Err(invalid(&format!("invalid version {:#x}", command & 0xf0)));
    }
    let is_local = match command & 0x0f {
        0 => true,
        1 => false,
        other => return Err(invalid(&format!("invalid command {other:#x}"))),
    };
    if length > PROXY_HEADER_BYTES_MAX {
        return Err(invalid("v2 header too long"));
    }
    if !is_local {
        if family & 0x0f != 1 {
            return Err("unsupported PROXY protocol feature: only STREAM protocol supported".into());
        }
        if family >> 4 > 2 {
            let family = family & 0xf0;
            return Err(format!(
                "unsupported PROXY protocol feature: unsupported address family {family:#x}"
            ));
        }
    }
    let Some(body) = rest.get(..length) else { return Ok(Proxied::Incomplete) };
    let used = head.len() + length;
    let address = match family >> 4 {
        _ if is_local => None,
        1 => {
            let Some(([a, b, c, d, .., high, low, _, _], _)) = body.split_first_chunk::<12>()
            else {
                return Err(format!("IPv4 address data too short: {length} bytes"));
            };
            let port = u16::from_be_bytes([*high, *low]);
            Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port))
        }
        2 => {
            let Some((whole, _)) = body.split_first_chunk::<36>() else {
                return Err(format!("IPv6 address data too short: {length} bytes"));
            };
            let (source, _) = whole.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
            let [.., high, low, _, _] = *whole;
            let port = u16::from_be_bytes([high, low]);
            Some(SocketAddr::new(Ipv6Addr::from(*source).into(), port))
        }
        _ => None,
    };
    Ok(Proxied::Header(used, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, body].concat()
    }

    fn addressed(address: &str, used: usize) -> Proxied {
        Proxied::Header(used, Some(address.parse().unwrap()))
    }

    #[test]
    fn both_versions_name_the_client() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\nCONNECT";
        assert_eq!(parse(line), Ok(addressed("1.2.3.4:111", 36)));
        let line = b"PROXY TCP6 2001:db8::1 ::1 111 222\r\n";
        assert_eq!(parse(line), Ok(addressed("[2001:db8::1]:111", 36)));
        let body = [9, 8, 7, 6, 5, 4, 3, 2, 3, 232, 7, 208, 4, 0, 2, 0, 0];
        assert_eq!(parse(&v2(0x21, 0x11, &body)), Ok(addressed("9.8.7.6:1000", 33)));
        let mut body = [0; 36];
        (body[15], body[32], body[33]) = (1, 3, 232);
        assert_eq!(parse(&v2(0x21, 0x21, &body)), Ok(addressed("[::1]:1000", 52)));
    }

    #[test]
    fn a_proxy_may_speak_for_itself_or_leave_the_header_out() {
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Ok(Proxied::Header(15, None)));
        assert_eq!(parse(b"PROXY UNKNOWN a b 1 2\r\n"), Ok(Proxied::Header(23, None)));
        assert_eq!(parse(&v2(0x20, 0, &[])), Ok(Proxied::Header(16, None)));
        assert_eq!(parse(b"CONNECT {}\r\n"), Ok(Proxied::Absent));
        assert_eq!(parse(b"PROXXX"), Ok(Proxied::Absent));
        assert_eq!(parse(b"\r\n\r\nXX"), Ok(Proxied::Absent));
        assert_eq!(parse(b"\x16\x03\x01"), Ok(Proxied::Absent));
    }

    #[test]
    fn a_broken_header_says_what_is_wrong() {
        for (bytes, why) in [
            (&b"PROXY TCP4 1.2.3.4\r\n"[..], "invalid v1 format"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "invalid v1 format"),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", "TCP4 with IPv6 address"),
            (b"PROXY XXX 1.2.3.4 5.6.7.8 1 2\r\n", "invalid protocol XXX"),
            (b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 2\r\n", "invalid source port"),
        ] {
            assert!(parse(bytes).unwrap_err().contains(why), "{why}");
        }
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 120]].concat();
        assert!(parse(&long).unwrap_err().contains("v1 line too long"));
        for (bytes, why) in [
            (v2(0x21, 0x12, &[0; 12]), "only STREAM"),
            (v2(0x21, 0x31, &[0; 216]), "unsupported address family 0x30"),
            (v2(0x31, 0x11, &[0; 12]), "invalid version 0x30"),
            (v2(0x21, 0x11, &[0; 4]), "IPv4 address data too short: 4 bytes"),
            (v2(0x21, 0x11, &[0; 5000]), "too long"),
        ] {
            assert!(parse(&bytes).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn a_header_may_come_byte_by_byte() {
        let mut body = [0; 36];
        body[15] = 1;
        for whole in [b"PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n".to_vec(), v2(0x21, 0x21, &body)] {
            for end in 0..whole.len() {
                assert_eq!(parse(&whole[..end]), Ok(Proxied::Incomplete), "{end}");
            }
            assert!(matches!(parse(&whole), Ok(Proxied::Header(_, Some(_)))));
        }
    }
}
