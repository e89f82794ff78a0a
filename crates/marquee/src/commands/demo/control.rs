//! What the processor tells the supervisor: one JSON object a line.

use marquee_model::Kind;
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "demo", rename_all = "lowercase")]
pub(super) enum Told {
    /// It takes connections.
    Ready,
    /// Something happens in the world: a video is looked for.
    Event {
        /// Its id.
        video: String,
    },
    /// The simulated members' events of a kind stop, or start.
    Source {
        kind: Source,
        /// Whether they stop.
        stopped: bool,
    },
    /// It is about to kill itself, since somebody asked for it.
    Crash,
}

/// [`Kind`], as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    Impressions,
    Plays,
}

impl From<Kind> for Source {
    fn from(kind: Kind) -> Source {
        match kind {
            Kind::Impression => Source::Impressions,
            Kind::Play => Source::Plays,
        }
    }
}

impl From<Source> for Kind {
    fn from(source: Source) -> Kind {
        match source {
            Source::Impressions => Kind::Impression,
            Source::Plays => Kind::Play,
        }
    }
}

impl Told {
    /// With its line feed.
    pub(super) fn line(&self) -> String {
        serde_json::to_string(self).expect("it is texts and flags") + "\n"
    }

    pub(super) fn read(line: &str) -> Result<Told, serde_json::Error> {
        serde_json::from_str(line)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;

    #[track_caller]
    fn check(told: &Told, expected: &str) {
        assert_eq!(told.line(), format!("{expected}\n"));
        assert_eq!(&Told::read(expected).unwrap(), told);
    }

    #[test]
    fn lines_are_these() {
        check(&Told::Ready, r#"{"demo":"ready"}"#);
        let video = "a-quiet-orchard".to_owned();
        check(&Told::Event { video }, r#"{"demo":"event","video":"a-quiet-orchard"}"#);
        let plays = Told::Source { kind: Kind::Play.into(), stopped: true };
        check(&plays, r#"{"demo":"source","kind":"plays","stopped":true}"#);
        let impressions = Told::Source { kind: Kind::Impression.into(), stopped: false };
        check(&impressions, r#"{"demo":"source","kind":"impressions","stopped":false}"#);
        check(&Told::Crash, r#"{"demo":"crash"}"#);
    }

    #[test]
    fn a_text_from_outside_stays_one_line() {
        let video = "a\n{\"demo\":\"crash\"}\n\u{2028}\"\\".to_owned();
        let told = Told::Event { video };
        let line = told.line();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(Told::read(line.trim_end()).unwrap(), told);
    }

    #[test]
    fn kinds_come_back_as_they_went() {
        for kind in [Kind::Impression, Kind::Play] {
            assert_eq!(Kind::from(Source::from(kind)), kind);
            let written = serde_json::to_value(Source::from(kind)).unwrap();
            assert_eq!(written, kind.plural());
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "",
            "{}",
            "null",
            "ready",
            r#"{"demo":"explode"}"#,
            r#"{"demo":"event"}"#,
            r#"{"demo":"source","kind":"visits","stopped":true}"#,
            r#"{"demo":"source","kind":"plays","stopped":"yes"}"#,
        ] {
            assert!(Told::read(line).is_err(), "{line}");
        }
    }
}
