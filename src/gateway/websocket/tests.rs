use std::borrow::Cow;
use std::convert::Infallible;
use std::io::{self, Read, Write};

use proptest::prelude::*;
use protocol::close::CloseReason;
use protocol::native::Encoding;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, WebSocket};

use super::handshake::HEAD_BYTES_MAX;
use super::writer::append_masked_frame;
use super::*;

const LIMITS: ReadLimits = ReadLimits { message_bytes_max: 100_000 };
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// An event without borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { text: true, payload } => Self::Text(payload.into_owned()),
            Event::Message { text: false, payload } => Self::Binary(payload.into_owned()),
            Event::Ping(payload) => Self::Ping(payload.into_owned()),
            Event::Pong(payload) => Self::Pong(payload.into_owned()),
            Event::Close { code, reason } => Self::Close(code, reason),
        }
    }
}

/// Reads one chunk to its end.
fn feed(reader: &mut FrameReader, chunk: &[u8], limits: &ReadLimits, events: &mut Vec<Seen>) -> Result<(), Violation> {
    let mut chunk = chunk.to_vec();
    let mut at = 0;
    loop {
        let (used, event) = reader.next(&mut chunk[at..], limits)?;
        at += used;
        match event {
            Some(event) => events.push(event.into()),
            None => {
                assert_eq!(at, chunk.len(), "without an event everything is used");
                return Ok(());
            }
        }
    }
}

/// Reads bytes that arrive in pieces of the given sizes, the rest at once.
fn read_pieces(bytes: &[u8], pieces: impl IntoIterator<Item = usize>) -> Result<Vec<Seen>, Violation> {
    let (mut reader, mut events, mut rest) = (FrameReader::new(), Vec::new(), bytes);
    for piece in pieces {
        let (chunk, behind) = rest.split_at(piece.min(rest.len()));
        feed(&mut reader, chunk, &LIMITS, &mut events)?;
        rest = behind;
    }
    feed(&mut reader, rest, &LIMITS, &mut events)?;
    Ok(events)
}

fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    append_masked_frame(Opcode::Binary, KEY, payload, &mut out);
    out[0] = first;
    out
}

#[test]
fn the_reader_is_one_pointer() {
    assert_eq!(size_of::<FrameReader>(), size_of::<usize>());
}

#[test]
fn the_mask_is_that_of_the_rfc() {
    // RFC 6455 section 5.7: a masked "Hello".
    let mut chunk = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    let (used, event) = FrameReader::new().next(&mut chunk, &LIMITS).expect("sound");
    assert_eq!((used, event), (11, Some(Event::Message { text: true, payload: Cow::Borrowed(b"Hello") })));
    for len in 0..70 {
        for position in 0..9 {
            let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let naive: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ KEY[(i + position) % 4]).collect();
            let mut fast = plain;
            mask(&mut fast, KEY, position);
            assert_eq!(fast, naive, "len {len} position {position}");
        }
    }
}

