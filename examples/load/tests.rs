//! The short cuts of the load tool say the same as the protocol crate, and no bytes of a server can end it.

use std::borrow::Cow;

use proptest::prelude::*;
use protocol::native::{
    self, Ack, ClientFrame, Deliver, Durability, Encoding, MessageItem, ServerFrame, decode_client, encode_server,
};

use crate::frames::{self, Incoming, MSG_NO_BYTES, SendTemplate};
use crate::msgpack::Cursor;
use crate::payload::{Named, Payloads};
use crate::plan::PAYLOAD_MIN;
use crate::raw::{self, split_frame};

fn item(seq: u64, payload: Vec<u8>) -> MessageItem<'static> {
    MessageItem {
        message_seq: seq,
        message_id: 1_790_000_000_000_000 + seq,
        from_uid: "somebody".into(),
        client_msg_no: "no".into(),
        timestamp: 1_790_000_000_000,
        payload: Cow::Owned(payload),
        setting: 7,
        topic: "t".into(),
        ..MessageItem::default()
    }
}

fn bytes_of(frame: &ServerFrame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_server(Encoding::MessagePack, frame, &mut bytes).expect("frames can be encoded");
    bytes
}

/// Takes the mask off what a client wrote; returns the payload.
fn unmask(frame: &[u8]) -> Vec<u8> {
    assert_eq!(frame[0], 0x82, "a whole binary message");
    let (length, at) = match frame[1] & 0x7f {
        126 => (usize::from(u16::from_be_bytes([frame[2], frame[3]])), 4),
        127 => (u64::from_be_bytes(frame[2..10].try_into().expect("eight bytes")) as usize, 10),
        short => (usize::from(short), 2),
    };
    assert_eq!(frame.len(), at + 4 + length);
    let mask = &frame[at..at + 4];
    frame[at + 4..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

proptest! {
    #[test]
    fn a_walked_deliver_is_the_decoded_one(
        seqs in prop::collection::vec((0..1u64 << 53, prop::collection::vec(any::<u8>(), 0..300)), 0..40),
    ) {
        let messages: Vec<_> = seqs.iter().map(|(seq, payload)| item(*seq, payload.clone())).collect();
        let frame = ServerFrame::Deliver(Deliver { channel_id: "g-0000007".into(), channel_type: 2, messages });
        let bytes = bytes_of(&frame);
        let Incoming::Deliver(mut walked) = frames::read(&bytes).expect("a frame") else { panic!("no deliver") };
        prop_assert_eq!((walked.channel_id, walked.channel_type), (&b"g-0000007"[..], 2));
        prop_assert_eq!(walked.count, seqs.len());
        for (seq, payload) in &seqs {
            let item = walked.next().expect("a message").expect("one more");
            prop_assert_eq!((item.message_seq, item.payload), (*seq, &payload[..]));
        }
        prop_assert!(walked.next().expect("the end").is_none());
    }

    #[test]
    fn a_walked_ack_is_the_decoded_one(client_seq in 0..1u64 << 53, message_seq in 0..1u64 << 53, again in any::<bool>()) {
        let ack = Ack {
            client_seq,
            client_msg_no: "no".into(),
            message_id: 1,
            message_seq,
            timestamp: 1,
            level: Durability::Disk,
            duplicate: again,
        };
        let bytes = bytes_of(&ServerFrame::Ack(ack));
        let Incoming::Ack { client_seq: c, message_seq: m, duplicate } = frames::read(&bytes).expect("a frame") else {
            panic!("no ack")
        };
        prop_assert_eq!((c, m, duplicate), (client_seq, message_seq, again));
    }

    #[test]
    fn no_bytes_end_the_tool(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = frames::read(&bytes);
        let _ = split_frame(&bytes);
        let _ = Cursor::new(&bytes).skip();
        // The same behind a true beginning.
        for kind in ["\u{7}deliver", "\u{3}ack"] {
            let mut tempting = vec![0x81, 0xa0 | kind.as_bytes()[0]];
            tempting.extend_from_slice(&kind.as_bytes()[1..]);
            tempting.extend_from_slice(&bytes);
            if let Ok(Incoming::Deliver(mut deliver)) = frames::read(&tempting) {
                while let Ok(Some(_)) = deliver.next() {}
            }
        }
    }

    #[test]
    fn a_filled_template_decodes_to_what_was_filled_in(client_seq in 1..u32::MAX, bytes in 24usize..3_000) {
        let payloads = Payloads::new(1, bytes);
        let named = Named { intended_ns: 5, sender: 3, counter: client_seq };
        let template = SendTemplate::new("g-0000007", 2, bytes, native::Durability::Disk).expect("a template");
        let mut out = Vec::new();
        template.push(&mut out, client_seq, &[b'x'; MSG_NO_BYTES], &payloads.head(named), payloads.body(named));
        let frame = unmask(&out);
        let ClientFrame::Send(send) = decode_client(Encoding::MessagePack, &frame).expect("a frame") else {
            panic!("no send")
        };
        prop_assert_eq!(send.client_seq, u64::from(client_seq));
        prop_assert_eq!((&*send.channel_id, send.channel_type), ("g-0000007", 2));
        prop_assert_eq!(send.client_msg_no.as_bytes(), &[b'x'; MSG_NO_BYTES][..]);
        prop_assert_eq!(payloads.check(&send.payload), Some(named));
    }

    #[test]
    fn a_changed_byte_of_a_payload_is_seen(at in 0usize..200, bit in 0u8..8, length in 0usize..200) {
        let payloads = Payloads::new(9, 200);
        let named = Named { intended_ns: 77, sender: 1, counter: 2 };
        let mut payload = payloads.head(named).to_vec();
        payload.extend_from_slice(payloads.body(named));
        prop_assert_eq!(payloads.check(&payload), Some(named));
        prop_assert_eq!(payloads.check(&payload[..length]), None);
        payload[at] ^= 1 << bit;
        prop_assert_eq!(payloads.check(&payload), None);
    }
}

#[test]
fn frames_of_every_length_class_survive_masking_and_splitting() {
    for length in [0, 1, 7, 125, 126, 127, 65_535, 65_536, 70_000] {
        let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let mut out = Vec::new();
        raw::push_frame(&mut out, 2, &payload);
        assert_eq!(unmask(&out), payload);
    }
    let server = [&[0x82, 126, 0, 200][..], &[9; 200], &[0x89, 0], &[0x82, 3, 1]].concat();
    let (first, rest) = split_frame(&server).expect("sound").expect("whole");
    assert_eq!((first.opcode, first.payload), (2, &[9; 200][..]));
    let (second, rest) = split_frame(rest).expect("sound").expect("whole");
    assert_eq!((second.opcode, second.payload.len()), (9, 0));
    assert_eq!(split_frame(rest).expect("sound"), None, "the last one is not complete");
}

#[test]
fn the_smallest_payload_names_its_message() {
    let payloads = Payloads::new(3, PAYLOAD_MIN);
    let named = Named { intended_ns: u64::MAX, sender: u32::MAX - 1, counter: 1 };
    assert_eq!(payloads.check(&payloads.head(named)), Some(named));
    assert_eq!(Payloads::new(4, PAYLOAD_MIN).check(&payloads.head(named)), None, "another seed, another run");
}
