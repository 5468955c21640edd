use object_store::memory::InMemory;

use super::*;

fn client() -> Client {
    Client {
        root: "s3://bucket".into(),
        web: false,
        retries: 0,
        inner: Arc::new(InMemory::new()),
        runtime: runtime().unwrap(),
    }
}

#[test]
fn an_object_is_read_completely_or_partly() {
    let client = client();
    let Put::Written(tag) = client.put("a/b c#1.png", b"0123456789".to_vec(), false).unwrap() else { panic!() };
    let content = client.get("a/b c#1.png", 10).wait().unwrap();
    assert_eq!((content.bytes.as_slice(), content.tag), (&b"0123456789"[..], Some(tag)));
    let parts: [(Part, &[u8]); 5] = [
        (Part::First(3), b"012"),
        (Part::First(99), b"0123456789"),
        (Part::Last(3), b"789"),
        (Part::Last(99), b"0123456789"),
        (Part::All, b"0123456789"),
    ];
    for (part, want) in parts {
        assert_eq!(client.part("a/b c#1.png", part).unwrap().as_deref(), Some(want), "{part:?}");
        assert_eq!(client.part("none", part).unwrap(), None, "{part:?}");
    }
    let error = client.get("none", 10).wait().unwrap_err().to_string();
    assert_eq!(error, "s3://bucket/none: cannot be read: it does not exist; check the name");
    let error = client.get("a/b c#1.png", 9).wait().unwrap_err().to_string();
    assert!(error.contains("has 10 bytes; the maximum is 9"), "{error}");
}

#[test]
fn an_object_is_replaced_only_on_request() {
    let client = client();
    let put = |bytes: &[u8], replace| client.put("key", bytes.to_vec(), replace).unwrap();
    assert!(matches!(put(b"one", false), Put::Written(_)));
    assert_eq!(put(b"two", false), Put::Exists);
    assert!(matches!(put(b"one", false), Put::Written(_)), "as after a lost answer");
    assert!(matches!(put(b"two", true), Put::Written(_)));
    assert_eq!(client.part("key", Part::All).unwrap().unwrap(), b"two");
}

#[test]
fn a_listing_is_sorted_and_ends_at_its_prefix() {
    let client = client();
    for key in ["in/b.png", "in/a/c.png", "in/a-1.png", "inner/a.png", "a.png"] {
        client.put(key, key.into(), false).unwrap();
    }
    let keys = |prefix| client.list(prefix).map(|object| object.unwrap().key).collect::<Vec<_>>();
    assert_eq!(keys("in"), ["in/a-1.png", "in/a/c.png", "in/b.png"]);
    assert_eq!(keys("").len(), 5);
    let object = client.list("in").next().unwrap().unwrap();
    assert_eq!(Some(object.tag), client.get(&object.key, 100).wait().unwrap().tag, "tags can be compared");
    assert_eq!(object.size, 10);
}

#[test]
fn errors_are_one_line() {
    let source = io::Error::other(format!("<html>\n  {}", "x".repeat(1000)));
    let error = object_store::Error::PermissionDenied { path: "a".into(), source: Box::new(source) };
    let text = describe(&error);
    assert!(!text.contains('\n') && text.len() < 600 && text.contains("check the credentials"), "{text}");
}