#[test]
fn every_violation_has_its_close_code() {
    let check = |bytes: &[u8], reason: CloseReason, text: &str| {
        for pieces in [vec![], vec![1; bytes.len()]] {
            let violation = read_pieces(bytes, pieces).expect_err(text);
            assert_eq!((violation.reason, violation.text.contains(text)), (reason, true), "{text}: {violation:?}");
        }
    };
    let protocol = CloseReason::ProtocolError;
    check(&[0x82, 0x05, 0, 0, 0, 0, 0], protocol, "not masked");
    for rsv in [0x40, 0x20, 0x10] {
        check(&masked(0x82 | rsv, b"x"), protocol, "reserved bit");
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&masked(0x80 | opcode, b"x"), protocol, "opcode is reserved");
    }
    for opcode in [8, 9, 10] {
        check(&masked(opcode, b""), protocol, "control frame is fragmented");
        check(&masked(0x80 | opcode, &[b'a'; 126]), protocol, "longer than 125");
    }
    check(&masked(0x80, b"x"), protocol, "continuation without");
    check(&[masked(0x02, b"x"), masked(0x82, b"y")].concat(), protocol, "new message inside");
    check(&[0x82, 0xfe, 0, 125, 1, 2, 3, 4], protocol, "shortest form");
    check(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4], protocol, "shortest form");
    check(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], protocol, "highest bit");
    check(&masked(0x88, b"\x03"), protocol, "half a code");
    for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        check(&masked(0x88, &code.to_be_bytes()), protocol, "close code");
    }
    check(&masked(0x81, b"\xff"), CloseReason::NotUtf8, "UTF-8");
    check(&masked(0x81, b"\xed\xa0\x80"), CloseReason::NotUtf8, "UTF-8");
    check(&[masked(0x01, b"\xe2\x82"), masked(0x80, b"x")].concat(), CloseReason::NotUtf8, "UTF-8");
    check(&masked(0x88, b"\x03\xe8\xff"), CloseReason::NotUtf8, "UTF-8");
    let limit = LIMITS.message_bytes_max;
    check(&masked(0x82, &vec![0; limit + 1]), CloseReason::TooLarge, "larger");
    check(&[masked(0x02, &vec![0; limit]), masked(0x80, b"x")].concat(), CloseReason::TooLarge, "larger");
    assert_eq!(read_pieces(&masked(0x82, &vec![0; limit]), []).map(|events| events.len()), Ok(1));
}

#[test]
fn a_claimed_length_reserves_nothing() {
    // 2^40 bytes: refused by the header alone.
    let mut reader = FrameReader::new();
    let mut chunk = [0x82, 0xff, 0, 0, 1, 0, 0, 0, 0, 0];
    assert_eq!(reader.next(&mut chunk, &LIMITS).expect_err("too large").reason, CloseReason::TooLarge);
    // As large as allowed, of which one byte comes.
    let whole = masked(0x82, &vec![7; LIMITS.message_bytes_max]);
    let mut reader = FrameReader::new();
    let mut events = Vec::new();
    feed(&mut reader, &whole[..15], &LIMITS, &mut events).expect("sound");
    assert!(reader.held_bytes() < 2_048, "{}", reader.held_bytes());
    for piece in whole[15..].chunks(1_000) {
        feed(&mut reader, piece, &LIMITS, &mut events).expect("sound");
        assert!(reader.held_bytes() <= LIMITS.message_bytes_max + 2_048, "{}", reader.held_bytes());
    }
    assert_eq!((events.len(), reader.held_bytes()), (1, 0));
}

/// A conversation with everything in it: lengths of all three forms, fragments with control frames between them.
fn everything() -> (Vec<u8>, Vec<Seen>) {
    let long = vec![b'l'; 300];
    let huge = vec![b'h'; 70_000];
    let bytes = [
        masked(0x81, "grüße".as_bytes()),
        masked(0x82, b""),
        masked(0x89, b"are you there"),
        masked(0x82, &long),
        masked(0x01, b"\xe2"),
        masked(0x8a, b""),
        masked(0x00, b"\x82"),
        masked(0x00, b""),
        masked(0x89, &[b'p'; 125]),
        masked(0x80, b"\xac"),
        masked(0x82, &huge),
        masked(0x02, b"ab"),
        masked(0x80, b""),
        masked(0x88, b"\x03\xe8bye"),
    ]
    .concat();
    let events = vec![
        Seen::Text("grüße".as_bytes().to_vec()),
        Seen::Binary(vec![]),
        Seen::Ping(b"are you there".to_vec()),
        Seen::Binary(long),
        Seen::Pong(vec![]),
        Seen::Ping(vec![b'p'; 125]),
        Seen::Text("€".as_bytes().to_vec()),
        Seen::Binary(huge),
        Seen::Binary(b"ab".to_vec()),
        Seen::Close(Some(1000), "bye".to_owned()),
    ];
    (bytes, events)
}

