//! The program.

#[tokio::main]
async fn main() -> std::process::ExitCode {
    adit::cli::main().await
}
