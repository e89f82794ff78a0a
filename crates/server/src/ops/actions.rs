//! What operators change. Nothing of it can change a count: annotations are marks on charts, and the
//! demo's buttons change its invented world, or kill the process.

use super::annotations::{NOTE_CHARACTERS, What};
use crate::Demo;
use crate::app::App;
use crate::problem::Problem;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use marquee_model::Kind;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

type Answer = Result<(StatusCode, Json<Value>), Problem>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    text: String,
}

/// A body of JSON, whatever its content type says.
fn read<T: DeserializeOwned>(body: &str, example: &str) -> Result<T, Problem> {
    serde_json::from_str(body).map_err(|error| {
        let detail = format!("The body cannot be read: {error}. Send {example}.");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })
}

fn done(said: &str) -> Answer {
    Ok((StatusCode::ACCEPTED, Json(json!({ "said": said }))))
}

pub(super) async fn annotate(State(app): State<Arc<App>>, body: String) -> Answer {
    let note: Note = read(&body, "{\"text\": \"canary 2.1 at 10 %\"}")?;
    let text = note.text.trim();
    if text.is_empty() || text.chars().count() > NOTE_CHARACTERS {
        let detail = format!("A note has 1 to {NOTE_CHARACTERS} characters.");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    }
    app.ops.annotations.add(What::Note, text, (app.clock)());
    done("Noted.")
}

fn demo(app: &App) -> Result<&Arc<dyn Demo>, Problem> {
    app.demo.as_ref().ok_or_else(|| {
        let detail =
            "This is no demo, so there is nothing to press. `marquee demo` has these buttons.";
        Problem::new(StatusCode::NOT_FOUND, detail)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    video: String,
}

/// Something happens in the world, and a video is what everybody wants to see.
pub(super) async fn event(State(app): State<Arc<App>>, body: String) -> Answer {
    let demo = demo(&app)?;
    let event: Event = read(&body, "{\"video\": \"ID\"}")?;
    let Some(title) = crate::member::catalogue::title_of(&event.video) else {
        let detail = format!("The catalogue has no title {:?}.", event.video);
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    };
    demo.event(&title.id);
    let text = format!("{} is in the news", title.name);
    app.ops.annotations.add(What::Note, &text, (app.clock)());
    done(&format!("{text}: for two minutes it is shown and chosen more often."))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    /// `impressions` or `plays`.
    kind: String,
    stopped: bool,
}

pub(super) async fn source(State(app): State<Arc<App>>, body: String) -> Answer {
    let demo = demo(&app)?;
    let example = "{\"kind\": \"plays\", \"stopped\": true}";
    let Source { kind, stopped } = read(&body, example)?;
    let kinds = [Kind::Impression, Kind::Play];
    let Some(kind) = kinds.into_iter().find(|known| known.plural() == kind) else {
        let detail = format!("There is no source {kind:?}; there are impressions and plays.");
        return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
    };
    demo.source(kind, stopped);
    let verb = if stopped { "stopped" } else { "started again" };
    let text = format!("the simulated members' {} are {verb}", kind.plural());
    app.ops.annotations.add(What::Note, &text, (app.clock)());
    done(&format!("{}{}.", text[..1].to_uppercase(), &text[1..]))
}

/// So long a process lives after it was told to die: browsers ask again where a connection breaks
/// without an answer, and would kill the next one, too.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// The answer comes before the end.
pub(super) async fn crash(State(app): State<Arc<App>>) -> Answer {
    let demo = demo(&app)?.clone();
    app.ops.annotations.add(
        What::Crash,
        "the process was killed (the crash button)",
        (app.clock)(),
    );
    tokio::spawn(async move {
        tokio::time::sleep(LAST_WORDS).await;
        demo.crash();
    });
    done("The process is being killed.")
}
