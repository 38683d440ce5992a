//! docs/writing-a-client.md: each of its steps is run as it stands there.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

const TEXT: &str = include_str!("../../docs/writing-a-client.md");
const ADIT: &str = env!("CARGO_BIN_EXE_adit");

/// The text of each step, the first one at 0.
fn steps() -> Vec<&'static str> {
    let steps: Vec<_> =
        TEXT.split("\n## ").filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).collect();
    assert_eq!(steps.len(), 12);
    steps
}

fn blocks(text: &'static str, language: &str) -> impl Iterator<Item = &'static str> {
    let begin = format!("```{language}\n");
    let parts: Vec<_> = text.split(begin.as_str()).skip(1).collect();
    parts.into_iter().map(|part| part.split("```").next().unwrap())
}

/// The client as it is after that many steps: a function that is there already is replaced, as Python has it anyhow.
fn client(steps: &[&'static str]) -> String {
    let code: String =
        steps.iter().flat_map(|step| blocks(step, "py")).map(|block| format!("{block}\n\n")).collect();
    format!("{code}asyncio.run(main())\n")
}

/// What the text says of the command line, with the programs of the tests: how it ended, and what it told.
async fn kit(file: &Path, command: &str) -> (Option<i32>, String) {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/websockets-python");
    assert!(python.exists(), "websockets is not installed; run `make setup`");
    let line = command
        .replace("adit conform", &format!("{ADIT} conform"))
        .replace(".venv/bin/python", python.to_str().unwrap())
        .replace("client.py", file.to_str().unwrap());
    let mut shell = Command::new("sh");
    shell.args(["-c", &line]).stdin(Stdio::null()).kill_on_drop(true);
    let output = shell.output().await.unwrap();
    let told =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    (output.status.code(), format!("{line}\n{told}"))
}

#[tokio::test]
async fn an_empty_file_is_no_client() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("client.py");
    std::fs::write(&file, "").unwrap();
    let (code, told) =
        kit(&file, "adit conform client -- .venv/bin/python client.py {relay} {key} {port}").await;
    assert_eq!(code, Some(69), "{told}");
}

/// Each case that a step names passes from there on, advised ones included, and at the end all do.
#[tokio::test]
async fn each_step_passes_what_it_says() {
    let (home, steps) = (tempfile::tempdir().unwrap(), steps());
    let mut shown = HashMap::new();
    for (at, step) in steps.iter().enumerate() {
        for command in blocks(step, "sh")
            .filter(|block| block.starts_with("adit conform client ") && !block.contains("--list"))
        {
            let file = home.path().join(format!("client{}.py", at + 1));
            std::fs::write(&file, client(&steps[..=at])).unwrap();
            let (code, told) = kit(&file, command.trim()).await;
            assert_eq!(code, Some(0), "step {}: {told}", at + 1);
            assert!(!told.contains("\nwarn ") || at + 1 == steps.len(), "step {}: {told}", at + 1);
            shown.insert(at + 1, command);
        }
    }
    assert!(shown.len() >= 8 && shown.contains_key(&12), "{shown:?}");
}
