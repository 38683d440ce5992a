//! The vectors under `tests/vectors/` against the types, and the examples of `protocol.md` against the vectors.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use adit::proto::api;
use adit::proto::frame::{Decoder, Event, Role};
use adit::proto::message::{ToClient, ToRelay};
use bytes::BytesMut;
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
