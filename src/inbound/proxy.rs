//! The PROXY protocol: a header in which a load balancer says which client it speaks for, before anything else.
//!
//! Pure: bytes go in, the client's address comes out. Bounded; never reads past the header, so that what follows is the
//! client's. Versions 1 and 2 of haproxy.org/download/3.0/doc/proxy-protocol.txt; `§` names its sections.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// §2.1: the longest header of version 1, with its CRLF.
const MAX_V1: usize = 107;
const V1: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN` and CRLF.
const SHORTEST_V1: usize = 15;
/// §2.2.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
/// Addresses and extensions of version 2 in octets. The field could name 64 KiB; what load balancers add is far less.
const MAX_V2_REST: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderProgress {
    /// At least so many octets more belong to it; never 0.
    Incomplete(usize),
    Complete(ProxiedClient),
}

/// Whom a connection is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxiedClient {
    At(SocketAddr),
    /// The load balancer itself (LOCAL, a check of its own), or a client whose address it does not know (UNKNOWN).
    LoadBalancer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("it does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header (version 1) is longer than {MAX_V1} octets")]
    TooLongV1,
    #[error("the PROXY header (version 2) has more than {MAX_V2_REST} octets of addresses and extensions")]
    TooLongV2,
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

/// Whether these first octets of a connection could begin a header.
pub(super) fn begins_header(input: &[u8]) -> bool {
    let begins = |signature: &[u8]| input.len() >= signature.len() && input.starts_with(signature);
    begins(V1) || begins(V2)
}

/// Reads a header. `input` must not go beyond it: a caller reads as many octets as are said to be missing.
pub(super) fn read(input: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let agrees = |signature: &[u8]| input.iter().zip(signature).all(|(one, other)| one == other);
    match (agrees(V1), agrees(V2)) {
        (true, _) if input.len() >= V1.len() => v1(input),
        (_, true) if input.len() >= V2.len() => v2(input),
        (false, false) => Err(HeaderError::Missing),
        _ => Ok(missing(SHORTEST_V1, input)),
    }
}

/// Up to a length that the header certainly has.
fn missing(length: usize, input: &[u8]) -> HeaderProgress {
    HeaderProgress::Incomplete(length.saturating_sub(input.len()).max(1))
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 40000 25\r\n`, §2.1.
fn v1(input: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let window = &input[..input.len().min(MAX_V1)];
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if input.len() >= MAX_V1 { Err(HeaderError::TooLongV1) } else { Ok(missing(SHORTEST_V1, input)) };
    };
    let line =
        window[V1.len()..end].strip_suffix(b"\r").ok_or(HeaderError::Malformed("its line does not end with CRLF"))?;
    let line = std::str::from_utf8(line).map_err(|_| HeaderError::Malformed("it is not ASCII"))?;
    let mut words = line.split(' ');
    let client = match words.next() {
        // §2.1: the rest of the line is ignored.
        Some("UNKNOWN") => ProxiedClient::LoadBalancer,
        Some(family @ ("TCP4" | "TCP6")) => {
            let mut next = || words.next().ok_or(HeaderError::Malformed("an address or a port is missing"));
            let [source, destination, source_port, destination_port] = [next()?, next()?, next()?, next()?];
            if words.next().is_some() {
                return Err(HeaderError::Malformed("it has more than two addresses and two ports"));
            }
            address(family, destination)?;
            port(destination_port)?;
            ProxiedClient::At(SocketAddr::new(address(family, source)?, port(source_port)?))
        }
        _ => return Err(HeaderError::Malformed("its protocol is not TCP4, TCP6 or UNKNOWN")),
    };
    Ok(HeaderProgress::Complete(client))
}

fn address(family: &str, text: &str) -> Result<IpAddr, HeaderError> {
    let parsed = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from).ok(),
        _ => text.parse::<Ipv6Addr>().map(IpAddr::from).ok(),
    };
    parsed.ok_or(HeaderError::Malformed("an address is not one of its protocol"))
}

/// §2.1: decimal, without leading zeros.
fn port(text: &str) -> Result<u16, HeaderError> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    let port = text.parse().ok().filter(|_| is_canonical);
    port.ok_or(HeaderError::Malformed("a port is not a number up to 65535"))
}

