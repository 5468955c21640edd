//! Downloads from a local server. Each test lists its responses.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::*;

/// What the server sends, byte by byte, before it closes the connection.
struct Reply(String, &'static [u8]);

const FILE: &[u8] = b"0123456789abcdef";

fn whole(tag: &str) -> Reply {
    Reply(format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 16\r\n\r\n"), FILE)
}

fn rest(from: usize) -> Reply {
    let rest = &FILE[from..];
    Reply(
        format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-15/16\r\nContent-Length: {}\r\n\r\n",
            rest.len()
        ),
        rest,
    )
}

fn status(line: &str) -> Reply {
    Reply(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"), b"")
}

/// Sends one of `replies` to each request. The heads of the requests come back in lower case.
fn serve(replies: Vec<Reply>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (heads, received) = channel();
    thread::spawn(move || {
        for Reply(head, body) in replies {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = request(&stream);
            if asked.starts_with("connect") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
                asked += &request(&stream);
            }
            let _ = heads.send(asked); // not every test reads the requests
            let head = head.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
            stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
        }
    });
    (url, received)
}

fn request(stream: &TcpStream) -> String {
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase() + "\n").collect()
}

fn get(url: &str, to: &Path) -> Result<()> {
    fetch_through(None, url, to, &Fetch::default(), &mut |_, _| {})
}

/// Several downloads to the same file: the server's responses, how each download ends (a part of the error, or `None`), and what
/// the requests must contain.
struct Case {
    why: &'static str,
    runs: Vec<(Vec<Reply>, Option<&'static str>)>,
    asked: Vec<(&'static str, bool)>,
}

#[test]
fn interrupted_downloads_resume_or_restart() {
    let cut = |tag: &str, end: usize| Reply(whole(tag).0, &FILE[..end]);
    let broke = Some("interrupted after 7 of 16 bytes");
    let tag = "ETag: \"one\"\r\n";
    let cases = [
        Case { why: "in one go", runs: vec![(vec![whole(tag)], None)], asked: vec![("range:", false)] },
        Case {
            why: "of unknown length",
            runs: vec![(vec![Reply("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".into(), FILE)], None)],
            asked: vec![("range:", false)],
        },
        Case {
            why: "resumed by its tag",
            runs: vec![(vec![cut(tag, 7)], broke), (vec![rest(7)], None)],
            asked: vec![("range:", false), ("range: bytes=7-\nif-range: \"one\"", true)],
        },
        Case {
            why: "resumed by its date, since a weak tag proves nothing",
            runs: vec![(vec![cut("ETag: W/\"one\"\r\nLast-Modified: Mon, 05 Jan 2026 00:00:00 GMT\r\n", 7)], broke), (vec![rest(7)], None)],
            asked: vec![("range:", false), ("if-range: mon, 05 jan 2026", true)],
        },
        Case {
            why: "resumed by its length alone",
            runs: vec![(vec![cut("", 7)], broke), (vec![rest(7)], None)],
            asked: vec![("range:", false), ("range: bytes=7-", true)],
        },
        Case {
            why: "interrupted again",
            runs: vec![(vec![cut(tag, 7)], broke), (vec![Reply(rest(7).0, &FILE[7..9])], Some("after 9 of 16")), (vec![rest(9)], None)],
            asked: vec![("range:", false), ("range: bytes=7-", true), ("range: bytes=9-", true)],
        },
        Case {
            why: "the server does not support ranges, or has a new file",
            runs: vec![(vec![cut(tag, 7)], broke), (vec![whole(tag)], None)],
            asked: vec![("range:", false), ("range: bytes=7-", true)],
        },
        Case {
            why: "the rest of a longer file",
            runs: vec![
                (vec![cut(tag, 7)], broke),
                (vec![Reply("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 7-16/17\r\n\r\n".into(), b""), whole(tag)], None),
            ],
            asked: vec![("range:", false), ("range: bytes=7-", true), ("range:", false)],
        },
        Case {
            why: "complete, but not renamed",
            runs: vec![
                (vec![Reply("HTTP/1.1 200 OK\r\nETag: \"one\"\r\nTransfer-Encoding: chunked\r\n\r\n".into(), b"10\r\n0123456789abcdef\r\n")], Some("interrupted")),
                (vec![Reply("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */16\r\nContent-Length: 0\r\n\r\n".into(), b"")], None),
            ],
            asked: vec![("range:", false), ("range: bytes=16-", true)],
        },
        Case {
            why: "a part longer than the file",
            runs: vec![
                (vec![cut(tag, 7)], broke),
                (vec![Reply("HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n".into(), b""), whole(tag)], None),
            ],
            asked: vec![("range:", false), ("range: bytes=7-", true), ("range:", false)],
        },
        Case {
            why: "refused, then available",
            runs: vec![
                (vec![status("404 Not Found")], Some("replied `404 Not Found`")),
                (vec![status("503 Service Unavailable")], Some("replied `503")),
                (vec![whole(tag)], None),
            ],
            asked: vec![("range:", false), ("range:", false), ("range:", false)],
        },
        Case {
            why: "compressed although the request excluded it",
            runs: vec![(
                vec![Reply("HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 16\r\n\r\n".into(), FILE)],
                Some("compressed it (br)"),
            )],
            asked: vec![("accept-encoding: identity", true)],
        },
    ];
    for Case { why, runs, asked } in cases {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("deep/model.pdparams");
        let (replies, ends): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        let (url, requests) = serve(replies.into_iter().flatten().collect());
        for (run, end) in ends.into_iter().enumerate() {
            match (get(&url, &to), end) {
                (Ok(()), None) => {
                    assert_eq!(fs::read(&to).unwrap(), FILE, "{why}");
                    assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1, "{why}: no other file remains");
                }
                (Err(error), Some(end)) => {
                    let text = error.to_string();
                    assert!(text.contains(end) && text.starts_with(&url), "{why}, run {run}: {text}");
                    assert!(!to.exists(), "{why}: an interrupted download never has the file's name");
                }
                (got, end) => panic!("{why}, run {run}: {got:?}, wanted {end:?}"),
            }
        }
        for (want, there) in asked {
            let head = requests.recv().unwrap();
            // Every header is at the start of a line.
            assert_eq!(format!("\n{head}").contains(&format!("\n{want}")), there, "{why}: `{want}` in {head}");
        }
    }
}

#[test]
fn a_part_from_another_address_is_not_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.pdparams");
    let (one, _) = serve(vec![Reply(whole("ETag: \"one\"\r\n").0, &FILE[..7])]);
    get(&one, &to).unwrap_err();
    let (two, requests) = serve(vec![whole("")]);
    get(&two, &to).unwrap();
    assert!(!requests.recv().unwrap().contains("range:"));
    assert_eq!(fs::read(&to).unwrap(), FILE);
}

