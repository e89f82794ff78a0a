//! The limit of open files: the service raises its own as far as it may, since the state that goes to
//! disk keeps a file for each part.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics
#![cfg(target_os = "linux")] // it looks into /proc

use marquee_e2e::data::{Data, example};
use marquee_e2e::program::marquee;
use marquee_e2e::service::Service;
use std::process::Command;

#[test]
fn the_service_raises_its_limit_of_open_files_to_the_hard_limit() {
    let data = Data::generated(10, 1);
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let folder = data.file("open-files-data");
    let own = format!(
        "{reference}\n[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\n",
        folder.display()
    );
    let config = data.write("open-files.toml", own);
    // A shell lowers the soft limit, and becomes the service.
    let service = marquee(["run", "-c"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -Sn 200 && exec \"$0\" \"$@\""]);
    shell.arg(service.get_program()).args(service.get_args()).arg(config).env_remove("RUST_LOG");
    let service = Service::of(&mut shell, &data.file("open-files.log"));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    assert_ne!(numbers[0], "200", "the test tests nothing: {line}");
    assert_eq!(service.terminate(), Some(0));
}
