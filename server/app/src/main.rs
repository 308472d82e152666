//! The `loopwright` binary: reads the command line and runs one command.

use std::process::ExitCode;

use clap::Parser;
use loopwright_server::cli::Cli;

fn main() -> ExitCode {
    // Fails only where a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(Box::pin(cli.run()));
            // Work that hangs in a blocking call must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(
                std::io::stderr(),
                "error: the runtime cannot be started: {error}"
            );
            ExitCode::FAILURE
        }
    }
}
