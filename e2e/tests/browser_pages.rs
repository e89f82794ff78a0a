//! The member page and the operator's page in a real browser: the loop that they close, keys, weight,
//! axe, and what pages of other sites cannot do. Each test is a check of the same name in
//! e2e/browser.

use marquee_e2e::browser::Browser;
use marquee_e2e::data::Data;
use marquee_e2e::program::root;
use marquee_e2e::service::Service;

const TOKEN: &str = "an operator of the tests";

const CONFIG: &str = r#"
[impressions]
attributes = { device = "string?" }
[plays]
attributes = { duration_s = "int" }
filter = "duration_s >= 60"
[http]
listen = "127.0.0.1:0"
pages = "demo"
token = "an operator of the tests"
[rank]
keys = ["a secret of the tests, thirty-two bytes or more"]
"#;

/// Runs one check against a service of its own, with batches of so many milliseconds.
fn check(file: &str, name: &str, batch_ms: u32, more: &str) {
    let Some(browser) = Browser::find() else { return };
    let data = Data::of("", "");
    let path = data.file("service");
    let places = format!(
        "[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n[runtime]\n\
         batch_interval = \"{batch_ms}ms\"\n{more}",
        path.display()
    );
    let config = data.write("service.toml", format!("{CONFIG}{places}"));
    let service = Service::start(&config, &data.file("service.log"));
    let batch_ms = batch_ms.to_string();
    // Pictures stay, for people to look at.
    let pictures = root().join("target/pictures").display().to_string();
    let more = [
        ("MARQUEE_HTTP_TOKEN", TOKEN),
        ("MARQUEE_BATCH_MS", batch_ms.as_str()),
        ("MARQUEE_PICTURES", pictures.as_str()),
    ];
    browser.check(file, name, &service.address, &more);
    assert_eq!(service.terminate(), Some(0));
}

macro_rules! checks {
    ($file:literal, $batch_ms:literal: $($name:ident $(with $more:literal)?),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                super::check($file, stringify!($name), $batch_ms, concat!($($more)?));
            }
        )*

        #[test]
        fn every_check_is_a_test() {
            let Some(browser) = marquee_e2e::browser::Browser::find() else { return };
            let mut tests = [$(stringify!($name)),*];
            tests.sort_unstable();
            assert_eq!(browser.checks($file), tests);
        }
    };
}

/// The buttons of the demo, as whoever has its link presses them.
mod demo {
    use marquee_e2e::browser::Browser;
    use marquee_e2e::data::Data;
    use marquee_e2e::program::marquee;
    use marquee_e2e::service::Service;

    fn check(name: &str) {
        let Some(browser) = Browser::find() else { return };
        let data = Data::of("", "");
        let mut command = marquee(["demo", "--port", "0", "--rate", "1000", "--data"]);
        command.arg(data.file("demo")).env("MARQUEE_HTTP_TOKEN", super::TOKEN);
        let demo = Service::of(&mut command, &data.file("demo.log"));
        browser.check("demo", name, &demo.address, &[("MARQUEE_HTTP_TOKEN", super::TOKEN)]);
        assert_eq!(demo.terminate(), Some(0));
    }

    #[test]
    fn the_crash_button_changes_no_count() {
        check("the_crash_button_changes_no_count");
    }

    #[test]
    fn a_title_in_the_news_rises_and_a_source_that_is_stopped_is_silent() {
        check("a_title_in_the_news_rises_and_a_source_that_is_stopped_is_silent");
    }
}

mod member {
    checks!("member", 500:
        a_play_changes_its_cell_and_its_score_within_two_batch_intervals,
        the_panel_covers_no_tile,
        a_tile_whose_code_was_changed_is_refused_and_one_that_was_served_is_not
            with "[collector]\nrequire_signed = true\n",
        keys_alone_reach_every_tile_and_play,
        what_is_looked_at_never_moves_and_a_new_order_is_a_new_request,
        a_recommender_that_is_away_is_said_and_the_page_stays,
        reduced_motion_stands_still,
    );
}

mod pages {
    checks!("pages", 100:
        pages_pass_axe_fit_their_window_and_have_their_picture_taken,
        no_page_weighs_more_than_150_kilobytes,
    );
}

mod ops {
    checks!("ops", 100:
        a_note_of_one_operator_is_seen_by_another_at_once,
        numbers_and_letters_come_without_a_reload,
        a_page_of_another_site_can_neither_read_nor_change_anything,
        a_name_that_was_pointed_here_is_not_answered,
        a_wrong_token_is_said_and_changes_nothing,
        what_is_being_read_stays_and_what_came_meanwhile_follows,
        a_page_that_is_one_too_many_is_kept_up_to_date_when_another_is_closed,
    );
}
