//! The vectors under `tests/vectors/` against the types, and the examples of `protocol.md` against the vectors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use adit::proto::api;
use adit::proto::frame::{Decoder, Event, Role};
use adit::proto::message::{ToClient, ToRelay};
use adit::proto::wsmux::{Frame, Head, Mux, Output, Reader, Settings, Taken};
use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Reads the JSON as `T` and writes it again.
fn through<T: DeserializeOwned + Serialize>(json: &Value) -> Value {
    let read: T = serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error}: {json}"));
    serde_json::to_value(read).unwrap()
}

#[test]
fn every_message_survives_being_read_and_written() {
    for vector in vectors("messages.json") {
        let json = &vector["json"];
        let again = match vector["kind"].as_str().unwrap() {
            "to_client" => {
                let message = ToClient::from_json(json.to_string().as_bytes());
                serde_json::from_str(&message.to_json()).unwrap()
            }
            "to_client_ignored" => {
                assert_eq!(ToClient::from_json(json.to_string().as_bytes()), ToClient::Unknown, "{json}");
                continue;
            }
            "to_relay" => through::<ToRelay>(json),
            "to_relay_ignored" => {
                assert_eq!(ToRelay::from_json(json.to_string().as_bytes()), Ok(ToRelay::Unknown), "{json}");
                continue;
            }
            "to_relay_unreadable" => {
                assert!(ToRelay::from_json(json.to_string().as_bytes()).is_err(), "{json}");
                continue;
            }
            "create" => through::<api::CreateTunnel>(json),
            "tunnel" => through::<api::Tunnel>(json),
            "health" => through::<api::Health>(json),
            "version" => through::<api::Version>(json),
            "suspend" => through::<api::Suspend>(json),
            "suspended" => through::<api::Suspended>(json),
            "extend" => through::<api::Extend>(json),
            "inspection" => through::<api::Inspection>(json),
            "inspection_state" => through::<api::InspectionState>(json),
            "error" => through::<api::ApiError>(json),
            other => panic!("no type for {other}"),
        };
        assert_eq!(&again, json);
    }
}

