//! `marquee verify` on a lake in a folder: one that nobody has touched differs in nothing, and each
//! corruption that DuckDB plants into its files, or a hand into its manifests, is found, named, and
//! gone after a repair.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::cells;
use marquee_e2e::data::{Data, backfill, example};
use marquee_e2e::duckdb::{DuckDb, literal};
use marquee_e2e::lake;
use marquee_e2e::program::{Finished, marquee, run};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Epochs that the files of the test hold everything of, as somebody says who gives them.
const RANGE: [&str; 4] = ["--from", "2016-11-21T00:00:00Z", "--to", "2016-11-22T00:00:00Z"];

/// The reference job with a store and a lake of its own.
fn job(data: &Data, name: &str, more: &str) -> PathBuf {
    let reference = std::fs::read_to_string(example("reference.toml")).unwrap();
    let text = format!(
        "{reference}\n[log]\npath = \"{name}/log\"\n[store]\npath = \"{name}/store\"\n\
         [lake]\nurl = \"file:{name}/lake\"\n{more}"
    );
    data.write(&format!("{name}.toml"), text)
}

fn verify(data: &Data, config: &Path, flags: &[&str]) -> Finished {
    let mut command = marquee(["verify", "-c"]);
    command.arg(config).arg("--impressions").arg(&data.impressions);
    run(command.arg("--plays").arg(&data.plays).args(RANGE).args(flags))
}

