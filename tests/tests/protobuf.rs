//! What client-go's typed clients get: protobuf that says what the JSON says, for objects, lists, watches, errors and discovery; and gzip where it pays.

use std::io::Read;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::AsyncReadExt;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use skep_api::decode::{FieldValidation, Media, decode, decode_type};
use skep_tests::ControlPlane;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn ask(client: &Client, method: &str, path: &str, accept: &str, body: &Value) -> (Response<()>, Vec<u8>) {
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", "application/json").body(Body::from(body)).expect("a request");
    let (parts, body) = client.send(request).await.expect("an answer").into_parts();
    (Response::from_parts(parts, ()), body.collect_bytes().await.expect("a body").to_vec())
}

async fn get(client: &Client, path: &str, accept: &str) -> Vec<u8> {
    let (head, body) = ask(client, "GET", path, accept, &Value::Null).await;
    assert_eq!(head.status(), 200, "{path}: {}", String::from_utf8_lossy(&body));
    assert!(head.headers()["content-type"].to_str().expect("text").starts_with(&accept[..16]), "{path}");
    body
}

fn config_map(body: &[u8], media: Media) -> Value {
    let kinds = skep_api::kinds::builtin();
    let kind = kinds.iter().find(|kind| kind.kind == "ConfigMap").expect("a built-in kind");
    decode(body, media, kind, FieldValidation::Strict).expect("an object").object
}

/// The fields of a message that hold bytes, by number.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn varint(from: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let byte = from[0];
            *from = &from[1..];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let number = varint(&mut message);
        if tag & 7 == 2 {
            let (value, rest) = message.split_at(usize::try_from(number).expect("a length"));
            found.push((tag >> 3, value.to_vec()));
            message = rest;
        }
    }
    found
}

/// The message in an envelope, and the kind that it names.
fn opened(body: &[u8]) -> (String, Vec<u8>) {
    let unknown = fields(body.strip_prefix(b"k8s\0").expect("the envelope"));
    let kind = fields(&unknown[0].1)[1].1.clone();
    (String::from_utf8(kind).expect("text"), unknown[1].1.clone())
}

fn again(kind: &str, raw: &[u8]) -> Vec<u8> {
    skep_api::encode::envelope("v1", kind, raw)
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_in_protobuf_say_what_json_says() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let body =
        json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "ü\n"}, "binaryData": {"b": "AAE="}});
    let (head, created) = ask(&client, "POST", MAPS, PROTOBUF, &body).await;
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (201, &PROTOBUF.parse().expect("a value")));

    let path = format!("{MAPS}/a");
    let json = config_map(&get(&client, &path, "application/json").await, Media::Json);
    assert_eq!(config_map(&created, Media::Protobuf), json);
    let both = format!("{PROTOBUF},application/json");
    assert_eq!(config_map(&get(&client, &path, &both).await, Media::Protobuf), json);

    let (kind, list) = opened(&get(&client, &format!("{MAPS}?labelSelector=x"), PROTOBUF).await);
    let items: Vec<_> = fields(&list).into_iter().filter(|(number, _)| *number == 2).collect();
    assert_eq!((&*kind, items.len()), ("ConfigMapList", 1));
    assert_eq!(config_map(&again("ConfigMap", &items[0].1), Media::Protobuf), json);

    let shape = format!("{PROTOBUF};as=PartialObjectMetadata;g=meta.k8s.io;v=v1");
    let (kind, metadata) = opened(&get(&client, &path, &shape).await);
    assert_eq!(kind, "PartialObjectMetadata");
    assert_eq!(config_map(&again("ConfigMap", &metadata), Media::Protobuf)["metadata"], json["metadata"]);

    let (head, body) = ask(&client, "GET", &format!("{MAPS}/none"), PROTOBUF, &Value::Null).await;
    assert_eq!((head.status().as_u16(), &head.headers()["content-type"]), (404, &PROTOBUF.parse().expect("a value")));
    let status = decode_type(&body, Media::Protobuf, STATUS).expect("a Status");
    assert_eq!(status["message"], "configmaps \"none\" not found");
    assert_eq!(status["details"]["kind"], "configmaps");

    assert_eq!(opened(&get(&client, "/api/v1", PROTOBUF).await).0, "APIResourceList");
    let (head, _) = ask(&client, "GET", &path, "application/cbor", &Value::Null).await;
    assert_eq!(head.status(), 406);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_in_protobuf_is_a_row_of_frames() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}});
    ask(&client, "POST", MAPS, PROTOBUF, &body).await;
    let uri = format!("{MAPS}?watch=true&fieldSelector=metadata.name%3Da");
    let request = Request::get(uri).header("accept", format!("{PROTOBUF};stream=watch"));
    let request = request.body(Vec::new()).expect("a request");
    let mut stream = Box::pin(client.request_stream(request).await.expect("a stream"));
    let mut events = Vec::new();
    for _ in 0..2 {
        let mut size = [0; 4];
        stream.read_exact(&mut size).await.expect("a frame's size");
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut frame).await.expect("a frame");
        let event = fields(&frame);
        let object = config_map(&fields(&event[1].1)[0].1, Media::Protobuf);
        events.push((String::from_utf8(event[0].1.clone()).expect("text"), object));
        if events.len() == 1 {
            ask(&client, "DELETE", &format!("{MAPS}/a"), PROTOBUF, &Value::Null).await;
        }
    }
    assert_eq!((&*events[0].0, &*events[1].0), ("ADDED", "DELETED"));
    assert_eq!(events[0].1["data"], json!({"k": "v"}));
    assert_ne!(events[0].1["metadata"]["resourceVersion"], events[1].1["metadata"]["resourceVersion"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_answers_are_packed_for_those_who_take_it() {
    let cluster = ControlPlane::start().await.expect("a control plane");
    let client = cluster.client().await.expect("a client");
    let text = "some words ".repeat(20_000);
    ask(&client, "POST", MAPS, PROTOBUF, &json!({"metadata": {"name": "large"}, "data": {"k": text}})).await;
    for (path, accept) in [("/large", "application/json"), ("", "application/json"), ("", PROTOBUF)] {
        let request = |encoding: &str| {
            let request = Request::get(format!("{MAPS}{path}")).header("accept", accept);
            request.header("accept-encoding", encoding).body(Body::empty()).expect("a request")
        };
        let packed = client.send(request("gzip")).await.expect("an answer");
        assert_eq!(packed.headers()["content-encoding"], "gzip", "{path} {accept}");
        let packed = packed.into_body().collect_bytes().await.expect("a body");
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut read).expect("gzip");
        let plain = client.send(request("identity")).await.expect("an answer");
        assert!(plain.headers().get("content-encoding").is_none());
        assert_eq!(STANDARD.encode(read), STANDARD.encode(plain.into_body().collect_bytes().await.expect("a body")));
        assert!(packed.len() < 50_000);
    }
}
