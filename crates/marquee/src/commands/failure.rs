//! Why a command did not do what it was asked, and its exit code.

use crate::config::Fault;

/// A command that failed.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is refused; nothing was started. Exit code 2.
    Config(Vec<Fault>),
    /// The command was used wrongly; nothing was started. Exit code 2.
    Usage(String),
    /// It ran and failed. Exit code 1.
    Failed(String),
    /// Another process of this program has failed with this exit code, and has said why.
    Said(u8),
}

impl Failure {
    /// From any error on the way.
    pub fn failed(error: impl std::fmt::Display) -> Self {
        Failure::Failed(error.to_string())
    }

    /// What to tell the user, a line each.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Failure::Config(faults) => {
                let mut lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
                lines.push(match faults.len() {
                    1 => "1 fault in the configuration; nothing was started".to_owned(),
                    n => format!("{n} faults in the configuration; nothing was started"),
                });
                lines
            }
            Failure::Usage(text) | Failure::Failed(text) => vec![format!("error: {text}")],
            Failure::Said(_) => Vec::new(),
        }
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Config(_) | Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
            Failure::Said(code) => *code,
        }
    }
}
