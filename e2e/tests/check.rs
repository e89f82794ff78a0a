//! `check`: a good configuration is summed up, a bad one is refused with every fault and its line.

use marquee_e2e::data::{Data, example};
use marquee_e2e::program::{Finished, marquee, root, run};
use std::path::Path;

fn check(config: &Path) -> Finished {
    run(marquee(["check", "-c"]).arg(config))
}

/// Checks a configuration of this text; also its path.
fn check_text(text: &str) -> (Finished, String) {
    let data = Data::of("", "");
    let path = data.write("marquee.toml", text);
    (check(&path), path.display().to_string())
}

/// A configuration of this text is refused, with one fault on each of these lines.
#[track_caller]
fn refused(text: &str, lines: &[usize]) -> Finished {
    let (finished, path) = check_text(text);
    let finished = finished.expect_code(2);
    assert_eq!(finished.stdout, b"", "faults go to standard error");
    let mut said: Vec<&str> =
        finished.stderr.lines().filter(|line| line.starts_with(&path)).collect();
    said.sort_by_key(|said| line_of(said, &path));
    assert_eq!(said.len(), lines.len(), "{}", finished.stderr);
    for (said, line) in said.iter().zip(lines) {
        assert!(said.starts_with(&format!("{path}:{line}: ")), "not line {line}: {said}");
        assert!(said.contains("found ") && said.contains(", expected "), "{said}");
    }
    finished
}

/// The line that a fault names.
fn line_of(said: &str, path: &str) -> Option<usize> {
    said.strip_prefix(path)?.split(':').nth(1)?.parse().ok()
}

#[test]
fn the_examples_are_good_and_are_summed_up_on_one_screen() {
    for name in ["reference.toml", "slides.toml"] {
        let finished = check(&example(name)).expect_code(0);
        let summary = String::from_utf8(finished.stdout).expect("it is text");
        assert!((5..=40).contains(&summary.lines().count()), "{summary}");
        assert!(summary.contains(r#"device != "console""#), "{summary}");
        assert_eq!(finished.stderr, "", "a good file is worth no warning");
    }
}

#[test]
fn an_empty_file_is_good() {
    check_text("").0.expect_code(0);
}

#[test]
fn every_fault_is_listed_with_its_line() {
    let text = "[join]\n\
                within = \"1hour\"\n\
                latenes = \"10m\"\n\
                \n\
                [aggregate]\n\
                epochs = [\"7m\", \"2m\"]\n\
                [runtim]\n\
                threads = 2\n";
    let finished = refused(text, &[2, 3, 6, 7]);
    for words in ["join.within", "for example \"1h\"", "did you mean `lateness`?", "4 faults"] {
        assert!(finished.stderr.contains(words), "{words}: {}", finished.stderr);
    }
}

#[test]
fn expressions_are_checked_and_their_lines_named() {
    let text = "[impressions]\n\
                attributes = { device = \"string?\" }\n\
                filter = 'device == 3'\n\
                [plays]\n\
                filter = '''\n  true &&\n  nosuch > 1'''\n\
                [transform]\n\
                video = '1 +'\n";
    // The second expression has several lines: its first is named.
    let finished = refused(text, &[3, 5, 9]);
    assert!(finished.stderr.contains("`nosuch` is not declared"), "{}", finished.stderr);
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    refused("[join]\nwithin = \n", &[2]);
    refused("a = 1\na = 2\n", &[2]);
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let data = Data::of("", "");
    let binary = data.write("binary.toml", b"\x00\xff\xfe[join]");
    let large = data.write("large.toml", "# a comment\n".repeat(200_000));
    for path in [Path::new("no/such.toml"), data.file("").as_path(), &binary, &large] {
        let finished = check(path).expect_code(2);
        assert!(finished.stderr.contains(&path.display().to_string()), "{}", finished.stderr);
    }
}

#[test]
fn the_commands_of_the_help_exist_and_unknown_ones_are_wrong_usage() {
    let help = run(&mut marquee(["--help"])).expect_code(0);
    let help = String::from_utf8(help.stdout).expect("it is text");
    for command in ["backfill", "check", "generate"] {
        assert!(help.contains(command), "{help}");
        run(&mut marquee([command, "--help"])).expect_code(0);
        run(&mut marquee([command, "--nonsense"])).expect_code(2);
    }
    run(&mut marquee(["nonsense"])).expect_code(2);
    run(&mut marquee(Vec::<&str>::new())).expect_code(2);
}

/// The documents cite whole configurations: they must be good.
#[test]
fn the_whole_file_in_the_documents_is_good() {
    let page = std::fs::read_to_string(root().join("docs/configuration.md")).expect("it is there");
    let blocks = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let whole = blocks.max_by_key(|block| block.len()).expect("the page shows a configuration");
    assert!(whole.lines().count() > 30, "the whole file is the longest block");
    check_text(whole).0.expect_code(0);
}

#[test]
fn a_bad_expression_is_listed_beside_other_faults() {
    let text = "[join]\nwithin = \"1hour\"\n[impressions]\nfilter = 'video =='\n\
                [plays]\nattributes = { n = \"number\" }\nfilter = 'n > 3'\n";
    // The filter of plays is not judged: what is wrong there is the type of `n`.
    refused(text, &[2, 4, 6]);
}
