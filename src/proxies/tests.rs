//! Who is believed, as tables; and that no bytes do harm.

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_list_holds_addresses_and_blocks() {
    let proxies = Proxies::parse("10.0.0.0/8, 192.0.2.7,,2001:db8::/32 ,::ffff:198.51.100.1").expect("a list");
    for (address, trusted) in [
        ("10.255.0.1", true),
        ("11.0.0.1", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("::ffff:10.1.2.3", true),
        ("198.51.100.1", true),
        ("2001:db8:1::9", true),
        ("2001:db9::1", false),
        // Nobody is trusted for being near.
        ("127.0.0.1", false),
        ("::1", false),
    ] {
        assert_eq!(proxies.trusts(ip(address)), trusted, "{address}");
    }
    assert!(Proxies::parse(" , ").expect("a list").is_empty());
    for bad in ["10.0.0.0/33", "10.0.0", "proxy.example", "10.0.0.1:80", "10.0.0.0/8 192.0.2.7"] {
        assert_eq!(Proxies::parse(&format!("192.0.2.1,{bad}")), Err(bad.to_owned()));
    }
}

#[test]
fn the_right_most_address_that_is_no_proxy_is_the_client() {
    let proxies = Proxies::parse("10.0.0.0/8,2001:db8::1").expect("a list");
    for (peer, values, client) in [
        // Not from a proxy: not believed.
        ("203.0.113.1", vec!["198.51.100.1"], "203.0.113.1"),
        ("127.0.0.1", vec!["198.51.100.1"], "127.0.0.1"),
        // From one.
        ("10.0.0.1", vec![], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", vec!["198.51.100.1"], "198.51.100.1"),
        ("2001:db8::1", vec!["2001:db8::2"], "2001:db8::2"),
        // What stands further left anybody may have written.
        ("10.0.0.1", vec!["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["10.9.9.9, 198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", vec!["1.1.1.1, 198.51.100.1", "10.0.0.2 ,10.0.0.3"], "198.51.100.1"),
        ("10.0.0.1", vec!["\u{7f}junk, 198.51.100.1"], "198.51.100.1"),
        // Proxies all the way.
        ("10.0.0.1", vec!["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        // What cannot be read ends the search where it stands.
        ("10.0.0.1", vec!["198.51.100.1, unknown"], "10.0.0.1"),
        ("10.0.0.1", vec!["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", vec!["", " , "], "10.0.0.1"),
        // Spellings.
        ("10.0.0.1", vec!["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", vec!["2001:db8::5"], "2001:db8::5"),
        ("10.0.0.1", vec!["[2001:db8::5]"], "2001:db8::5"),
        ("10.0.0.1", vec!["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.0.0.1", vec!["::ffff:198.51.100.1"], "198.51.100.1"),
    ] {
        let found = proxies.client_of(ip(peer), values.iter().map(|value| value.as_bytes()));
        assert_eq!(found, ip(client), "{peer} {values:?}");
    }
    // A line that is no UTF-8 left of what the proxy added hides nothing.
    let mixed: &[u8] = b"\xff\xfe, 198.51.100.1";
    assert_eq!(proxies.client_of(ip("10.0.0.1"), [mixed].into_iter()), ip("198.51.100.1"));
}

/// A header of version 2.
fn v2_header(command: u8, family: u8, addresses: &[u8], extensions: &[u8]) -> Vec<u8> {
    let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(addresses.len() + extensions.len()).expect("short").to_be_bytes());
    bytes.extend(addresses);
    bytes.extend(extensions);
    bytes
}

const V4: [u8; 12] = [198, 51, 100, 1, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

fn v6() -> Vec<u8> {
    let (from, to): (std::net::Ipv6Addr, std::net::Ipv6Addr) =
        ("2001:db8::5".parse().expect("an address"), "::1".parse().expect("an address"));
    [&from.octets()[..], &to.octets()[..], &[0x12, 0x67, 0, 80]].concat()
}

fn whole_headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let text = |text: &str| text.as_bytes().to_vec();
    vec![
        (text("PROXY TCP4 198.51.100.1 10.0.0.1 4711 80\r\n"), Some("198.51.100.1:4711")),
        (text("PROXY TCP6 2001:db8::5 ::1 4711 80\r\n"), Some("[2001:db8::5]:4711")),
        (text("PROXY TCP6 ::ffff:198.51.100.1 ::1 4711 80\r\n"), Some("198.51.100.1:4711")),
        (text("PROXY UNKNOWN\r\n"), None),
        (text("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None),
        (v2_header(0x21, 0x11, &V4, &[]), Some("198.51.100.1:4711")),
        (v2_header(0x21, 0x11, &V4, &[4, 0, 1, 0]), Some("198.51.100.1:4711")),
        (v2_header(0x21, 0x21, &v6(), &[0xff; 1_000]), Some("[2001:db8::5]:4711")),
        (v2_header(0x20, 0x00, &[], &[]), None),
        (v2_header(0x20, 0x11, &V4, &[]), None),
        (v2_header(0x21, 0x00, &[], &[]), None),
        (v2_header(0x21, 0x31, &[b'x'; 216], &[]), None),
    ]
}

#[test]
fn whole_headers_are_read_wherever_they_are_cut() {
    for (sent, client) in whole_headers() {
        for cut in 0..sent.len() {
            assert_eq!(header(&sent[..cut]), Header::Incomplete, "{cut} of {sent:?}");
        }
        let client = client.map(|text| text.parse().expect("an address"));
        let expected = Header::Whole { client, bytes: sent.len() };
        assert_eq!(header(&sent), expected, "{sent:?}");
        assert_eq!(header(&[&sent[..], b"\r\nGET / HTTP/1.1\r\n"].concat()), expected, "with what follows");
    }
}

#[test]
fn anything_else_is_malformed() {
    for bad in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x10\x20",
        b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXX",
        b"PROXYTCP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
        b"PROXY TCP4 ::1 ::2 1 2\r\n",
        b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
        b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
        b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        b"PROXY TCP4 \xff\xff 2.2.2.2 1 2\r\n",
        b"PROXY\r\n",
    ] {
        assert_eq!(header(bad), Header::Malformed, "{}", String::from_utf8_lossy(bad));
    }
    let endless = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
    assert_eq!(header(endless.as_bytes()), Header::Malformed);
    for (command, family, addresses) in
        [(0x11, 0x11, &V4[..]), (0x22, 0x11, &V4), (0x21, 0x11, &V4[..11]), (0x21, 0x12, &V4), (0x21, 0x41, &V4)]
    {
        let bad = v2_header(command, family, addresses, &[]);
        assert_eq!(header(&bad), Header::Malformed, "{command:x} {family:x}");
    }
    let huge = v2_header(0x21, 0x11, &V4, &vec![0; HEADER_BYTES_MAX]);
    assert_eq!(header(&huge[..FIXED_BYTES]), Header::Malformed, "nobody waits for it");
}

proptest! {
    #[test]
    fn no_bytes_do_harm(
        which in 0..12_usize,
        at in 0..300_usize,
        byte in any::<u8>(),
        cut in 0..300_usize,
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut sent = whole_headers()[which].0.clone();
        let at = at % sent.len();
        sent[at] = byte;
        sent.truncate(cut);
        for bytes in [&sent, &noise] {
            match header(bytes) {
                Header::Whole { bytes: length, .. } => prop_assert!(length <= bytes.len()),
                Header::Incomplete => prop_assert!(bytes.len() < HEADER_BYTES_MAX),
                Header::Malformed => {}
            }
            let proxies = Proxies::parse("0.0.0.0/0").expect("a list");
            let _ = proxies.client_of(ip("10.0.0.1"), [&bytes[..]].into_iter());
        }
    }
}
