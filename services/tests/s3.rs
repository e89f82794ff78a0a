//! The object store is what it promises to be: objects are files of a folder, signatures are
//! checked, and `kill -9` loses nothing.

mod skip;

use marquee_services::{S3, S3Options, missing_for_s3};
use skip::is_there;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Asks by curl, which knows how to sign, and returns the status and the answer.
fn ask(s3: &S3, secret: &str, path: &str, more: &[&str]) -> (String, String) {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}"]);
    curl.args(["--aws-sigv4", &format!("aws:amz:{}:s3", S3::REGION)]);
    curl.args(["--user", &format!("{}:{secret}", S3::ACCESS_KEY)]);
    curl.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]).args(more);
    let output = curl.arg(format!("{}/{path}", s3.url())).stdin(Stdio::null()).output();
    let printed = String::from_utf8(output.expect("curl starts").stdout).expect("it is text");
    let (answer, status) = printed.rsplit_once('\n').expect("a status comes last");
    (status.to_owned(), answer.to_owned())
}

/// `--aws-sigv4` is in curl since 7.75.
fn missing_curl() -> Option<String> {
    let help = Command::new("curl").args(["--help", "all"]).output();
    let signs =
        help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--aws-sigv4"));
    (!signs).then(|| "curl 7.75 or newer".to_owned())
}

#[test]
fn objects_are_files_and_survive_kill_and_stop() {
    if !is_there(missing_for_s3()) || !is_there(missing_curl()) {
        return;
    }
    let data = tempfile::tempdir().expect("a folder");
    let mut s3 =
        S3::start(S3Options { port: 0, data: Some(data.path().to_owned()) }).expect("it starts");
    let bucket = s3.bucket("first").expect("it is made");
    let secret = S3::SECRET_KEY;
    let put = ["--request", "PUT", "--data-binary", "hello"];
    assert_eq!(ask(&s3, secret, "first/a/b", &put).0, "200");
    assert_eq!(std::fs::read_to_string(bucket.join("a/b")).expect("it is there"), "hello");
    std::fs::write(bucket.join("c"), "from outside").expect("it is written");
    assert_eq!(ask(&s3, secret, "first/c", &[]), ("200".to_owned(), "from outside".to_owned()));

    // It is no stand-in that takes everything.
    assert_eq!(ask(&s3, "wrong", "first/c", &[]).0, "403");
    assert_eq!(ask(&s3, secret, "second/c", &[]).0, "404");
    let only_new = [put.as_slice(), &["--header", "If-None-Match: *"]].concat();
    assert_eq!(ask(&s3, secret, "first/a/b", &only_new).0, "412");

    let (port, pid) = (s3.port(), s3.pid());
    s3.kill();
    let refused = TcpStream::connect(("127.0.0.1", port)).expect_err("it is gone");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    s3.start_again().expect("it starts again");
    assert_ne!(s3.pid(), pid);
    assert_eq!(s3.port(), port);
    assert_eq!(ask(&s3, secret, "first/a/b", &[]), ("200".to_owned(), "hello".to_owned()));

    s3.pause();
    let silent = ["--max-time", "0.3"];
    assert_eq!(ask(&s3, secret, "first/a/b", &silent).0, "000");
    s3.resume();
    assert_eq!(ask(&s3, secret, "first/a/b", &[]).0, "200");
    s3.stop();
    s3.start_again().expect("it starts again");
    assert_eq!(ask(&s3, secret, "first/a/b", &[]).1, "hello");
}

#[test]
fn stores_stand_side_by_side() {
    if !skip::slow() || !is_there(missing_for_s3()) || !is_there(missing_curl()) {
        return;
    }
    let [one, other] = [(); 2].map(|()| S3::start(S3Options::default()).expect("it starts"));
    let put = ["--request", "PUT", "--data-binary", "hello"];
    for (s3, status) in [(&one, "200"), (&other, "404")] {
        one.bucket("first").expect("it is made");
        assert_eq!(ask(s3, S3::SECRET_KEY, "first/a", &put).0, status);
    }
    let error = S3::start(S3Options { port: one.port(), data: None }).expect_err("it is taken");
    assert!(format!("{error:#}").contains(&format!("127.0.0.1:{}", one.port())), "{error:#}");
}
