//! Cassandra as it stands in a company: clients must come by TLS and with a password. Slow, since the
//! program is built once more, with the feature `cassandra-tls`, into `target/tls`.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::{Data, example};
use marquee_e2e::program::{Finished, root, run};
use marquee_e2e::skip;
use marquee_services::{Cassandra, CassandraOptions, missing_for_cassandra};
use std::path::{Path, PathBuf};
use std::process::Command;

const PASSWORD: &str = "only for a test";

/// Keys and certificates, by the tool that comes with the Java that runs Cassandra.
struct Keys {
    folder: tempfile::TempDir,
}

impl Keys {
    /// `None`: `keytool` is missing.
    fn new() -> Option<Keys> {
        let is_there = |tool: &Path| {
            Command::new(tool).arg("-help").output().is_ok_and(|output| output.status.success())
        };
        let keytool = PathBuf::from("keytool");
        if !is_there(&keytool) {
            skip::missing_tool("keytool (of a Java)");
            return None;
        }
        let keys = Keys { folder: tempfile::tempdir().unwrap() };
        for name in ["node", "stranger"] {
            let store = keys.file(&format!("{name}.p12"));
            let of_store = ["-storetype", "PKCS12", "-storepass", PASSWORD, "-alias", name];
            let mut make = Command::new(&keytool);
            make.args([
                "-genkeypair",
                "-keyalg",
                "EC",
                "-groupname",
                "secp256r1",
                "-validity",
                "9",
            ]);
            make.args(of_store).arg("-keystore").arg(&store);
            make.args(["-dname", &format!("CN={name}"), "-ext", "san=ip:127.0.0.1"]);
            run(&mut make).expect_code(0);
            let mut export = Command::new(&keytool);
            export.args(["-exportcert", "-rfc"]).args(of_store).arg("-keystore").arg(&store);
            run(export.arg("-file").arg(keys.file(&format!("{name}.pem")))).expect_code(0);
        }
        Some(keys)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// The program with TLS for Cassandra.
fn build() -> PathBuf {
    let target = root().join("target/tls");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--quiet", "--package", "marquee", "--features", "cassandra-tls"]);
    run(cargo.current_dir(root()).env("CARGO_TARGET_DIR", &target)).expect_code(0);
    target.join("debug/marquee")
}

/// What one caller knows.
struct Caller<'c> {
    program: &'c Path,
    config: PathBuf,
    password: &'c str,
}

impl Caller<'_> {
    fn run(&self, arguments: &[&str], more: &[&Path]) -> Finished {
        let mut command = Command::new(self.program);
        command.env("MARQUEE_CASSANDRA_USERNAME", "cassandra");
        command.env("MARQUEE_CASSANDRA_PASSWORD", self.password);
        run(command.arg(arguments[0]).arg("-c").arg(&self.config).args(&arguments[1..]).args(more))
    }
}

#[test]
fn a_cluster_that_wants_tls_and_a_password_gets_both_and_refuses_who_lacks_one() {
    if !skip::slow() {
        return;
    }
    if let Some(tool) = missing_for_cassandra() {
        return skip::missing_tool(&tool);
    }
    let Some(keys) = Keys::new() else { return };
    let program = build();
    let encryption = format!(
        "client_encryption_options: {{enabled: true, optional: false, require_client_auth: false, \
         store_type: PKCS12, keystore: '{}', keystore_password: '{PASSWORD}'}}",
        keys.file("node.p12").display()
    );
    let authenticator = "authenticator: PasswordAuthenticator".to_owned();
    let extra = vec![encryption, authenticator];
    let node = Cassandra::start(CassandraOptions { extra, ..Default::default() }).unwrap();
    let data = Data::generated(2_000, 95);
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let config = |name: &str, tls: Option<&Path>| {
        let own = data.file(name).display().to_string();
        let tls = tls.map_or(String::new(), |pem| format!("tls = \"{}\"\n", pem.display()));
        let text = format!(
            "{reference}\n[log]\npath = \"{own}/log\"\n[store]\nkind = \"cassandra\"\n\
             path = \"{own}/store\"\nnodes = \"{}\"\nkeyspace = \"company\"\n{tls}",
            node.address()
        );
        data.write(&format!("{name}.toml"), text)
    };
    let (right, stranger) = (keys.file("node.pem"), keys.file("stranger.pem"));
    let caller = |name: &str, tls: Option<&Path>, password| Caller {
        program: &program,
        config: config(name, tls),
        password,
    };

    // The superuser is made some moments after the node has started.
    let knows_all = caller("right", Some(&right), "cassandra");
    let start = std::time::Instant::now();
    while knows_all.run(&["schema", "--apply"], &[]).code != Some(0) {
        assert!(start.elapsed().as_secs() < 60, "{:?}", knows_all.run(&["schema", "--apply"], &[]));
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
    let inputs: [&Path; 3] = [&data.impressions, Path::new("--plays"), &data.plays];
    knows_all.run(&["backfill", "--impressions"], &inputs).expect_code(0);
    let stored = knows_all.run(&["trends", "--format", "csv"], &[]).expect_code(0).stdout;
    let counted = data.cells(&mut data.backfill(&knows_all.config));
    assert!(cells::of_csv(&counted).len() > 100);
    cells::assert_same(&cells::of_csv(&stored), &cells::of_csv(&counted));

    let refused = |caller: Caller<'_>, words: &[&str]| {
        let finished = caller.run(&["trends"], &[]);
        assert!(matches!(finished.code, Some(1 | 2)), "{finished:?}");
        for words in words {
            assert!(finished.stderr.contains(words), "no {words:?} in {}", finished.stderr);
        }
        assert!(finished.stdout.is_empty());
        assert!(!finished.stderr.contains("wrong one"), "a password is told: {}", finished.stderr);
    };
    refused(caller("password", Some(&right), "wrong one"), &["[store] username and password"]);
    refused(caller("plain", None, "cassandra"), &["set [store] tls"]);
    refused(
        caller("stranger", Some(&stranger), "cassandra"),
        &["certificate", "[store] tls must name"],
    );
    let nowhere = keys.file("nowhere.pem");
    refused(caller("nowhere", Some(&nowhere), "cassandra"), &["nowhere.pem"]);
}
