//! The program.

use std::process::ExitCode;

use adit::proto::limits::turn;

fn main() -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(turn::SOCKETS_EVERY).build();
    match runtime {
        Ok(runtime) => runtime.block_on(adit::cli::main()),
        Err(error) => {
            eprintln!("adit: cannot start: {error}");
            ExitCode::from(71)
        }
    }
}
