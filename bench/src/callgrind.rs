//! What callgrind counts, as far as it is needed here: for each function the instructions at each
//! address, and for each call from where, to whom, and how many instructions were spent in it.
//!
//! Format: <https://valgrind.org/docs/manual/cl-format.html>, written without compression of names
//! and positions (see [`FLAGS`]).

use anyhow::{Context, Result};
use std::collections::HashMap;

/// How valgrind must be called for a file that [`Profile::parse`] reads.
pub(crate) const FLAGS: [&str; 5] = [
    "--tool=callgrind",
    "--dump-instr=yes",
    "--compress-strings=no",
    "--compress-pos=no",
    // Tables of the store and of librdkafka are made by other threads; all count.
    "--separate-threads=no",
];

/// A function of an object file.
#[derive(Debug, Default)]
pub(crate) struct Function {
    pub(crate) object: String,
    /// Instructions by address.
    pub(crate) own: Vec<(u64, u64)>,
    pub(crate) calls: Vec<Call>,
}

/// Calls from one address.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) from: u64,
    /// Place of the function that is called.
    pub(crate) to: usize,
    /// Instructions that were spent in it, and in what it called.
    pub(crate) instructions: u64,
}

/// All functions.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    pub(crate) functions: Vec<Function>,
    places: HashMap<(String, String), usize>,
}

impl Profile {
    /// Reads a file of callgrind.
    pub(crate) fn parse(text: &str) -> Result<Profile> {
        let mut profile = Profile::default();
        let (mut object, mut current) = (String::new(), None);
        let (mut called_object, mut called, mut is_call) = (None, None, false);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("ob=") {
                name.clone_into(&mut object);
            } else if let Some(name) = line.strip_prefix("fn=") {
                current = Some(profile.place(&object, name));
            } else if let Some(name) = line.strip_prefix("cob=") {
                called_object = Some(name.to_owned());
            } else if let Some(name) = line.strip_prefix("cfn=") {
                let of = called_object.take().unwrap_or_else(|| object.clone());
                called = Some(profile.place(&of, name));
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if line.starts_with("0x") {
                let (address, instructions) = cost(line).context("a line of costs has numbers")?;
                let place = current.context("costs belong to a function")?;
                let function = &mut profile.functions[place];
                if std::mem::take(&mut is_call) {
                    let to = called.take().context("a call has somebody who is called")?;
                    function.calls.push(Call { from: address, to, instructions });
                } else {
                    function.own.push((address, instructions));
                }
            }
        }
        Ok(profile)
    }

    fn place(&mut self, object: &str, name: &str) -> usize {
        let key = (object.to_owned(), name.to_owned());
        *self.places.entry(key).or_insert_with(|| {
            self.functions.push(Function { object: object.to_owned(), ..Function::default() });
            self.functions.len() - 1
        })
    }
}

/// `0xADDRESS LINE INSTRUCTIONS`
fn cost(line: &str) -> Option<(u64, u64)> {
    let mut numbers = line.split_whitespace();
    let address = u64::from_str_radix(numbers.next()?.strip_prefix("0x")?, 16).ok()?;
    // No third number: the last event counter is 0.
    let instructions = numbers.nth(1).map_or(Some(0), |number| number.parse().ok())?;
    Some((address, instructions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_and_calls_are_told_apart() {
        let text = "version: 1\npositions: instr line\nevents: Ir\n\nob=/bin/a\nfl=x.rs\nfn=main\n\
                    0x10 1 5\nfi=y.rs\n0x14 2 7\ncob=/lib/c\ncfi=c.c\ncfn=memcpy\ncalls=2 0x90\n\
                    0x18 3 40\n0x1c 4 1\n\nob=/lib/c\nfl=c.c\nfn=memcpy\n0x90 9 40\n";
        let profile = Profile::parse(text).expect("it is well formed");
        let [main, memcpy] = profile.functions.as_slice() else { panic!("two functions") };
        assert_eq!(main.object, "/bin/a");
        assert_eq!(main.own, [(0x10, 5), (0x14, 7), (0x1c, 1)]);
        let Call { from, to, instructions } = main.calls[0];
        assert_eq!((from, to, instructions), (0x18, 1, 40));
        assert_eq!((memcpy.object.as_str(), &*memcpy.own), ("/lib/c", &[(0x90, 40)][..]));
    }
}
