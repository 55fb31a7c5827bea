//! Proves that the bytes of the wire stay what they are: every frame, in both encodings, against files anyone can read.
//!
//! `tests/vectors/native/<client|server>_<kind>.json` is a list of `{name, json, msgpack}`: the JSON text and the
//! MessagePack bytes in hex of the same frame. `accepted.json` holds other spellings a peer may use of a frame in
//! those files. `CHINWAG_WRITE_VECTORS=1` writes the files anew: a changed vector is a changed wire.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::path::PathBuf;

use chinwag_protocol::native::*;
use serde_json::{Value, json};

mod samples;

fn directory() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/native"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
}

fn encoded<F>(
    frame: &F,
    encode: fn(Encoding, &F, &mut Vec<u8>) -> Result<(), chinwag_protocol::error::WireError>,
) -> (String, String) {
    let (mut text, mut bytes) = (Vec::new(), Vec::new());
    encode(Encoding::Json, frame, &mut text).expect("encodes");
    encode(Encoding::MessagePack, frame, &mut bytes).expect("encodes");
    (String::from_utf8(text).expect("JSON is UTF-8"), hex(&bytes))
}

/// file → [(name, json, msgpack)]
fn ours() -> BTreeMap<String, Vec<(String, String, String)>> {
    let mut files: BTreeMap<String, Vec<_>> = BTreeMap::new();
    let mut add = |side: &str, kind: &str, name: &str, (json, msgpack): (String, String)| {
        files.entry(format!("{side}_{kind}")).or_default().push((name.to_owned(), json, msgpack));
    };
    for (name, frame) in samples::client() {
        add("client", frame.kind(), name, encoded(&frame, encode_client));
    }
    for (name, frame) in samples::server() {
        add("server", frame.kind(), name, encoded(&frame, encode_server));
    }
    files
}

#[test]
fn every_frame_has_its_golden_bytes() {
    let ours = ours();
    if std::env::var_os("CHINWAG_WRITE_VECTORS").is_some() {
        for (file, vectors) in &ours {
            let vectors: Vec<String> = vectors
                .iter()
                .map(|(name, json, msgpack)| {
                    let (name, json, msgpack) =
                        (Value::from(name.as_str()), Value::from(json.as_str()), Value::from(msgpack.as_str()));
                    format!("  {{\n    \"name\": {name},\n    \"json\": {json},\n    \"msgpack\": {msgpack}\n  }}")
                })
                .collect();
            std::fs::create_dir_all(directory()).expect("a directory");
            std::fs::write(directory().join(format!("{file}.json")), format!("[\n{}\n]\n", vectors.join(",\n")))
                .expect("a file");
        }
    }
    let mut on_disk = BTreeSet::new();
    for entry in std::fs::read_dir(directory()).expect("vectors") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        if name != "accepted.json" {
            on_disk.insert(name.trim_end_matches(".json").to_owned());
        }
    }
    assert_eq!(on_disk, ours.keys().cloned().collect(), "a file for each kind, and no other");
    let kinds = ClientFrame::KINDS.iter().map(|kind| format!("client_{kind}"));
    let kinds: BTreeSet<_> = kinds.chain(ServerFrame::KINDS.iter().map(|kind| format!("server_{kind}"))).collect();
    assert_eq!(kinds, on_disk, "every kind has vectors");
    for (file, vectors) in ours {
        let golden = read(&file);
        assert_eq!(golden.len(), vectors.len(), "{file}");
        for (golden, (name, json, msgpack)) in golden.iter().zip(vectors) {
            assert_eq!(golden["name"], name, "{file}");
            assert_eq!(golden["json"], json, "{file} {name}");
            assert_eq!(golden["msgpack"], msgpack, "{file} {name}");
        }
    }
}

fn read(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(directory().join(format!("{file}.json"))).expect(file);
    serde_json::from_str(&text).expect(file)
}

