//! How long one evaluation takes. Run it by hand:
//! `cargo test --release -p marquee-expr speed -- --ignored --nocapture`.

use std::hint::black_box;
use std::time::Instant;

use super::*;

#[test]
#[ignore = "a measurement"]
fn speed() {
    let slots = full();
    for source in [
        r#"device != "console""#,
        "duration_s >= 60",
        r#"device != "console" && duration_s >= 60"#,
        r#"country in ["DE", "FR", "US"]"#,
        r#"country in ["DE", "FR", "IT", "ES", "GB", "BR", "MX", "JP", "US"]"#,
        r#"has(headers.trace) && headers.trace == "7""#,
        r#"device.startsWith("t")"#,
        "duration_s * 1000 + row > 7",
        r#"device.matches("^(tv|phone)$")"#,
        r#"device.matches("^t[a-z]+$")"#,
        r#"[1, 2, 3].exists(x, x == row)"#,
    ] {
        let predicate = environment().predicate(source).unwrap();
        let turns =
            if predicate.is_interpreted() || source.contains('+') { 20_000 } else { 5_000_000 };
        let start = Instant::now();
        for _ in 0..turns {
            black_box(black_box(&predicate).eval(black_box(&slots)).unwrap());
        }
        let each = start.elapsed().as_nanos() as f64 / f64::from(turns);
        println!("{each:9.1} ns  {source}");
    }
    let text = environment().text("country == null ? device : country").unwrap();
    let start = Instant::now();
    for _ in 0..5_000_000 {
        black_box(black_box(&text).eval(black_box(&slots)).unwrap());
    }
    println!("{:9.1} ns  {}", start.elapsed().as_nanos() as f64 / 5e6, text.source());
    let start = Instant::now();
    environment().predicate(r#"device != "console" && duration_s >= 60"#).unwrap();
    println!("{:9.1} us  to compile", start.elapsed().as_secs_f64() * 1e6);
}
