//! Secrets that stand in the environment: they win over those of the file, and must be as good.

use super::read::{KEY_BYTES, TOKEN_BYTES, is_secret};
use super::sections::Secret;
use super::{Config, Fault};

/// Puts the secrets of the environment in their places. A variable that is empty is none. What `variable`
/// gives is never shown.
pub(super) fn secrets(
    config: &mut Config,
    variable: impl Fn(&str) -> Option<String>,
) -> Vec<Fault> {
    let set = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
    let mut faults = Vec::new();
    let bad = |config: &Config, key: &str, name: &str, least: usize| {
        let found = format!("what the environment's {name} holds");
        let expected = format!("at least {least} printable characters of ASCII");
        config.fault(key, &found, &expected, "the output of `openssl rand -hex 32`")
    };
    for (key, name) in [
        ("http.token", "MARQUEE_HTTP_TOKEN"),
        ("collector.token", "MARQUEE_COLLECTOR_TOKEN"),
        ("rank.token", "MARQUEE_RANK_TOKEN"),
    ] {
        let Some(text) = set(name) else { continue };
        if !is_secret(&text, TOKEN_BYTES) {
            faults.push(bad(config, key, name, TOKEN_BYTES));
            continue;
        }
        let place = match key {
            "http.token" => &mut config.http.token,
            "collector.token" => &mut config.collector.token,
            _ => &mut config.rank.token,
        };
        *place = Secret(text);
    }
    const KEYS: &str = "MARQUEE_RANK_KEYS";
    if let Some(text) = set(KEYS) {
        let keys: Vec<Secret> = text.split(',').map(|key| Secret(key.trim().to_owned())).collect();
        match keys.iter().all(|key| is_secret(&key.0, KEY_BYTES)) {
            true => config.rank.keys = keys,
            false => {
                let fault = bad(config, "rank.keys", KEYS, KEY_BYTES);
                faults.push(fault.with_hint("they stand between commas, and none is empty"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Config, Vec<String>) {
        let mut config = Config::default();
        config.rank.keys = vec![Secret("of the file".to_owned())];
        config.rank.token = Secret("of the file".to_owned());
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
        };
        let faults = secrets(&mut config, variable);
        (config, faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn those_of_the_environment_win() {
        let old = "an old secret of thirty-two bytes or more";
        let new = "a newer secret of thirty-two bytes or more";
        let (config, faults) = read(&[
            ("MARQUEE_HTTP_TOKEN", "an operator of the tests"),
            ("MARQUEE_COLLECTOR_TOKEN", "a server of the tests"),
            ("MARQUEE_RANK_TOKEN", ""),
            ("MARQUEE_RANK_KEYS", &format!("{new}, {old}")),
        ]);
        assert_eq!(faults, Vec::<String>::new());
        assert_eq!(config.http.token.0, "an operator of the tests");
        assert_eq!(config.collector.token.0, "a server of the tests");
        assert_eq!(config.rank.token.0, "of the file", "an empty one is none");
        let keys: Vec<&str> = config.rank.keys.iter().map(|key| &key.0[..]).collect();
        assert_eq!(keys, [new, old]);
        let (config, _) = read(&[("MARQUEE_RANK_KEYS", " ")]);
        assert_eq!(config.rank.keys.len(), 1);
    }

    /// Whoever knows a key makes codes: an empty one is known to everybody.
    #[test]
    fn what_can_be_guessed_is_refused_and_not_shown() {
        let good = "a secret of the tests, thirty-two bytes or more";
        for keys in ["short", &format!("{good},"), &format!(",{good}"), &format!("{good},short")] {
            let good = good.replace(',', "");
            let keys = keys.replace("tests,", "tests");
            let (config, faults) = read(&[("MARQUEE_RANK_KEYS", &keys)]);
            assert_eq!(faults.len(), 1, "{keys}");
            assert!(
                faults[0].contains("MARQUEE_RANK_KEYS") && !faults[0].contains(&good),
                "{faults:?}"
            );
            assert_eq!(config.rank.keys[0].0, "of the file");
        }
        let (config, faults) = read(&[("MARQUEE_HTTP_TOKEN", "hunter2")]);
        assert!(faults[0].contains("http.token") && !faults[0].contains("hunter2"), "{faults:?}");
        assert_eq!(config.http.token.0, "");
        let (_, faults) = read(&[("MARQUEE_RANK_TOKEN", "sixteen letters or möre")]);
        assert_eq!(faults.len(), 1, "a header has no such letters");
    }
}