fn check<'a, F: PartialEq + Debug + 'a>(
    side: &str,
    frames: impl Iterator<Item = (&'static str, &'static str, F)>,
    decode: impl Fn(Encoding, &[u8], &F),
) {
    for (kind, name, frame) in frames {
        let vectors = read(&format!("{side}_{kind}"));
        let vector = vectors.iter().find(|vector| vector["name"] == name).expect(name);
        decode(Encoding::Json, vector["json"].as_str().expect("text").as_bytes(), &frame);
        decode(Encoding::MessagePack, &unhex(vector["msgpack"].as_str().expect("hex")), &frame);
    }
}

#[test]
fn golden_bytes_decode_to_their_frame() {
    let frames = samples::client().into_iter().map(|(name, frame)| (frame.kind(), name, frame));
    check("client", frames, |encoding, bytes, frame| assert_eq!(decode_client(encoding, bytes).as_ref(), Ok(frame)));
    let frames = samples::server().into_iter().map(|(name, frame)| (frame.kind(), name, frame));
    check("server", frames, |encoding, bytes, frame| assert_eq!(decode_server(encoding, bytes).as_ref(), Ok(frame)));
}

/// The MessagePack of every vector, read by a decoder that knows nothing of frames, is the JSON of the same vector.
#[test]
fn both_encodings_say_the_same() {
    fn same(msgpack: &rmp_value::Value, json: &Value, at: &str) {
        use rmp_value::Value as M;
        match (msgpack, json) {
            (M::Nil, Value::Null) => {}
            (M::Bool(a), Value::Bool(b)) => assert_eq!(a, b, "{at}"),
            (M::Number(a), Value::Number(b)) => {
                assert_eq!(Some(*a), b.as_i64(), "{at}");
                assert!(a.unsigned_abs() <= NUMBER_MAX, "{at}: JSON would lose digits of {a}");
            }
            (M::Text(a), Value::String(b)) => assert_eq!(a, b, "{at}"),
            (M::Bytes(a), Value::String(b)) => {
                use base64::Engine;
                assert_eq!(&base64::engine::general_purpose::STANDARD.encode(a), b, "{at}");
            }
            (M::List(a), Value::Array(b)) => {
                assert_eq!(a.len(), b.len(), "{at}");
                a.iter().zip(b).for_each(|(a, b)| same(a, b, at));
            }
            (M::Map(a), Value::Object(b)) => {
                assert_eq!(a.len(), b.len(), "{at}");
                for (key, value) in a {
                    same(value, b.get(key).unwrap_or_else(|| panic!("{at}: no {key} in JSON")), &format!("{at}.{key}"));
                }
            }
            _ => panic!("{at}: {msgpack:?} is not {json}"),
        }
    }

    for (file, vectors) in ours() {
        for (name, json, msgpack) in vectors {
            let value: rmp_value::Value = rmp_serde::from_slice(&unhex(&msgpack)).expect("MessagePack");
            same(&value, &serde_json::from_str(&json).expect("JSON"), &format!("{file} {name}"));
        }
    }
}

/// Any MessagePack value.
mod rmp_value {
    use std::fmt;

    use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

    #[derive(Debug)]
    pub enum Value {
        Nil,
        Bool(bool),
        Number(i64),
        Text(String),
        Bytes(Vec<u8>),
        List(Vec<Value>),
        Map(Vec<(String, Value)>),
    }

    impl<'de> Deserialize<'de> for Value {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Any;
            impl<'de> Visitor<'de> for Any {
                type Value = Value;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("anything a frame is made of")
                }
                fn visit_unit<E: Error>(self) -> Result<Value, E> {
                    Ok(Value::Nil)
                }
                fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
                    Ok(Value::Bool(value))
                }
                fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
                    Ok(Value::Number(value))
                }
                fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
                    i64::try_from(value).map(Value::Number).map_err(E::custom)
                }
                fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
                    Ok(Value::Text(value.to_owned()))
                }
                fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Value, E> {
                    Ok(Value::Bytes(value.to_vec()))
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                    let mut items = Vec::new();
                    while let Some(item) = seq.next_element()? {
                        items.push(item);
                    }
                    Ok(Value::List(items))
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                    let mut items = Vec::new();
                    while let Some(item) = map.next_entry()? {
                        items.push(item);
                    }
                    Ok(Value::Map(items))
                }
            }
            deserializer.deserialize_any(Any)
        }
    }
}

