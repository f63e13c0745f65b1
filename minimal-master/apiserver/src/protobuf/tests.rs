use proptest::prelude::*;

use super::*;

/// A field of bytes with its key and length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, content.len() as u8];
    out.extend_from_slice(content);
    out
}

fn number(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
    let names = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), field(1, &names), field(2, object)].concat()
}

#[test]
fn reads_maps_and_metadata() {
    let metadata = [field(1, b"x"), field(2, b""), field(8, b"")].concat();
    let entry = [field(1, b"a"), field(2, b"b")].concat();
    let object = [field(1, &metadata), field(2, &entry)].concat();
    let expected = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": {"a": "b"}});
    assert_eq!(decode(&body("v1", "ConfigMap", &object)).unwrap(), expected);
}

#[test]
fn reads_inline_messages_times_and_quantities() {
    let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
    let limits = field(
        1,
        &[field(1, b"cpu"), field(2, &field(1, b"100m"))].concat(),
    );
    let container = [field(1, b"c"), field(8, &limits)].concat();
    let spec = [field(1, &volume), field(2, &container), number(4, 0)].concat();
    let deleted = number(1, 60);
    let object = [field(1, &field(9, &deleted)), field(2, &spec)].concat();
    let pod = decode(&body("v1", "Pod", &object)).unwrap();
    assert_eq!(
        pod["spec"]["volumes"],
        json!([{"name": "v", "emptyDir": {}}])
    );
    assert_eq!(
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"],
        "100m"
    );
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
    assert_eq!(pod["metadata"]["deletionTimestamp"], "1970-01-01T00:01:00Z");
}

#[test]
fn reads_numbers_or_texts_and_bytes() {
    let port = |target: &[u8]| [number(3, 80), field(4, target)].concat();
    let by_number = port(&[number(1, 0), number(2, 90)].concat());
    let by_name = port(&[number(1, 1), field(3, b"http")].concat());
    let unset = port(&[number(1, 0), number(2, 0), field(3, b"")].concat());
    let spec = [field(1, &by_number), field(1, &by_name), field(1, &unset)].concat();
    let service = decode(&body("v1", "Service", &field(2, &spec))).unwrap();
    let expected =
        json!([{"port": 80, "targetPort": 90}, {"port": 80, "targetPort": "http"}, {"port": 80}]);
    assert_eq!(service["spec"]["ports"], expected);
    let data = [field(1, b"k"), field(2, b"\x00\xff")].concat();
    let secret = decode(&body("v1", "Secret", &field(2, &data))).unwrap();
    assert_eq!(secret["data"]["k"], "AP8=");
}

#[test]
fn says_what_it_does_not_know() {
    assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
    let error = decode(&body("batch/v1", "Job", b"")).unwrap_err();
    assert!(error.to_string().contains("Job"), "{error}");
    let mut cut = body("v1", "ConfigMap", &field(1, b""));
    cut.pop();
    cut.pop();
    assert!(decode(&cut).is_err());
}

#[test]
fn only_its_media_type_is_its_business() {
    assert!(is_protobuf(Some(
        "application/vnd.kubernetes.protobuf;type=x"
    )));
    assert!(!is_protobuf(Some("application/json")) && !is_protobuf(None));
}

proptest! {
    /// Whatever comes, an answer comes back.
    #[test]
    fn garbage_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..3) {
        let kind = ["Pod", "Node", "Service"][kind];
        let mut text = body("v1", kind, b"");
        text.truncate(text.len() - 2);
        text.push(2 << 3 | 2);
        text.push(bytes.len() as u8);
        if bytes.len() < 128 {
            text.extend_from_slice(&bytes);
        }
        let _ = decode(&text);
        let _ = decode(&[MAGIC, &bytes].concat());
    }
}