fn lines(finished: &Finished) -> Vec<Value> {
    let text = std::str::from_utf8(&finished.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The newest manifest of the day of the data: its path and what it says.
fn manifest(lake: &Path) -> (PathBuf, Value) {
    let mut files = Vec::new();
    let mut folders = vec![lake.join("manifests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_folder = path.is_dir();
            if is_folder { &mut folders } else { &mut files }.push(path);
        }
    }
    let newest = files.into_iter().max().unwrap();
    let text = std::fs::read_to_string(&newest).unwrap();
    (newest, serde_json::from_str(&text).unwrap())
}

fn write_manifest(path: &Path, manifest: &Value) {
    std::fs::write(path, serde_json::to_string_pretty(manifest).unwrap()).unwrap();
}

/// A cell of the lake with more than one member on both sides, and the file that it is in.
struct Target {
    lane: i64,
    video: String,
    epoch_start_ms: i64,
    shown: u64,
    played: u64,
    file: PathBuf,
}

impl Target {
    fn find(duckdb: &DuckDb, lake: &Path) -> Target {
        let rows = duckdb.rows(&[
            &lake::by_manifests(lake),
            "create or replace view named as select * from
               read_parquet(getvariable('files'), hive_partitioning = true, filename = true)",
            "select lane, video_id, epoch_start_ms, impressions, plays, filename from named
             where impressions > 2 and plays > 1 order by epoch_start_ms, lane, video_id limit 1",
        ]);
        let [row] = rows.as_slice() else { panic!("no cell is fit: {rows:?}") };
        Target {
            lane: row[0].as_i64().unwrap(),
            video: row[1].as_str().unwrap().to_owned(),
            epoch_start_ms: row[2].as_i64().unwrap(),
            shown: row[3].as_u64().unwrap(),
            played: row[4].as_u64().unwrap(),
            file: row[5].as_str().unwrap().into(),
        }
    }

    /// Writes the file anew: what `columns` says instead of the cell's own, or without the cell.
    fn rewrite(&self, duckdb: &DuckDb, replaced: Option<&str>) {
        let is_it =
            format!("video_id = '{}' and epoch_start_ms = {}", self.video, self.epoch_start_ms);
        let (file, other) = (literal(&self.file), self.file.with_extension("new"));
        // The names of its folders are columns for DuckDB, which the file does not have.
        let file = format!("read_parquet({file}, hive_partitioning = false)");
        let rest = format!("select * from {file} where not ({is_it})");
        let cell = replaced.map_or(String::new(), |columns| {
            format!(" union all select * replace ({columns}) from {file} where {is_it}")
        });
        let to = literal(&other);
        let copy = format!(
            "copy (select * from ({rest}{cell}) order by video_id, epoch_start_ms)
             to {to} (format parquet)"
        );
        duckdb.rows(&[&copy]);
        std::fs::rename(other, &self.file).unwrap();
    }

    #[track_caller]
    fn assert_is(&self, line: &Value, what: &str, name: &str) {
        assert_eq!(line["place"], "lake", "{name}: {line}");
        assert_eq!(line["what"], what, "{name}: {line}");
        assert_eq!((&line["video"], &line["lane"]), (&json!(self.video), &json!(self.lane)));
        assert_eq!(line["epoch_start_ms"], self.epoch_start_ms, "{name}: {line}");
        let right = json!({ "impressions": self.shown, "plays": self.played });
        assert_eq!(line["expected"], right, "{name}: {line}");
    }
}

/// A store and a lake that agree, a copy of the lake to go back to, and what is right.
struct Case {
    data: Data,
    config: PathBuf,
    lake: PathBuf,
    good: PathBuf,
    right: Vec<cells::Cell>,
    duckdb: DuckDb,
}

impl Case {
    fn new(seed: u64, name: &str) -> Option<Case> {
        let duckdb = DuckDb::find()?;
        let data = Data::generated(5_000, seed);
        let config = job(&data, name, "");
        run(&mut data.backfill(&config)).expect_code(0);
        let lake = data.file(name).join("lake");
        let good = data.file("good");
        copy(&lake, &good);
        let right = lake::cells(&duckdb, &lake::by_manifests(&lake));
        Some(Case { data, config, lake, good, right, duckdb })
    }

    fn restore(&self) {
        std::fs::remove_dir_all(&self.lake).unwrap();
        copy(&self.good, &self.lake);
    }

    /// What was planted is found, mended, and found no more; and DuckDB reads what is right.
    #[track_caller]
    fn check(&self, name: &str, is_found: impl Fn(&[Value], &str)) {
        let found = verify(&self.data, &self.config, &[]).expect_code(1);
        is_found(&lines(&found), &found.stderr);
        let repaired = verify(&self.data, &self.config, &["--repair"]);
        assert_eq!(repaired.code, Some(0), "{name}: {}", repaired.stderr);
        repaired.expect_words("written anew into the lake");
        let again = verify(&self.data, &self.config, &[]);
        assert_eq!((again.code, again.stdout.len()), (Some(0), 0), "{name}: {}", again.stderr);
        assert!(!again.stderr.contains("is not what was written"), "{name}: {}", again.stderr);
        let manifests = lake::by_manifests(&self.lake);
        cells::assert_same(&lake::cells(&self.duckdb, &manifests), &self.right);
        assert_eq!(lake::differing_members(&self.duckdb, &self.data, &manifests), 0, "{name}");
        self.restore();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn each_planted_corruption_of_a_file_is_found_and_mended() {
    let Some(case) = Case::new(71, "files") else { return };
    let untouched = verify(&case.data, &case.config, &[]).expect_code(0);
    assert_eq!(untouched.stdout, b"");
    let untouched = untouched.expect_words(" differ, 0 files cannot be used");
    assert!(untouched.number("cells") > 1_000, "{}", untouched.stderr);

    let target = Target::find(&case.duckdb, &case.lake);
    let intruder = "00000000-0000-4000-8000-000000000001";
    let add = format!(
        "list_append(impression_requests, '{intruder}') as impression_requests,
         impressions + 1 as impressions"
    );
    type Plant<'p> = (&'p str, Option<&'p str>, &'p str, [u64; 2]);
    let plants: [Plant<'_>; 5] = [
        ("a row removed", None, "absent", [target.shown + target.played, 0]),
        ("a count too low", Some("plays - 1 as plays"), "count", [0, 0]),
        ("a count too high", Some("impressions + 5 as impressions"), "count", [0, 0]),
        (
            "a member removed",
            Some("impression_requests[2:] as impression_requests"),
            "count_members",
            [1, 0],
        ),
        ("a member added", Some(&add), "members", [0, 1]),
    ];
    for (name, columns, what, [missing, extra]) in plants {
        target.rewrite(&case.duckdb, columns);
        case.check(name, |found, said| {
            let [line] = found else { panic!("{name}: {} lines\n{said}", found.len()) };
            target.assert_is(line, what, name);
            let total = |which: &str| {
                let side = |side: &str| line[which][side]["total"].as_u64().unwrap();
                side("impressions") + side("plays")
            };
            assert_eq!([total("missing"), total("extra")], [missing, extra], "{name}: {line}");
            assert!(said.contains("is not what was written under its name"), "{name}: {said}");
        });
    }

    // Written anew by somebody, with the same rows: said, and no difference.
    target.rewrite(&case.duckdb, Some("plays as plays"));
    let same = verify(&case.data, &case.config, &[]).expect_code(0);
    assert_eq!(same.stdout, b"");
    same.expect_words("is not what was written under its name");
    case.restore();

    let bytes = std::fs::read(&target.file).unwrap();
    std::fs::write(&target.file, &bytes[..bytes.len() / 2]).unwrap();
    case.check("a torn file", |found, said| {
        assert!(found.len() > 10 && found.iter().all(|line| line["what"] == "absent"), "{said}");
        assert!(said.contains("is listed and cannot be read"), "{said}");
        assert!(said.contains("1 files of the lake are listed and cannot be used"), "{said}");
    });
    std::fs::remove_file(&target.file).unwrap();
    case.check("a file gone", |found, said| {
        assert!(found.len() > 10 && found.iter().all(|line| line["place"] == "lake"), "{said}");
        assert!(said.contains("is listed and is not there"), "{said}");
    });
}

#[test]
fn each_planted_corruption_of_a_manifest_is_found_and_mended() {
    let Some(case) = Case::new(72, "manifests") else { return };
    let (path, good) = manifest(&case.lake);
    let entries = good["entries"].as_array().unwrap();
    let is_full = |entry: &&Value| entry["rows"].as_u64() > Some(10);
    let place = |entry: &Value| entries.iter().position(|other| other == entry).unwrap();
    let full: Vec<usize> = entries.iter().filter(is_full).map(place).collect();
    let (first, last) = (full[0], *full.last().unwrap());
    let rows = entries[first]["rows"].as_u64().unwrap();

    let mut planted = good.clone();
    planted["entries"][first]["files"][0]["path"] = json!("cells/nowhere.parquet");
    write_manifest(&path, &planted);
    case.check("it points at nothing", |found, said| {
        assert_eq!(found.len() as u64, rows, "{said}");
        assert!(said.contains("cells/nowhere.parquet in the lake is listed and is not there"));
    });

    // The file of one lane in the place of another one's.
    let mut planted = good.clone();
    let other = full.iter().find(|at| entries[**at]["lane"] != entries[first]["lane"]).unwrap();
    planted["entries"][first]["files"] = good["entries"][*other]["files"].clone();
    write_manifest(&path, &planted);
    case.check("it points at another lane's file", |found, said| {
        assert_eq!(found.len() as u64, rows, "{said}");
        assert!(said.contains("it is no file of lane"), "{said}");
    });

    let mut planted = good.clone();
    planted["entries"].as_array_mut().unwrap().remove(first);
    write_manifest(&path, &planted);
    case.check("an entry is gone that others came after", |found, said| {
        assert_eq!(found.len() as u64, rows, "{said}");
        assert!(found.iter().all(|line| line["what"] == "absent"), "{said}");
    });

    // What no lane has gone on from may be on its way.
    let mut planted = good.clone();
    let from_ms = planted["entries"][last]["from_ms"].as_i64();
    let is_before = |entry: &Value| entry["from_ms"].as_i64() < from_ms;
    planted["entries"].as_array_mut().unwrap().retain(is_before);
    write_manifest(&path, &planted);
    let on_its_way = verify(&case.data, &case.config, &[]).expect_code(0);
    assert_eq!(on_its_way.stdout, b"");
    on_its_way.expect_words("it is closed and not there yet");

    std::fs::write(&path, "{").unwrap();
    let failed = verify(&case.data, &case.config, &[]).expect_code(1);
    failed.expect_words("is not what this program writes");
    std::fs::remove_dir_all(&case.lake).unwrap();
    let none = verify(&case.data, &case.config, &[]).expect_code(0);
    none.expect_words("is not compared: it holds nothing of this store yet");
    assert!(!case.lake.exists(), "a comparison makes no lake");
}

/// A stalled owner's file, or a backup that somebody has put back: all of an older version, under the
/// name of the newest.
#[test]
fn a_file_in_an_older_version_is_found_and_mended() {
    let Some(duckdb) = DuckDb::find() else { return };
    let data = Data::generated(5_000, 73);
    let config = job(&data, "older", "");
    let text = std::fs::read_to_string(&data.impressions).unwrap();
    let odd = text.lines().enumerate().filter(|(number, _)| number % 3 > 0);
    let some: String = odd.map(|(_, line)| format!("{line}\n")).collect();
    let some = data.write("some.ndjson", some);
    run(&mut backfill(&config, &some, &data.plays)).expect_code(0);
    let lake = data.file("older").join("lake");
    let (_, before) = manifest(&lake);
    run(&mut data.backfill(&config)).expect_code(0);
    let (path, after) = manifest(&lake);
    verify(&data, &config, &[]).expect_code(0);

    let [older, newer] = [&before, &after].map(|manifest| &manifest["entries"][0]);
    assert_eq!((&older["lane"], &older["from_ms"]), (&newer["lane"], &newer["from_ms"]));
    assert_ne!(older["files"], newer["files"]);
    let file = |entry: &Value| lake.join(entry["files"][0]["path"].as_str().unwrap());
    let good = std::fs::read(file(newer)).unwrap();
    std::fs::copy(file(older), file(newer)).unwrap();
    let found = verify(&data, &config, &[]).expect_code(1);
    let lines = lines(&found);
    assert!(lines.len() > 10, "{}", found.stderr);
    assert!(lines.iter().all(|line| line["place"] == "lake" && line["lane"] == older["lane"]));
    std::fs::write(file(newer), good).unwrap();

    // The whole entry, whose file is as it was written and still there.
    let mut planted = after.clone();
    planted["entries"][0] = older.clone();
    write_manifest(&path, &planted);
    let again = verify(&data, &config, &[]).expect_code(1);
    assert_eq!(self::lines(&again), lines);
    verify(&data, &config, &["--repair"]).expect_code(0).expect_words("written anew");
    assert_eq!(verify(&data, &config, &[]).expect_code(0).stdout, b"");
    assert_eq!(lake::differing_members(&duckdb, &data, &lake::by_manifests(&lake)), 0);
}