/// The definition of a message or body, and those that it refers to.
fn schema(kind: &str) -> jsonschema::Validator {
    let file = |name: &str| -> Value {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let (mut whole, pointer) = match kind.split_once('.') {
        Some((_, name)) => (file("docs/openapi.json"), format!("#/components/schemas/{name}")),
        None => (file("tests/vectors/messages.schema.json"), format!("#/$defs/{kind}")),
    };
    whole["$ref"] = pointer.into();
    jsonschema::validator_for(&whole).unwrap()
}

#[test]
fn every_vector_is_what_its_schema_says() {
    for vector in vectors("messages.json") {
        let (kind, json) = (vector["kind"].as_str().unwrap(), &vector["json"]);
        let (name, valid) = match kind {
            "to_client" | "to_relay" => (kind, true),
            "to_client_ignored" | "to_client_unreadable" => ("to_client", false),
            "to_relay_ignored" | "to_relay_unreadable" => ("to_relay", false),
            "create" => ("rest.CreateTunnel", true),
            "tunnel" => ("rest.Tunnel", true),
            "health" => ("rest.Health", true),
            "version" => ("rest.Version", true),
            "suspend" => ("rest.Suspend", true),
            "suspended" => ("rest.Suspended", true),
            "extend" => ("rest.Extend", true),
            "inspection" => ("rest.Inspection", true),
            "inspection_state" => ("rest.InspectionState", true),
            "error" => ("rest.ApiError", true),
            other => panic!("no schema for {other}"),
        };
        assert_eq!(schema(name).is_valid(json), valid, "{name}: {json}");
    }
}

/// What the schema lets a sender leave out, a reader does not miss; what it wants is missed.
#[test]
fn a_field_is_required_where_it_is_always_there() {
    for vector in vectors("messages.json") {
        let kind = vector["kind"].as_str().unwrap();
        if !matches!(kind, "to_client" | "to_relay") {
            continue;
        }
        let schema = schema(kind);
        for field in vector["json"].as_object().unwrap().keys() {
            let mut without = vector["json"].clone();
            without.as_object_mut().unwrap().remove(field);
            if !schema.is_valid(&without) {
                continue;
            }
            let text = without.to_string();
            let read = match kind {
                "to_client" => ToClient::from_json(text.as_bytes()) != ToClient::Unknown,
                _ => ToRelay::from_json(text.as_bytes()).is_ok(),
            };
            assert!(read, "without {field}: {text}");
        }
    }
}

#[test]
fn every_frame_decodes_to_its_payload_or_to_an_error() {
    for vector in vectors("frames.json") {
        let what = &vector["what"];
        let repeated = unhex(vector["repeat"].as_str().unwrap_or(""))
            .repeat(vector["times"].as_u64().unwrap_or(0) as usize);
        let wire = [unhex(vector["hex"].as_str().unwrap()), repeated.clone()].concat();
        let payload = vector["payload"].as_str().map_or(repeated, unhex);
        let role = if vector["from"] == "client" { Role::Server } else { Role::Client };
        let (mut decoder, mut buffer, mut got) = (Decoder::new(role), BytesMut::from(&wire[..]), Vec::new());
        let failed = loop {
            match decoder.next(&mut buffer) {
                Ok(Some(Event::Data(data))) => got.extend_from_slice(&data),
                Ok(Some(_)) => {}
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        assert_eq!(failed, vector["error"] == true, "{what}");
        assert!(failed || got == payload, "{what}");
    }
}

#[test]
fn every_message_of_wsmux_is_a_frame_or_an_error() {
    for vector in vectors("wsmux.json").iter().filter(|vector| vector["kind"] == "frame") {
        let wire = unhex(vector["hex"].as_str().unwrap());
        let stream = |name: &str| u32::try_from(vector[name][0].as_u64().or(vector[name].as_u64())?).ok();
        let (frame, written) = if let Some(stream) = stream("data") {
            let payload = unhex(vector["data"][1].as_str().unwrap());
            let written = [Head::data(stream).as_ref(), &payload].concat();
            ((!payload.is_empty()).then_some(Frame::Data { stream, payload: payload.into() }), written)
        } else if let Some(stream) = stream("syn") {
            (Some(Frame::Syn { stream }), Head::syn(stream).as_ref().to_vec())
        } else if let Some(stream) = stream("ack") {
            let bytes = vector["ack"][1].as_u64().unwrap() as u32;
            (Some(Frame::Ack { stream, bytes }), Head::ack(stream, bytes).as_ref().to_vec())
        } else if let Some(stream) = stream("fin") {
            (Some(Frame::Fin { stream }), Head::fin(stream).as_ref().to_vec())
        } else {
            let error = Reader::default().piece(wire.into(), true).unwrap_err();
            assert_eq!(error.to_string(), vector["error"], "{vector}");
            continue;
        };
        assert_eq!(written, wire, "{vector}");
        assert_eq!(Reader::default().piece(wire.into(), true), Ok(frame), "{vector}");
    }
}

#[test]
fn sessions_of_wsmux_go_as_they_are_written() {
    for vector in vectors("wsmux.json").iter().filter(|vector| vector["kind"] == "session") {
        let role = if vector["role"] == "server" { Role::Server } else { Role::Client };
        #[allow(clippy::disallowed_methods, reason = "any time is as good as another")]
        let now = std::time::Instant::now();
        let mut settings = Settings::default();
        settings.window = vector["window"].as_u64().unwrap() as u32;
        let mut mux = Mux::new(now, role, settings);
        for step in vector["steps"].as_array().unwrap() {
            let what = format!("{}: {step}", vector["what"]);
            let stream = step[1].as_u64().unwrap_or(0) as u32;
            match step[0].as_str().unwrap() {
                "opens" => assert_eq!(mux.open(now), Ok(stream), "{what}"),
                "accepts" => assert_eq!(mux.accept(), Some(stream), "{what}"),
                "writes" => {
                    let data = unhex(step[2].as_str().unwrap());
                    assert_eq!(mux.write(stream, &data), Ok(data.len()), "{what}");
                }
                "reads" => {
                    let data = Bytes::from(unhex(step[2].as_str().unwrap()));
                    assert_eq!(mux.read(stream, usize::MAX), Ok(Taken::Bytes(data)), "{what}");
                }
                "sees the end" => assert_eq!(mux.read(stream, usize::MAX), Ok(Taken::End), "{what}"),
                "ends" => mux.shutdown(stream),
                "drops" => mux.release(now, stream),
                "has" => assert_eq!(mux.streams(), stream as usize, "{what}"),
                "hears" => {
                    mux.piece(now, Bytes::from(unhex(step[1].as_str().unwrap())), true);
                }
                "says" => {
                    let expected = step.as_array().unwrap()[1..].iter();
                    let expected: Vec<Vec<u8>> =
                        expected.map(|message| unhex(message.as_str().unwrap())).collect();
                    assert_eq!(said(&mut mux), (expected, None), "{what}");
                }
                "closes" => {
                    let (code, reason) = (stream as u16, step[2].as_str().unwrap().to_owned());
                    assert_eq!(said(&mut mux), (Vec::new(), Some((code, reason))), "{what}");
                }
                other => panic!("no such step: {other}"),
            }
        }
    }
}

/// All that a session has to say, without its pings; and its close frame.
fn said(mux: &mut Mux) -> (Vec<Vec<u8>>, Option<(u16, String)>) {
    let (mut messages, mut close) = (Vec::new(), None);
    while let Some(output) = mux.output() {
        match output {
            Output::Frame(head, payload) => messages.push([head.as_ref(), &payload[..]].concat()),
            Output::Ping => {}
            Output::Close(code, reason) => close = Some((code, reason.to_owned())),
        }
    }
    (messages, close)
}

#[test]
fn the_examples_of_the_specification_are_vectors() {
    let text = include_str!("../protocol.md");
    let known: Vec<Value> =
        vectors("messages.json").into_iter().map(|vector| vector["json"].clone()).collect();
    let mut examples = 0;
    for block in text.split("```json\n").skip(1) {
        for line in block.split("```").next().unwrap().lines() {
            let example: Value = serde_json::from_str(line).unwrap();
            assert!(known.contains(&example), "no vector for {line}");
            examples += 1;
        }
    }
    for example in text.split('`').filter(|part| part.starts_with("{\"")) {
        // Bodies that name their fields only, such as {"version","api_version"}, are no JSON.
        if let Ok(example) = serde_json::from_str::<Value>(example) {
            assert!(known.contains(&example), "no vector for {example}");
            examples += 1;
        }
    }
    assert!(examples >= 5, "only {examples} examples found");
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}