#[test]
fn a_cut_anywhere_changes_nothing() {
    let (bytes, events) = everything();
    assert_eq!(read_pieces(&bytes, []), Ok(events.clone()));
    assert_eq!(read_pieces(&bytes, std::iter::repeat_n(1, bytes.len())), Ok(events.clone()));
    let interesting = (0..600).chain(bytes.len() - 100..bytes.len()).chain((600..bytes.len() - 100).step_by(997));
    for cut in interesting {
        assert_eq!(read_pieces(&bytes, [cut]), Ok(events.clone()), "cut at {cut}");
    }
}

#[test]
fn nothing_is_held_between_whole_messages() {
    let (bytes, _) = everything();
    let (mut reader, mut events) = (FrameReader::new(), Vec::new());
    feed(&mut reader, &bytes, &LIMITS, &mut events).expect("sound");
    assert_eq!(reader.held_bytes(), 0);
}

#[test]
fn many_small_messages_in_one_chunk_come_in_order_and_in_place() {
    let mut chunk = Vec::new();
    for number in 0..10_000_u32 {
        append_masked_frame(Opcode::Binary, number.to_le_bytes(), &number.to_be_bytes(), &mut chunk);
    }
    let mut reader = FrameReader::new();
    let (mut at, mut number) = (0, 0_u32);
    while let (used, Some(event)) = reader.next(&mut chunk[at..], &LIMITS).expect("sound") {
        let Event::Message { text: false, payload: Cow::Borrowed(payload) } = event else { panic!("{event:?}") };
        assert_eq!(payload, number.to_be_bytes());
        number += 1;
        at += used;
    }
    assert_eq!((number, at, reader.held_bytes()), (10_000, chunk.len(), 0));
}

#[test]
fn what_is_parked_later_is_read_later() {
    let mut reader = FrameReader::new();
    reader.park(b"abc");
    let mut parked = reader.unpark().expect("parked");
    parked.advance(1);
    reader.park(b"de");
    reader.repark(parked);
    reader.park(b"f");
    assert_eq!(reader.unpark().expect("parked").rest(), b"bcdef");
    assert!(reader.unpark().is_none() && reader.held_bytes() == 0);
}

#[test]
fn reading_can_stop_between_messages_and_go_on_later() {
    let (bytes, events) = everything();
    for chunk_len in [7, 64, 1_000, bytes.len()] {
        // One message at a time, as a connection at its in-flight cap does it.
        let (mut reader, mut read) = (FrameReader::new(), Vec::new());
        for chunk in bytes.chunks(chunk_len) {
            reader.park(chunk);
            while let Some(mut parked) = reader.unpark() {
                let (used, event) = reader.next(parked.rest(), &LIMITS).expect("sound");
                read.extend(event.map(Seen::from));
                parked.advance(used);
                reader.repark(parked);
            }
        }
        assert_eq!(read, events, "chunks of {chunk_len}");
        assert_eq!(reader.held_bytes(), 0);
    }
}