#[test]
fn other_spellings_are_accepted() {
    let vectors = read("accepted");
    assert!(!vectors.is_empty());
    for vector in vectors {
        let [file, name] = ["file", "same_as"].map(|key| vector[key].as_str().expect(key));
        let canonical = read(file).into_iter().find(|canonical| canonical["name"] == name).expect(name);
        let canonical = unhex(canonical["msgpack"].as_str().expect("hex"));
        let (encoding, bytes) = match vector["json"].as_str() {
            Some(text) => (Encoding::Json, text.as_bytes().to_vec()),
            None => (Encoding::MessagePack, unhex(vector["msgpack"].as_str().expect("hex"))),
        };
        if file.starts_with("client") {
            let expected = decode_client(Encoding::MessagePack, &canonical);
            assert_eq!(decode_client(encoding, &bytes), expected, "{}", vector["why"]);
        } else {
            let expected = decode_server(Encoding::MessagePack, &canonical);
            assert_eq!(decode_server(encoding, &bytes), expected, "{}", vector["why"]);
        }
    }
}

/// The hot path's encoders write what the ordinary one writes.
#[test]
fn direct_encoders_write_the_same_bytes() {
    for encoding in [Encoding::MessagePack, Encoding::Json] {
        for (name, frame) in samples::server() {
            let (mut ordinary, mut direct) = (Vec::new(), Vec::new());
            encode_server(encoding, &frame, &mut ordinary).expect("encodes");
            match &frame {
                ServerFrame::Ack(ack) => encode_ack(encoding, ack, &mut direct).expect("encodes"),
                ServerFrame::Deliver(Deliver { channel_id, channel_type, messages }) => {
                    encode_deliver(encoding, channel_id, *channel_type, messages.iter().cloned(), &mut direct)
                        .expect("encodes");
                }
                _ => continue,
            }
            assert_eq!(direct, ordinary, "{name}");
        }
    }
}

/// The page names every frame and field, its examples are frames, and its table of close codes is the catalogue.
#[test]
fn the_page_tells_the_truth() {
    use chinwag_protocol::close::CloseReason;

    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md")).expect("docs/wire.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| 1") || line.starts_with("| 4")).collect();
    let catalogue: Vec<String> = CloseReason::ALL
        .iter()
        .map(|reason| {
            format!("| {} | `{}` | `{}` | {} |", reason.number(), reason.as_str(), reason.reconnect(), reason.text())
        })
        .collect();
    assert_eq!(rows, catalogue, "the table of close codes");

    fn names(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                found.insert(key.clone());
                names(value, found);
            }),
            Value::Array(items) => items.iter().for_each(|item| names(item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    for (_, json, _) in ours().into_values().flatten() {
        names(&json!([serde_json::from_str::<Value>(&json).expect("JSON")]), &mut found);
    }
    let missing: Vec<_> = found.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/wire.md does not name {missing:?}");

    // ```client, ```server: one JSON frame a line. ```client-hex, ```server-hex: one MessagePack frame a block.
    let mut examples = 0;
    for block in page.split("\n```").skip(1).step_by(2) {
        let (language, text) = block.split_once('\n').unwrap_or((block, ""));
        let lines = text.lines().filter(|line| !line.is_empty());
        match language {
            "client" => lines.for_each(|line| {
                decode_client(Encoding::Json, line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
                examples += 1;
            }),
            "server" => lines.for_each(|line| {
                decode_server(Encoding::Json, line.as_bytes()).unwrap_or_else(|error| panic!("{line}: {error}"));
                examples += 1;
            }),
            "client-hex" | "server-hex" => {
                let digits: String = text.lines().map(|line| line.split("  #").next().unwrap_or("")).collect();
                let bytes = unhex(&digits);
                if language == "client-hex" {
                    decode_client(Encoding::MessagePack, &bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
                } else {
                    decode_server(Encoding::MessagePack, &bytes).unwrap_or_else(|error| panic!("{text}: {error}"));
                }
                examples += 1;
            }
            _ => {}
        }
    }
    assert!(examples >= 20, "{examples} examples");
}