/// §2.2.
fn v2(input: &[u8]) -> Result<HeaderProgress, HeaderError> {
    let Some((fixed, rest)) = input.split_at_checked(V2_FIXED) else { return Ok(missing(V2_FIXED, input)) };
    let (version_and_command, family) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if version_and_command >> 4 != 2 {
        return Err(HeaderError::Malformed("its version is not 2"));
    }
    if length > MAX_V2_REST {
        return Err(HeaderError::TooLongV2);
    }
    let Some(rest) = rest.get(..length) else { return Ok(missing(V2_FIXED + length, input)) };
    let client = match version_and_command & 0x0f {
        0 => ProxiedClient::LoadBalancer,
        1 => proxied(family, rest)?,
        _ => return Err(HeaderError::Malformed("its command is neither LOCAL nor PROXY")),
    };
    Ok(HeaderProgress::Complete(client))
}

/// The source address. Extensions (TLV) after the addresses are ignored.
fn proxied(family: u8, rest: &[u8]) -> Result<ProxiedClient, HeaderError> {
    const TOO_SHORT: HeaderError = HeaderError::Malformed("it is shorter than its addresses");
    let at = |ip: IpAddr, port: &[u8]| ProxiedClient::At(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])));
    match family {
        // TCP over IPv4: source, destination, source port, destination port.
        0x11 => {
            let rest: &[u8; 12] = rest.first_chunk().ok_or(TOO_SHORT)?;
            Ok(at(Ipv4Addr::new(rest[0], rest[1], rest[2], rest[3]).into(), &rest[8..10]))
        }
        0x21 => {
            let rest: &[u8; 36] = rest.first_chunk().ok_or(TOO_SHORT)?;
            let source: &[u8; 16] = rest.first_chunk().ok_or(TOO_SHORT)?;
            Ok(at(Ipv6Addr::from(*source).into(), &rest[32..34]))
        }
        // AF_UNSPEC: the address is not known.
        0x00 => Ok(ProxiedClient::LoadBalancer),
        _ => Err(HeaderError::Malformed("its client did not connect by TCP over IPv4 or IPv6")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v2_header(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [V2, &[version_and_command, family], &length, rest].concat()
    }

    fn ipv4() -> Vec<u8> {
        [&[192, 0, 2, 1][..], &[10, 0, 0, 1], &40_000_u16.to_be_bytes(), &25_u16.to_be_bytes()].concat()
    }

    fn ipv6() -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().expect("an address").octets();
        let (source, destination) = (address("2001:db8::1"), address("::1"));
        [&source[..], &destination, &40_000_u16.to_be_bytes(), &25_u16.to_be_bytes()].concat()
    }

    /// Valid headers, with their clients.
    fn valid() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let v1 = |line: &str| format!("PROXY {line}\r\n").into_bytes();
        let longest = format!("UNKNOWN {}", "f".repeat(MAX_V1 - "PROXY UNKNOWN \r\n".len()));
        vec![
            (v1("TCP4 192.0.2.1 10.0.0.1 40000 25"), Some("192.0.2.1:40000")),
            (v1("TCP4 192.0.2.1 10.0.0.1 0 65535"), Some("192.0.2.1:0")),
            (v1("TCP6 2001:db8::1 ::1 40000 25"), Some("[2001:db8::1]:40000")),
            (v1("UNKNOWN"), None),
            (v1("UNKNOWN anything at all"), None),
            (v1(&longest), None),
            (v2_header(0x21, 0x11, &ipv4()), Some("192.0.2.1:40000")),
            (v2_header(0x21, 0x11, &[ipv4(), b"\x04\x00\x03abc".to_vec()].concat()), Some("192.0.2.1:40000")),
            (v2_header(0x21, 0x11, &[ipv4(), vec![0xff; MAX_V2_REST - 12]].concat()), Some("192.0.2.1:40000")),
            (v2_header(0x21, 0x21, &ipv6()), Some("[2001:db8::1]:40000")),
            (v2_header(0x20, 0x11, &ipv4()), None),
            (v2_header(0x20, 0x00, &[]), None),
            (v2_header(0x20, 0x77, b"ignored"), None),
            (v2_header(0x21, 0x00, &[]), None),
        ]
    }

    #[test]
    fn each_form_names_its_client_however_it_arrives() {
        for (header, expected) in valid() {
            let client = match expected {
                Some(address) => ProxiedClient::At(address.parse().expect("an address")),
                None => ProxiedClient::LoadBalancer,
            };
            for length in 0..header.len() {
                match read(&header[..length]) {
                    Ok(HeaderProgress::Incomplete(more)) => {
                        assert!(
                            (1..=header.len() - length).contains(&more),
                            "{more} after {length} of {}",
                            header.escape_ascii()
                        );
                    }
                    other => panic!("{other:?} after {length} of {}", header.escape_ascii()),
                }
            }
            assert_eq!(read(&header), Ok(HeaderProgress::Complete(client)), "{}", header.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_a_header_is_refused_and_says_why() {
        let v1 = |line: &str| format!("PROXY {line}").into_bytes();
        let long = format!("UNKNOWN {}\r\n", "f".repeat(MAX_V1));
        for (input, expected) in [
            (b"EHLO x\r\n".to_vec(), "does not begin"),
            (b"\x16\x03\x01".to_vec(), "does not begin"),
            (b"PROXYTCP4".to_vec(), "does not begin"),
            (b"proxy TCP4".to_vec(), "does not begin"),
            (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), "does not begin"),
            (b"\r\nEHLO x".to_vec(), "does not begin"),
            (v1(&long), "longer than 107"),
            (v1("TCP4 192.0.2.1 10.0.0.1 40000 25\n"), "CRLF"),
            (v1("TCP4 192.0.2.1 10.0.0.1 40000\r\n"), "missing"),
            (v1("TCP4\r\n"), "missing"),
            (v1("\r\n"), "protocol"),
            (v1("UDP4 192.0.2.1 10.0.0.1 40000 25\r\n"), "protocol"),
            (v1("TCP4  192.0.2.1 10.0.0.1 40000 25\r\n"), "address"),
            (v1("TCP4 192.0.2.1 10.0.0.1 40000 25 \r\n"), "more than two"),
            (v1("TCP4 192.0.2.256 10.0.0.1 40000 25\r\n"), "address"),
            (v1("TCP4 2001:db8::1 ::1 40000 25\r\n"), "address"),
            (v1("TCP6 192.0.2.1 10.0.0.1 40000 25\r\n"), "address"),
            (v1("TCP4 192.0.2.1 x 40000 25\r\n"), "address"),
            (v1("TCP4 192.0.2.1 10.0.0.1 040000 25\r\n"), "port"),
            (v1("TCP4 192.0.2.1 10.0.0.1 65536 25\r\n"), "port"),
            (v1("TCP4 192.0.2.1 10.0.0.1 +1 25\r\n"), "port"),
            (v1("TCP4 192.0.2.1 10.0.0.1 1 -1\r\n"), "port"),
            (b"PROXY TCP4 \xff\r\n".to_vec(), "ASCII"),
            (v2_header(0x11, 0x11, &ipv4()), "version"),
            (v2_header(0x22, 0x11, &ipv4()), "command"),
            (v2_header(0x21, 0x11, &ipv4()[..11]), "shorter"),
            (v2_header(0x21, 0x21, &ipv6()[..35]), "shorter"),
            (v2_header(0x21, 0x12, &ipv4()), "TCP"),
            (v2_header(0x21, 0x31, &[0; 216]), "TCP"),
            (v2_header(0x21, 0x11, &[0; MAX_V2_REST + 1]), "more than 4096"),
        ] {
            let error = read(&input).expect_err(&input.escape_ascii().to_string()).to_string();
            assert!(error.contains(expected), "{}: {error}", input.escape_ascii());
            assert!(!error.contains("192"), "what the peer sent is not repeated: {error}");
        }
    }

    /// Otherwise an endless header would be collected in memory.
    #[test]
    fn no_header_stays_incomplete_beyond_its_largest_size() {
        for start in [V1, V2, b"PROXY TCP4 ", &v2_header(0x21, 0x11, &[0; MAX_V2_REST])[..V2_FIXED]] {
            let mut input = start.to_vec();
            input.resize(V2_FIXED + MAX_V2_REST, b'1');
            let read = read(&input);
            assert!(!matches!(read, Ok(HeaderProgress::Incomplete(_))), "{}: {read:?}", start.escape_ascii());
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_without_a_panic_and_alike_in_every_split(
            which in 0_usize..14, cut in 0_usize..200, flips in proptest::collection::vec((0_usize..200, any::<u8>()), 0..4),
        ) {
            let mut input = valid().swap_remove(which).0;
            input.truncate(cut);
            for (at, octet) in flips {
                if let Some(place) = input.get_mut(at) {
                    *place = octet;
                }
            }
            let whole = read(&input);
            for length in 0..input.len() {
                match read(&input[..length]) {
                    Ok(HeaderProgress::Incomplete(_)) => {}
                    decided => prop_assert_eq!(&decided, &whole, "{} octets decide", length),
                }
            }
        }
    }
}
