//! `/marquee.js` in a real browser: what visitors see becomes impressions, what they do not see does
//! not, and all of it arrives, once. Each test is a check of the same name in e2e/browser; the cells
//! of a real service judge.

use marquee_e2e::browser::{Browser, free_port};
use marquee_e2e::data::Data;
use marquee_e2e::service::Service;

/// Epochs of a second: a cell tells when its event was.
const CONFIG: &str = r#"
[impressions]
attributes = { country = "string?" }
[plays]
attributes = { country = "string?", duration_s = "int?" }
filter = "duration_s == null || duration_s >= 60"
[transform]
slices = [[], ["country"]]
[aggregate]
epochs = ["1s"]
[runtime]
batch_interval = "50ms"
[http]
listen = "127.0.0.1:0"
"#;

/// Runs one check against a service of its own.
fn check(file: &str, name: &str, more: &str) {
    let Some(browser) = Browser::find() else { return };
    let data = Data::of("", "");
    let path = data.file("service");
    let places =
        format!("[log]\npath = \"{0}/log\"\n[store]\npath = \"{0}/store\"\n", path.display());
    // Pages of another site: its port must be known before the service starts.
    let port = free_port().to_string();
    let origins = format!("allowed_origins = [\"http://127.0.0.1:{port}\"]\n");
    let collector = match more.is_empty() {
        true => format!("[collector]\n{origins}"),
        false => format!("{more}{origins}"),
    };
    let config = data.write("service.toml", format!("{CONFIG}{places}{collector}"));
    let service = Service::start(&config, &data.file("service.log"));
    browser.check(file, name, &service.address, &[("MARQUEE_SITE_PORT", &port)]);
    assert_eq!(service.terminate(), Some(0));
}

/// A test for each check of a file, and one that none was forgotten.
macro_rules! checks {
    ($file:literal: $($(#[$attribute:meta])* $name:ident $(with $more:literal)?),* $(,)?) => {
        $(
            #[test]
            $(#[$attribute])*
            fn $name() {
                super::check($file, stringify!($name), concat!($($more)?));
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

mod seen {
    checks!("script":
        held_tiles_are_seen_and_those_below_are_not,
        scrolled_past_fast_is_not_seen,
        a_hidden_tab_sees_nothing_until_it_is_visible_again,
        while_the_page_stands_still_nothing_is_seen,
        what_is_covered_is_not_seen,
        what_a_dialog_stands_over_is_not_seen,
        half_is_half_and_half_a_second_half_a_second,
        a_row_that_scrolls_sideways_hides_what_is_outside,
        half_of_the_window_is_enough_of_an_oversized_tile,
        an_oversized_tile_may_be_narrow_or_low,
        preset_mrc_is_exact_about_sizes_shares_and_times,
        preset_mrc_wants_a_second_and_less_of_large_tiles,
        a_reranked_tile_counts_anew_and_the_same_one_once,
        a_request_that_changes_before_it_was_seen_is_not_seen,
        a_random_walk_is_what_an_independent_tally_says,
        a_click_counts_the_impression_and_the_play_at_once,
        what_is_clicked_or_played_need_not_stay,
        it_works_from_another_origin,
    );
}

mod delivered {
    checks!("delivery":
        offline_and_another_page_lose_nothing_and_keep_the_times,
        the_online_event_sends_at_once,
        the_tag_may_name_the_collector,
        a_busy_collector_is_tried_again_and_spared,
        an_event_that_is_refused_on_the_way_holds_up_no_other,
        some_that_are_refused_on_the_way_hold_up_no_new_one,
        a_second_flush_spares_a_collector_that_asks_for_it,
        what_is_refused_for_all_is_tried_less_and_less,
        a_flush_includes_what_came_while_it_sent,
        an_answer_that_is_lost_counts_once,
        rejected_events_are_dropped_and_told,
        what_is_too_large_is_split with "[collector]\nmax_body = \"1KiB\"\n",
        two_tabs_send_each_event_once,
        what_a_closed_tab_has_left_another_one_sends,
        without_local_storage_it_works_from_memory,
        leaving_sends_what_is_there,
        what_is_left_in_a_hurry_is_the_play,
        a_tab_that_is_hidden_sends_at_once,
        the_storage_is_bounded_by_the_newest_thousand,
    );
}
