//! What the wire costs: nanoseconds and bytes per second for each frame of the hot path, in both encodings, and for
//! reading and writing WebSocket frames. `cargo bench --bench codec`; a word after `--` picks the lines that hold it.
//!
//! Every line is the median of nine rounds of at least 20 ms on one thread, with warm caches and reused buffers.

use std::hint::black_box;
use std::time::{Duration, Instant};

use chinwag::gateway::websocket::writer::append_masked_frame;
use chinwag::gateway::websocket::{FrameReader, Opcode, ReadLimits, append_frame, frame_with, mask};
use protocol::native::{
    Ack, ClientFrame, Cursor, Durability, Encoding, MessageItem, Receipt, Send, Sync, decode_client, encode_ack,
    encode_client, encode_deliver,
};

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(20);
const LIMITS: ReadLimits = ReadLimits { message_bytes_max: 1 << 20 };

/// Runs `work` and prints its cost for each of `frames` frames of together `bytes` bytes.
fn measure(name: &str, frames: usize, bytes: usize, mut work: impl FnMut()) {
    let wanted = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).all(|arg| name.contains(&arg));
    if !wanted {
        return;
    }
    let mut batch = 1_u32;
    loop {
        let start = Instant::now();
        (0..batch).for_each(|_| work());
        if start.elapsed() >= ROUND {
            break;
        }
        batch *= 2;
    }
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            (0..batch).for_each(|_| work());
            start.elapsed().as_secs_f64() / f64::from(batch)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    let seconds = rounds[ROUNDS / 2];
    let (ns, mb_per_s) = (seconds * 1e9 / frames as f64, bytes as f64 / seconds / 1e6);
    println!("{name:<44} {ns:>9.1} ns/frame {mb_per_s:>9.0} MB/s {:>7} B/frame", bytes / frames);
}

fn send(payload: &[u8]) -> ClientFrame<'_> {
    ClientFrame::Send(Send {
        client_seq: 123_456,
        channel_id: "channel-000123".into(),
        channel_type: 2,
        client_msg_no: "0b1f7a52-6f4e-4f5c-9a5e-1f0f5c9f7d11".into(),
        payload: payload.into(),
        ..Send::default()
    })
}

fn item(payload: &[u8]) -> MessageItem<'_> {
    MessageItem {
        message_seq: 4_711,
        message_id: 1_790_000_000_123_456,
        from_uid: "user-000042".into(),
        client_msg_no: "0b1f7a52-6f4e-4f5c-9a5e-1f0f5c9f7d11".into(),
        timestamp: 1_790_000_000_123,
        payload: payload.into(),
        ..MessageItem::default()
    }
}

fn native(encoding: Encoding, label: &str) {
    for payload_len in [128, 1_024] {
        let payload: Vec<u8> = (0..payload_len).map(|i| (i * 31) as u8).collect();
        let mut bytes = Vec::new();
        encode_client(encoding, &send(&payload), &mut bytes).expect("encodes");
        measure(&format!("{label} decode send {payload_len}"), 1, bytes.len(), || {
            black_box(decode_client(encoding, black_box(&bytes)).expect("decodes"));
        });
        for count in [1, 64] {
            let mut out = Vec::new();
            let mut encode = || {
                out.clear();
                let items = (0..count).map(|_| item(black_box(&payload)));
                encode_deliver(encoding, "channel-000123", 2, items, &mut out).expect("encodes");
                out.len()
            };
            let bytes = encode();
            measure(&format!("{label} encode deliver {count} x {payload_len}"), 1, bytes, || {
                black_box(encode());
            });
        }
    }
    let receipt =
        ClientFrame::Receipt(Receipt { channel_id: "channel-000123".into(), channel_type: 2, message_seq: 4_711 });
    let mut bytes = Vec::new();
    encode_client(encoding, &receipt, &mut bytes).expect("encodes");
    measure(&format!("{label} decode receipt"), 1, bytes.len(), || {
        black_box(decode_client(encoding, black_box(&bytes)).expect("decodes"));
    });
    let ids: Vec<String> = (0..1_000).map(|i| format!("channel-{i:06}")).collect();
    let cursors = ids.iter().map(|id| Cursor { channel_id: id.as_str().into(), channel_type: 2, last_msg_seq: 4_711 });
    let sync = ClientFrame::Sync(Sync {
        client_seq: 1,
        version: 1_790_000_000_123_456,
        last_msg_seqs: None,
        cursors: cursors.collect(),
        msg_count: 1,
        only_unread: false,
        page_after: None,
        rows_max: 0,
    });
    let mut bytes = Vec::new();
    encode_client(encoding, &sync, &mut bytes).expect("encodes");
    measure(&format!("{label} decode sync, 1000 cursors"), 1, bytes.len(), || {
        black_box(decode_client(encoding, black_box(&bytes)).expect("decodes"));
    });
    let ack = Ack {
        client_seq: 123_456,
        client_msg_no: "0b1f7a52-6f4e-4f5c-9a5e-1f0f5c9f7d11".into(),
        message_id: 1_790_000_000_123_456,
        message_seq: 4_711,
        timestamp: 1_790_000_000_123,
        level: Durability::Disk,
        duplicate: false,
    };
    let mut out = Vec::new();
    encode_ack(encoding, &ack, &mut out).expect("encodes");
    measure(&format!("{label} encode ack"), 1, out.len(), || {
        out.clear();
        encode_ack(encoding, black_box(&ack), &mut out).expect("encodes");
        black_box(&out);
    });
}

fn websocket() {
    for payload_len in [16, 128, 1_024] {
        let payload = vec![7; payload_len];
        let mut wire = Vec::new();
        let mut frames = 0;
        while wire.len() + payload_len + 14 <= 64 * 1_024 {
            append_masked_frame(Opcode::Binary, [1, 2, 3, 4], &payload, &mut wire);
            frames += 1;
        }
        // Reading unmasks in place, so every round starts from a copy, as a receive call would make one.
        let mut chunk = wire.clone();
        let mut reader = FrameReader::new();
        measure(&format!("websocket read {payload_len}, {frames} a chunk"), frames, wire.len(), || {
            chunk.copy_from_slice(&wire);
            let mut at = 0;
            while let (used, Some(event)) = reader.next(&mut chunk[at..], &LIMITS).expect("sound") {
                black_box(event);
                at += used;
            }
        });
        let mut out = Vec::with_capacity(4_096);
        measure(&format!("websocket append {payload_len}"), 1, payload_len, || {
            out.clear();
            append_frame(Opcode::Binary, &mut out, |out| {
                out.extend_from_slice(black_box(&payload));
                Ok::<(), ()>(())
            })
            .expect("infallible");
            black_box(&out);
        });
        measure(&format!("websocket shared frame {payload_len}"), 1, payload_len, || {
            let frame = frame_with(Opcode::Binary, &mut out, |out| {
                out.extend_from_slice(black_box(&payload));
                Ok::<(), ()>(())
            });
            black_box(frame.expect("infallible"));
        });
    }
    let mut bytes = vec![7; 64 * 1_024];
    let len = bytes.len();
    measure("websocket unmask 64 KiB", 1, len, || mask(black_box(&mut bytes), [1, 2, 3, 4], 0));
}

fn main() {
    // `cargo test --benches` only proves that it starts.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    native(Encoding::MessagePack, "msgpack");
    native(Encoding::Json, "json");
    websocket();
}
