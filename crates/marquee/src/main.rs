//! The binary: parses the command line and turns outcomes into exit codes.

use clap::Parser;
use marquee::commands::Cli;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.lines() {
                eprintln!("{line}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Logs go to standard error; `RUST_LOG` says which.
fn start_log(verbose: bool) {
    use tracing_subscriber::EnvFilter;
    let default = match verbose {
        true => "debug,fjall=info,lsm_tree=info,scylla=info",
        // The driver of Cassandra tells of each connection that fails; we say what that means.
        false => "info,fjall=warn,lsm_tree=warn,scylla=error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .init();
}