/// A socket in memory.
#[derive(Default)]
struct Pipe {
    incoming: io::Cursor<Vec<u8>>,
    outgoing: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.incoming.read(buffer)? {
            0 if !buffer.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.outgoing.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = prop_oneof![4 => 0..200_usize, 1 => Just(65_535), 1 => Just(65_536), 1 => 0..70_000_usize];
    prop_oneof![
        bytes.prop_flat_map(|len| prop::collection::vec(any::<u8>(), len..=len)).prop_map(Message::binary),
        "\\PC{0,200}".prop_map(Message::text),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Ping(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(|bytes| Message::Pong(bytes.into())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_a_client_writes_is_read(
        messages in prop::collection::vec(message(), 0..8),
        pieces in prop::collection::vec(1..5_000_usize, 0..40),
    ) {
        let mut client = WebSocket::from_raw_socket(Pipe::default(), Role::Client, None);
        for message in &messages {
            client.send(message.clone()).expect("memory takes everything");
        }
        client.close(Some(CloseFrame { code: 4003.into(), reason: "same_device".into() })).expect("closes");
        let mut expected: Vec<Seen> = messages.into_iter().map(|message| match message {
            Message::Text(text) => Seen::Text(text.as_bytes().to_vec()),
            Message::Binary(bytes) => Seen::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Seen::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Seen::Pong(bytes.to_vec()),
            other => panic!("{other:?}"),
        }).collect();
        expected.push(Seen::Close(Some(4003), "same_device".to_owned()));
        prop_assert_eq!(read_pieces(&client.get_ref().outgoing, pieces), Ok(expected));
    }

    #[test]
    fn what_the_server_writes_a_client_reads(messages in prop::collection::vec(message(), 0..8)) {
        let (mut joined, mut scratch) = (Vec::new(), Vec::new());
        for (index, message) in messages.iter().enumerate() {
            let (opcode, payload) = match message {
                Message::Text(text) => (Opcode::Text, text.as_bytes().to_vec()),
                Message::Binary(bytes) => (Opcode::Binary, bytes.to_vec()),
                Message::Ping(bytes) => (Opcode::Ping, bytes.to_vec()),
                Message::Pong(bytes) => (Opcode::Pong, bytes.to_vec()),
                other => panic!("{other:?}"),
            };
            let encode = |out: &mut Vec<u8>| {
                out.extend_from_slice(&payload);
                Ok::<(), Infallible>(())
            };
            // Three ways to the same bytes.
            match index % 3 {
                0 => append_frame(opcode, &mut joined, encode).expect("infallible"),
                1 => joined.extend_from_slice(&frame_with(opcode, &mut scratch, encode).expect("infallible")),
                _ => joined.extend_from_slice(&frame(opcode, &payload)),
            }
        }
        joined.extend_from_slice(&close_frame(4007, "slow"));
        let pipe = Pipe { incoming: io::Cursor::new(joined), outgoing: Vec::new() };
        let mut client = WebSocket::from_raw_socket(pipe, Role::Client, None);
        for message in &messages {
            prop_assert_eq!(&client.read().expect("reads"), message);
        }
        let close = CloseFrame { code: 4007.into(), reason: "slow".into() };
        prop_assert_eq!(client.read().expect("reads"), Message::Close(Some(close)));
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..300_usize) {
        let _ = read_pieces(&bytes, [cut]);
        let _ = read_request(&bytes);
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0..2_000_usize, byte in any::<u8>(), cut in 0..2_000_usize) {
        let (mut bytes, _) = everything();
        bytes[at] = byte;
        let _ = read_pieces(&bytes, [cut]);
    }
}

#[test]
fn a_failed_payload_leaves_no_trace() {
    let mut out = b"before".to_vec();
    let failed = append_frame(Opcode::Binary, &mut out, |out| {
        out.extend_from_slice(b"half");
        Err("failed")
    });
    assert_eq!((failed, out.as_slice()), (Err("failed"), &b"before"[..]));
}

#[test]
fn a_close_reason_is_cut_at_a_character() {
    let frame = close_frame(1011, &"ü".repeat(100));
    assert_eq!(frame.len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&frame[4..]).is_ok());
}

fn upgrade_request(extra: &str) -> String {
    format!(
        "GET /?x=1 HTTP/1.1\r\nHost: localhost:5200\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

fn upgrade(bytes: &[u8]) -> Upgrade {
    match read_request(bytes) {
        Handshake::Upgrade(upgrade) => upgrade,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_upgrade_is_accepted_and_pipelined_bytes_are_kept() {
    // Key and answer of RFC 6455 section 1.3.
    let request = upgrade_request("X-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nx-forwarded-for:10.0.0.2\r\n");
    let mut bytes = request.clone().into_bytes();
    for cut in 0..bytes.len() {
        assert_eq!(read_request(&bytes[..cut]), Handshake::Incomplete, "cut at {cut}");
    }
    bytes.extend_from_slice(&masked(0x82, b"early"));
    let upgrade = upgrade(&bytes);
    let response = String::from_utf8(upgrade.response).expect("text");
    assert!(response.starts_with("HTTP/1.1 101 "), "{response}");
    assert!(response.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{response}");
    assert!(!response.contains("Extensions") && !response.contains("Protocol:"), "{response}");
    assert_eq!((upgrade.encoding, upgrade.target.as_str()), (None, "/?x=1"));
    assert_eq!(upgrade.forwarded_for, b"203.0.113.9, 10.0.0.1,10.0.0.2");
    assert_eq!(upgrade.consumed, request.len());
    assert_eq!(read_pieces(&bytes[upgrade.consumed..], []), Ok(vec![Seen::Binary(b"early".to_vec())]));
}

#[test]
fn the_first_subprotocol_that_is_known_is_chosen() {
    let check = |header: &str, expected: Option<Encoding>| {
        let upgrade = upgrade(upgrade_request(header).as_bytes());
        assert_eq!(upgrade.encoding, expected, "{header}");
        let response = String::from_utf8(upgrade.response).expect("text");
        let named = expected.map(|encoding| format!("\r\nSec-WebSocket-Protocol: {}\r\n", encoding.subprotocol()));
        assert!(named.is_none_or(|named| response.contains(&named)), "{response}");
    };
    check("", None);
    check("Sec-WebSocket-Protocol: wkproto\r\n", None);
    check("Sec-WebSocket-Protocol: chinwag.v1.json\r\n", Some(Encoding::Json));
    check(
        "sec-websocket-protocol: chinwag.v2.json, chinwag.v1.msgpack , chinwag.v1.json\r\n",
        Some(Encoding::MessagePack),
    );
    check("Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: chinwag.v1.json\r\n", Some(Encoding::Json));
}

#[test]
fn what_is_no_upgrade_gets_an_answer_for_people() {
    let check = |request: &str, expected: u16, word: &str| {
        let Handshake::Refuse { status, response } = read_request(request.as_bytes()) else { panic!("{request}") };
        let response = String::from_utf8(response).expect("text");
        assert_eq!(status, expected, "{request}: {response}");
        assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")) && response.contains(word), "{response}");
        let (head, body) = response.split_once("\r\n\r\n").expect("head and body");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{response}");
    };
    let good = upgrade_request("");
    check("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426, "WebSocket client");
    check("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 404, "HTTP API");
    check("POST / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "Allow: GET");
    check(&good.replace("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1");
    check(&good.replace("Version: 13", "Version: 8"), 426, "Sec-WebSocket-Version: 13");
    check(&good.replace("keep-alive, Upgrade", "keep-alive"), 400, "Connection");
    check(&good.replace("Host: localhost:5200\r\n", ""), 400, "Host");
    check(&good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, "Sec-WebSocket-Key");
    check(&upgrade_request("Content-Length: 5\r\n"), 400, "no body");
    check(&upgrade_request("Transfer-Encoding: chunked\r\n"), 400, "no body");
    check(&upgrade_request("Sec-WebSocket-Protocol: chinwag.v9.json\r\n"), 400, "chinwag.v1.msgpack");
    check("\u{16}\u{3}\u{1}\u{2}", 400, "wss://");
    check(&upgrade_request(&"X: y\r\n".repeat(70)), 431, "larger");
    check(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(HEAD_BYTES_MAX)), 431, "larger");
}

/// A server in memory behind the library's client: answers the head with our handshake.
#[derive(Default)]
struct HandshakePipe {
    pipe: Pipe,
    answered: bool,
}

impl Read for HandshakePipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.answered {
            let upgrade = upgrade(&self.pipe.outgoing);
            assert_eq!(upgrade.encoding, Some(Encoding::MessagePack));
            self.pipe.incoming = io::Cursor::new(upgrade.response);
            self.answered = true;
        }
        self.pipe.read(buffer)
    }
}

impl Write for HandshakePipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pipe.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_library_client_shakes_hands() {
    let mut request = "ws://localhost/".into_client_request().expect("a request");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "chinwag.v1.msgpack".parse().expect("a value"));
    let (_, response) =
        tokio_tungstenite::tungstenite::client(request, HandshakePipe::default()).expect("hands are shaken");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "chinwag.v1.msgpack");
}
