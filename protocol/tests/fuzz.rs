//! Proves that no bytes, random or nearly right, make a codec panic, lose its place or take memory that the bytes do not account
//! for: frames of `tests/vectors`, damaged, by the million, to every decoder that reads what a stranger sends.
//!
//! ```text
//! CHINWAG_FUZZ_FRAMES=100000000 CHINWAG_FUZZ_SEED=7 cargo test --release -p chinwag-protocol --test fuzz -- --nocapture
//! ```
//!
//! `CHINWAG_FUZZ_FRAMES`: frames per decoder, a million unless said (a fifth of it for native ones). `CHINWAG_FUZZ_SEED`: the seed; without it every run has
//! another and prints it. A failure prints the frame. No other toolchain is needed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use allocation_counter::AllocationInfo;
use chinwag_protocol::jsonrpc::{self, Spelling};
use chinwag_protocol::native::{self, Encoding};
use chinwag_protocol::wukong::*;
use serde_json::Value;

mod dice;

use dice::{Dice, cipher};

fn frames() -> usize {
    std::env::var("CHINWAG_FUZZ_FRAMES").ok().and_then(|count| count.parse().ok()).unwrap_or(1_000_000)
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn json_of(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors")
}

/// Packets the clients and servers of WuKongIM wrote.
fn packets() -> Vec<Vec<u8>> {
    let vectors = json_of(&vectors().join("wukong/wkproto-vectors.json"));
    ["client_encoded", "server_encoded", "spec_derived", "framing", "negative"]
        .into_iter()
        .flat_map(|group| vectors[group].as_array().expect("a list").clone())
        .filter_map(|vector| vector["hex"].as_str().map(unhex))
        .collect()
}

/// JSON-RPC of its Easy SDKs, and what they take.
fn texts() -> Vec<Vec<u8>> {
    let vectors = json_of(&vectors().join("wukong/wkproto-vectors.json"));
    ["client_easysdk_js_2_0_1", "client_easysdk_python_0_1_0", "server_accepted_by_both"]
        .into_iter()
        .flat_map(|group| vectors["jsonrpc"][group].as_array().expect("a list").clone())
        .map(|message| message.to_string().into_bytes())
        .collect()
}

/// Native frames of clients in an encoding.
fn native_frames(encoding: Encoding) -> Vec<Vec<u8>> {
    let mut files: Vec<_> =
        std::fs::read_dir(vectors().join("native")).expect("vectors").map(|e| e.expect("a file").path()).collect();
    files.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("client_")));
    files.sort();
    let vectors = files.iter().flat_map(|file| json_of(file).as_array().expect("a list").clone());
    vectors
        .filter_map(|vector| match encoding {
            Encoding::Json => vector["json"].as_str().map(|text| text.as_bytes().to_vec()),
            Encoding::MessagePack => vector["msgpack"].as_str().map(unhex),
        })
        .collect()
}

/// Every fourth time random bytes, else a sample with up to four wounds: a byte, a bit, bytes lost, doubled or put in.
fn damaged(dice: &mut Dice, corpus: &[Vec<u8>], frame: &mut Vec<u8>) {
    frame.clear();
    if dice.below(4) == 0 {
        let length = dice.below(80);
        frame.extend((0..length).map(|_| dice.roll() as u8));
        return;
    }
    frame.extend_from_slice(&corpus[dice.below(corpus.len())]);
    let wounds = dice.below(4);
    for _ in 0..1 + dice.below(1 + wounds) {
        let at = dice.below(frame.len());
        let end = (at + 1 + dice.below(16)).min(frame.len());
        match dice.below(6) {
            0 if at < frame.len() => frame[at] = dice.roll() as u8,
            1 if at < frame.len() => frame[at] ^= 1 << dice.below(8),
            2 if at < end => drop(frame.drain(at..end)),
            3 if at < end => frame.extend_from_within(at..end),
            // A length that was never sent: four bytes of a large number.
            4 if at + 4 <= frame.len() => frame[at..at + 4].copy_from_slice(&(dice.number() as u32).to_be_bytes()),
            _ => frame.insert(at, [0, 0x7f, 0x80, 0xff, 0xdd, b'"', b'{', b'[', b'\\'][dice.below(9)]),
        }
    }
}

/// What became of all frames.
#[derive(Default)]
struct Seen {
    decoded: usize,
    refused: usize,
    /// Most bytes of heap at once for one frame, and how long that frame was.
    most: (u64, usize),
}

/// What a decoder made of a frame.
struct Made {
    taken: bool,
    /// Bytes that came and that it may hold: the frame, and what of the same connection came before.
    came: usize,
}