#[test]
fn progress_includes_the_part() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.pdparams");
    let (url, _) = serve(vec![Reply(whole("ETag: \"one\"\r\n").0, &FILE[..7]), rest(7)]);
    get(&url, &to).unwrap_err();
    let mut seen = Vec::new();
    fetch_through(None, &url, &to, &Fetch::default(), &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!((seen.first(), seen.last()), (Some(&(7, Some(16))), Some(&(16, Some(16)))));
}

#[test]
fn offline_mode_and_unreachable_servers_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.pdparams");
    let offline = Fetch { offline: true, ..Fetch::default() };
    let text = fetch("http://127.0.0.1:9/model", &to, &offline, &mut |_, _| {}).unwrap_err().to_string();
    assert!(text.contains("offline") && text.contains("model.pdparams"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = get(&format!("http://{nobody}/model"), &to).unwrap_err().to_string();
    assert!(text.contains("cannot be reached"), "{text}");
}

#[test]
fn a_file_is_downloaded_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model.pdparams");
    let part = File::create(with_suffix(&to, ".part")).unwrap();
    part.lock().unwrap();
    let text = get("http://127.0.0.1:9/model", &to).unwrap_err().to_string();
    assert!(text.contains("another process"), "{text}");
}

#[test]
fn a_stalled_download_times_out() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        request(&stream);
        stream.write_all(whole("").0.as_bytes()).and_then(|()| stream.write_all(&FILE[..7])).unwrap();
        thread::sleep(Duration::from_secs(60));
    });
    let options = Fetch { stall: Duration::from_millis(200), ..Fetch::default() };
    let text =
        fetch_through(None, &url, &folder.path().join("model"), &options, &mut |_, _| {}).unwrap_err().to_string();
    assert!(text.contains("interrupted after 7 of 16 bytes"), "{text}");
}

/// Run by the next test, in a process with its own environment.
#[test]
#[ignore = "needs the environment that the proxy test sets"]
fn fetch_in_this_environment() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("model");
    fetch(&std::env::var("RTFORMER_TEST_URL").unwrap(), &to, &Fetch::default(), &mut |_, _| {}).unwrap();
    assert_eq!(fs::read(to).unwrap(), FILE);
    assert_eq!(cache_dir().unwrap(), Path::new("/tmp/models of mine"));
}

#[test]
fn the_environments_proxy_is_used_except_for_hosts_in_no_proxy() {
    let (server, requests) = serve(vec![whole(""), whole(""), whole("")]);
    // This host does not exist: only the proxy can respond.
    let cases = [
        ("HTTP_PROXY", server.as_str(), "http://rtformer.invalid/model", ""),
        ("ALL_PROXY", server.as_str(), "http://rtformer.invalid/model", ""),
        ("HTTP_PROXY", "http://127.0.0.1:9", server.as_str(), "127.0.0.1"),
    ];
    for (variable, proxy, url, except) in cases {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
            command.env_remove(name).env_remove(name.to_lowercase());
        }
        command.args(["weights::download::tests::fetch_in_this_environment", "--exact", "--ignored"]);
        command
            .env(variable, proxy)
            .env("NO_PROXY", except)
            .env("RTFORMER_TEST_URL", url)
            .env("RTFORMER_CACHE", "/tmp/models of mine");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{variable}={proxy}: {}", String::from_utf8_lossy(&output.stdout));
        let head = requests.recv().unwrap();
        assert_eq!(head.contains("rtformer.invalid"), except.is_empty(), "{head}");
    }
}
