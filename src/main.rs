//! The program.

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    adit::cli::main().await
}