/// Gives a decoder so many frames. What one costs at once must not be above a small multiple of what came. `judge` looks at the
/// same frame without being measured. A failure names the frame.
fn run(
    name: &str,
    count: usize,
    corpus: &[Vec<u8>],
    mut decode: impl FnMut(&mut Dice, &[u8]) -> Made,
    mut judge: impl FnMut(&mut Dice, &[u8]),
) {
    let mut dice = Dice::new(name);
    let (mut frame, mut seen) = (Vec::with_capacity(4_096), Seen::default());
    for number in 0..count {
        damaged(&mut dice, corpus, &mut frame);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut made = Made { taken: false, came: 0 };
            let AllocationInfo { bytes_max, .. } = allocation_counter::measure(|| made = decode(&mut dice, &frame));
            // What does not depend on it is the text of a refusal, with a number of 300 digits in it at worst.
            let bound = 4_096 + 8 * made.came as u64;
            assert!(bytes_max <= bound, "{bytes_max} bytes of heap at once, {bound} are allowed");
            judge(&mut dice, &frame);
            (made.taken, bytes_max)
        }));
        let Ok((taken, bytes_max)) = outcome else {
            panic!("{name}: frame {number} of this seed does harm: {}", frame.escape_ascii());
        };
        seen.decoded += usize::from(taken);
        seen.refused += usize::from(!taken);
        seen.most = seen.most.max((bytes_max, frame.len()));
    }
    let Seen { decoded, refused, most: (bytes, length) } = seen;
    println!(
        "{name}: {decoded} frames taken, {refused} refused; most heap at once {bytes} bytes, for a frame of {length}"
    );
    assert!(decoded > count / 100 && refused > count / 10, "both ways are tried: {decoded}, {refused}");
}

#[test]
fn a_million_damaged_packets_do_no_harm() {
    let (keys, _) = cipher(&mut Dice::of(1));
    let mut cutter = Cutter::new(BODY_BYTES_MAX);
    let mut opened = Vec::new();
    let decode = |dice: &mut Dice, mut piece: &[u8]| {
        let version = Version::negotiate(dice.below(7) as u8);
        let (mut taken, came) = (false, cutter.held_bytes() + piece.len());
        // Some packets go on where others ended, as on a connection that is not closed.
        loop {
            match cutter.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(raw)) => {
                    let Ok(packet) = decode(version, &raw) else { continue };
                    taken = true;
                    if let Packet::Send(send) = &packet {
                        opened = Vec::new();
                        let _ = keys.decrypt(&send.payload, &mut opened);
                    }
                }
                Err(_) => {
                    cutter = Cutter::new(BODY_BYTES_MAX);
                    break;
                }
            }
        }
        // A packet of a megabyte that nobody will complete must not hide all others.
        if dice.below(8) == 0 {
            cutter = Cutter::new([300, BODY_BYTES_MAX][dice.below(2)]);
        }
        Made { taken, came }
    };
    let mut again = Vec::new();
    let judge = |dice: &mut Dice, frame: &[u8]| {
        let version = Version::negotiate(dice.below(7) as u8);
        let Ok(Some(raw)) = cut(frame, BODY_BYTES_MAX) else { return };
        let Ok(packet) = chinwag_protocol::wukong::decode(version, &raw) else { return };
        if packet.kind().is_some() {
            again.clear();
            encode(version, &packet, &mut again).expect("what was read can be written");
            let raw = cut(&again, BODY_BYTES_MAX).expect("well formed").expect("complete");
            assert_eq!(chinwag_protocol::wukong::decode(version, &raw), Ok(packet));
        }
    };
    run("packets", frames(), &packets(), decode, judge);
}

#[test]
fn a_million_damaged_texts_do_no_harm() {
    let mut again = Vec::new();
    let decode = |dice: &mut Dice, frame: &[u8]| {
        if dice.below(8) == 0
            && let Ok(jsonrpc::ServerMessage::Answer { outcome: Ok(answer), .. }) = jsonrpc::decode_server(frame)
        {
            let _ = (answer.connack(), answer.sendack());
        }
        Made { taken: jsonrpc::decode_client(frame).is_ok(), came: frame.len() }
    };
    let judge = |_: &mut Dice, frame: &[u8]| {
        if let Ok(message) = jsonrpc::decode_client(frame) {
            again.clear();
            jsonrpc::encode_client(Spelling::Both, message.id.as_deref(), &message.packet, &mut again)
                .expect("what was read can be written");
            assert!(jsonrpc::decode_client(&again).is_ok());
        }
    };
    run("texts", frames(), &texts(), decode, judge);
}

#[test]
fn damaged_native_frames_do_no_harm() {
    for (name, encoding) in [("MessagePack", Encoding::MessagePack), ("JSON", Encoding::Json)] {
        let decode = |_: &mut Dice, frame: &[u8]| Made {
            taken: native::decode_client(encoding, frame).is_ok(),
            came: frame.len(),
        };
        let mut again = Vec::new();
        let judge = |_: &mut Dice, frame: &[u8]| {
            if let Ok(read) = native::decode_client(encoding, frame) {
                again.clear();
                native::encode_client(encoding, &read, &mut again).expect("what was read can be written");
                assert_eq!(native::decode_client(encoding, &again).as_ref(), Ok(&read));
            }
        };
        // Fewer: these refusals say in words what is wrong, which takes its time.
        run(name, frames() / 5, &native_frames(encoding), decode, judge);
    }
}
