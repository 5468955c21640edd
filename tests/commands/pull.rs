//! `rtformer pull`, from a local test server.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use rtformer::backend::Reference;
use rtformer::model::{Noise, Parameters, RtFormer};
use rtformer::{Config, Device, Segmenter};

use super::{rtformer, run};

/// The head and body of a reply. The connection is closed after it.
struct Reply(String, Vec<u8>);

impl Reply {
    /// Sends `sent`, a part of a file of `length` bytes.
    fn ok(sent: &[u8], length: usize) -> Self {
        Self(format!("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nContent-Length: {length}"), sent.to_vec())
    }

    fn rest(whole: &[u8], from: usize) -> Self {
        let (rest, length) = (&whole[from..], whole.len());
        let range = format!("Content-Range: bytes {from}-{}/{length}", length - 1);
        Self(format!("HTTP/1.1 206 Partial Content\r\n{range}\r\nContent-Length: {}", rest.len()), rest.to_vec())
    }
}

/// Serves one reply per request. Returns the address, and a channel with the requests' heads in lower case.
fn serve(replies: Vec<Reply>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/mirror", listener.local_addr().unwrap());
    let (heads, received) = channel();
    thread::spawn(move || {
        for Reply(head, body) in replies {
            let (mut stream, _): (TcpStream, _) = listener.accept().unwrap();
            let lines = BufReader::new(&stream).lines().map(Result::unwrap);
            let asked = lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase() + "\n").collect();
            let _ = heads.send(asked); // not every test looks at the requests
            stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
            let _ = stream.write_all(&body); // a client that rejects the reply may close the connection
        }
    });
    (url, received)
}

/// An RTFormer-Slim for Cityscapes as `paddle.save` writes it: protocol 4, a dictionary of numpy arrays.
fn official_shaped() -> Vec<u8> {
    struct Recorded(Noise, Vec<u8>);
    impl Parameters for Recorded {
        fn take(&mut self, name: &str, want: &[usize]) -> rtformer::Result<Vec<f32>> {
            let data = self.0.take(name, want)?;
            let bytes: Vec<u8> = data.iter().flat_map(|number| number.to_le_bytes()).collect();
            let ints = |numbers: &[usize]| {
                let each = numbers.iter().flat_map(|&n| [vec![b'J'], (n as i32).to_le_bytes().to_vec()].concat());
                [vec![b'('], each.collect(), vec![b't']].concat()
            };
            let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
            let raw = |raw: &[u8]| [b"B", &(raw.len() as u32).to_le_bytes()[..], raw].concat();
            self.1.extend(text(name));
            self.1.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n");
            self.1.extend([ints(&[0]), raw(b"b"), b"\x87R(K\x01".to_vec(), ints(want)].concat());
            self.1.extend([b"cnumpy\ndtype\n".to_vec(), text("f4"), b"\x89\x88\x87R(K\x03".to_vec()].concat());
            self.1.extend([text("<"), b"NNNtb\x89".to_vec(), raw(&bytes), b"tbs".to_vec()].concat());
            Ok(data)
        }
    }
    let mut recorded = Recorded(Noise::new(1), b"\x80\x04}".to_vec());
    RtFormer::load(&Reference::unfolded(), &Config::slim(19), &mut recorded).unwrap();
    recorded.1.push(b'.');
    recorded.1
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn pull_resumes_converts_and_keeps() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let pull = |args: &[&str], mirror: &str| {
        let mut command = rtformer(&["pull"]);
        run(command.args(args).env("RTFORMER_CACHE", &cache).env("RTFORMER_MIRROR", mirror))
    };
    let whole = official_shaped();
    let (mirror, asked) = serve(vec![Reply::ok(&whole[..1_000_000], whole.len()), Reply::rest(&whole, 1_000_000)]);
    let (code, _, error) = pull(&["slim-cityscapes"], &mirror);
    assert_eq!(code, 1, "{error}");
    assert!(error.contains(&format!("interrupted after 1000000 of {} bytes", whole.len())), "{error}");
    assert!(
        asked.recv().unwrap().starts_with("get /mirror/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pd")
    );
    assert!(files(&cache).iter().all(|name| name.contains(".part")), "{:?}", files(&cache));

    let (code, _, error) = pull(&["slim-cityscapes"], &mirror);
    assert_eq!(code, 0, "{error}");
    assert!(asked.recv().unwrap().contains("range: bytes=1000000-"));
    assert!(error.contains("--weights slim-cityscapes") && error.contains("slim-cityscapes is ready"), "{error}");
    assert_eq!(files(&cache), ["slim-cityscapes.safetensors"]);
    let model = cache.join("slim-cityscapes.safetensors");
    let segmenter = Segmenter::open(&model, Device::Cpu).unwrap();
    assert_eq!(segmenter.model(), &Config::slim(19).into());
    assert_eq!(segmenter.dataset().classes[13].name, "car");

    // The server has stopped.
    for args in [&["slim-cityscapes"][..], &["slim-cityscapes", "--offline"]] {
        let (code, _, error) = pull(args, &mirror);
        assert!(code == 0 && error.contains("slim-cityscapes is already downloaded"), "{error}");
    }
    let (code, list, _) = pull(&["--list"], "");
    assert!(code == 0 && list.lines().count() == 4 && list.starts_with("slim-cityscapes  ready "), "{list}");
    let (code, ..) = run(rtformer(&["info", "slim-cityscapes"]).env("RTFORMER_CACHE", &cache));
    assert_eq!(code, 0);

    // A checkpoint that the user put into the cache folder.
    let before = fs::read(&model).unwrap();
    fs::remove_file(&model).unwrap();
    let (code, _, error) = pull(&["slim-cityscapes", "--offline"], "");
    assert!(code == 1 && error.contains("slim-cityscapes.pdparams"), "{error}");
    fs::write(cache.join("slim-cityscapes.pdparams"), &whole).unwrap();
    let mut offline = rtformer(&["pull", "slim-cityscapes"]);
    let (code, _, error) = run(offline.env("RTFORMER_CACHE", &cache).env("RTFORMER_OFFLINE", "1"));
    assert_eq!(code, 0, "{error}");
    assert!(fs::read(&model).unwrap() == before, "the same model again");
}

#[test]
fn a_reply_that_is_not_a_checkpoint_is_rejected() {
    let slim = official_shaped();
    let page = b"<!DOCTYPE html><title>Sign in</title>";
    let cases: [(&[u8], &str); 4] = [
        (page, "a web page"),
        (b"", "is empty"),
        (&slim[..slim.len() / 2], "the file is truncated"), // but the server's length says that it is complete
        (&slim, "not the requested variant `base`"),
    ];
    for (body, want) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (mirror, _asked) = serve(vec![Reply::ok(body, body.len())]);
        let args = ["pull", "base-cityscapes", "--mirror", &mirror];
        let (code, _, error) = run(rtformer(&args).env("RTFORMER_CACHE", folder.path()));
        assert_eq!(code, 1, "{error}");
        assert!(error.contains(want) && error.contains("the download was removed, so pull it again"), "{error}");
        assert_eq!(files(folder.path()), [""; 0], "{want}");
    }
}
