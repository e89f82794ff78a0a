//! One entry for every chore: test, tidy, bench.
fn main() {}
