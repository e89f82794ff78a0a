//! Reads `[lake]`: where it is, and how it is written.

use super::super::walk::Section;
use super::super::{Lake, LakePlace, S3Place};
use super::{DAY_MS, HOUR_MS, SECOND_MS};
use std::path::Path;

const URL: &str = "s3:// with a bucket and maybe a folder in it, or file: with a folder, or none";

pub(super) fn section(section: &Section<'_>, base_dir: &Path) -> Lake {
    let default = Lake::default();
    let url = |text: &str| match text {
        "" => Some(None),
        _ => place(text, base_dir).map(Some),
    };
    let place = section.parsed("url", URL, "\"s3://my-bucket/marquee\"", url).flatten();
    // The keys of S3 are checked whatever the lake is.
    let s3 = s3(section);
    let place = place.map(|place| match place {
        LakePlace::S3(S3Place { bucket, prefix, .. }) => {
            LakePlace::S3(S3Place { bucket, prefix, ..s3 })
        }
        folder => folder,
    });
    Lake {
        place,
        file_span_ms: section.duration("file_span", default.file_span_ms, SECOND_MS..=DAY_MS),
        file_bytes: section.size("file_size", default.file_bytes, 1 << 20..=1 << 30),
        deltas_ms: section.duration("deltas", default.deltas_ms, 0..=DAY_MS),
        letters: section.item("letters").and_then(|item| item.boolean(true)).unwrap_or(true),
        interval_ms: section.duration("interval", default.interval_ms, 100..=HOUR_MS),
        examples: section.item("examples").and_then(|item| item.boolean(true)).unwrap_or_default(),
        negatives_ppm: section.share("negatives", default.negatives_ppm),
        examples_interval_ms: section.duration(
            "examples_interval",
            default.examples_interval_ms,
            100..=DAY_MS,
        ),
        corrections_ms: section.duration("corrections", default.corrections_ms, 0..=31 * DAY_MS),
        events: section.item("events").and_then(|item| item.boolean(true)).unwrap_or_default(),
        events_interval_ms: section.duration(
            "events_interval",
            default.events_interval_ms,
            SECOND_MS..=HOUR_MS,
        ),
    }
}

fn place(text: &str, base_dir: &Path) -> Option<LakePlace> {
    if let Some(rest) = text.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix).to_owned();
        let fits = is_bucket(bucket) && (prefix.is_empty() || prefix.split('/').all(is_folder));
        let bucket = bucket.to_owned();
        return fits.then(|| LakePlace::S3(S3Place { bucket, prefix, ..S3Place::default() }));
    }
    let folder = text.strip_prefix("file:")?;
    // Two slashes are followed by the name of a machine, which is empty here.
    let folder = match folder.strip_prefix("//") {
        Some(folder) => Some(folder).filter(|folder| folder.starts_with('/'))?,
        None => folder,
    };
    let fits = !folder.is_empty() && !folder.contains('\0');
    fits.then(|| LakePlace::Folder(base_dir.join(folder)))
}

/// The rule of S3, which other stores keep too.
fn is_bucket(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    (3..=63).contains(&name.len()) && name.bytes().all(fits)
}

/// Letters that no store and no shell takes for something else.
fn is_folder(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'=');
    !matches!(name, "" | "." | "..") && name.bytes().all(fits)
}

fn s3(section: &Section<'_>) -> S3Place {
    let text = |key, expected, example| {
        let any =
            |text: &str| (text.len() <= 1000 && !text.contains('\0')).then(|| text.to_owned());
        section.parsed(key, expected, example, any).unwrap_or_default()
    };
    let endpoint = |text: &str| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_server = rest.is_some_and(|rest| !rest.trim_end_matches('/').is_empty());
        (text.is_empty() || is_server).then(|| text.to_owned())
    };
    let expected = "https:// or http:// and a server, or none for that of Amazon";
    let example = "\"https://s3.example.com\"";
    S3Place {
        endpoint: section.parsed("endpoint", expected, example, endpoint).unwrap_or_default(),
        region: text("region", "the name of a region, or none", "\"eu-west-1\""),
        allow_http: section
            .item("allow_http")
            .and_then(|item| item.boolean(true))
            .unwrap_or_default(),
        access_key_id: text("access_key_id", "the id of a key, or none", "\"AKIA...\""),
        secret_access_key: text("secret_access_key", "its secret, or none", "\"...\""),
        ..S3Place::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        place(text, Path::new("/etc/marquee")).map(|place| place.to_string())
    }

    #[test]
    fn places() {
        for (text, is) in [
            ("s3://cells", "s3://cells"),
            ("s3://cells/", "s3://cells"),
            ("s3://cells/a/b=c/", "s3://cells/a/b=c"),
            ("file:///var/lake", "/var/lake"),
            ("file:data/lake", "/etc/marquee/data/lake"),
            ("file:/var/lake", "/var/lake"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(is), "{text}");
        }
        for bad in [
            "lake",
            "s3://",
            "s3://a",
            "s3://Cells",
            "s3://cells//a",
            "s3://cells/../a",
            "file:",
            "file://host/lake",
            "gs://cells",
            "s3://cells/a b",
        ] {
            assert_eq!(shown(bad), None, "{bad}");
        }
    }
}
