//! `adit top` in a real terminal, tmux, as an operator uses it.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;

use crate::program::{RELAY, Running, adit, keys, run};
use crate::rig::{ALICE, PATIENCE, Rig, echo_target, soon};

/// A terminal in which a command runs; the tmux server ends with it.
struct Terminal {
    home: TempDir,
}

impl Terminal {
    /// `adit` with these arguments, and a password for the dashboard. When it ends its exit code is shown.
    async fn start(password: &str, arguments: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let command = format!(
            "ADIT_ADMIN_PASSWORD={password} {} {arguments}; echo \"code $?\"; read rest",
            env!("CARGO_BIN_EXE_adit")
        );
        let terminal = Self { home };
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "24", &command]).await;
        terminal
    }

    fn at(home: &Path) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(home.join("tmux")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", home).env("LANG", "C.UTF-8").env("SHELL", "/bin/sh").stdin(Stdio::null());
        command
    }

    async fn tmux(&self, arguments: &[&str]) -> String {
        let done =
            soon(Self::at(self.home.path()).args(arguments).output()).await.expect("is tmux installed?");
        assert!(done.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    async fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat()).await;
    }

    /// Waits until all of these are on the screen.
    async fn shows(&self, texts: &[&str]) -> String {
        let mut screen = String::new();
        let shown = async {
            loop {
                screen = self.tmux(&["capture-pane", "-p"]).await;
                if texts.iter().all(|text| screen.contains(text)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let shown = tokio::time::timeout(PATIENCE, shown).await;
        assert!(shown.is_ok(), "{texts:?} are not all in\n{screen}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let mut command = Self::at(self.home.path());
        let _ = command.as_std_mut().arg("kill-server").stderr(Stdio::null()).status();
    }
}

#[tokio::test]
async fn an_operator_sees_clients_tunnels_and_events_and_acts_on_them() {
    let rig = Rig::start().await;
    let target = echo_target().await;
    let _web = rig.client(ALICE, "web", target).await;
    let _docs = rig.client(ALICE, "docs", target).await;
    let link = format!("http://{}/login?token={}", rig.admin, rig.link());
    let top = Terminal::start("", &format!("top '{link}'")).await;
    let screen = top.shows(&["2 alive", "1-2 of 2", "HEALTH↑", "docs", "web"]).await;
    assert!(screen.find("docs").unwrap() < screen.find("web").unwrap(), "{screen}");

    top.press(&["r"]).await;
    top.shows(&["HEALTH↓"]).await;
    top.press(&["/", "we"]).await;
    top.shows(&["search: we_", "1-1 of 1"]).await;
    top.press(&["Enter"]).await;
    top.shows(&["with \"we\""]).await;
    // Nothing is done by the first key.
    top.press(&["x"]).await;
    top.shows(&["Disconnect the client of web at 127.0.0.1?"]).await;
    top.press(&["y"]).await;
    top.shows(&["The client of web is disconnected."]).await;

    top.press(&["2"]).await;
    top.shows(&["REQUESTS↓", "docs  alice", "web   alice"]).await;
    top.press(&["s", "S", "f", "f", "f"]).await;
    top.shows(&["only suspended", "none"]).await;
    top.press(&["f"]).await;
    top.shows(&["1-2 of 2", "docs  alice"]).await;
    top.press(&["u"]).await;
    top.shows(&["Turn viewers away from"]).await;
    top.press(&["y"]).await;
    top.shows(&["1 suspended"]).await;

    top.press(&["3"]).await;
    top.shows(&["TIME (UTC)", "suspended", "disconnected"]).await;
    top.press(&["?"]).await;
    top.shows(&["turn viewers away from the selected tunnel"]).await;
    top.press(&["Enter", "q"]).await;
    top.shows(&["code 0"]).await;
}

#[tokio::test]
async fn it_outlives_a_restart_of_the_relay_and_logs_in_again() {
    let home = tempfile::tempdir().unwrap();
    let relay = |admin: &str| {
        let mut command = adit(home.path(), &[RELAY[0], RELAY[1], RELAY[2], "--admin-listen", admin]);
        command.env("ADIT_KEYS", keys()).env("ADIT_ADMIN_PASSWORD", "correct horse");
        Running::start(command)
    };
    let first = relay("127.0.0.1:0").await;
    let admin = first.admin.unwrap().to_string();
    let top = Terminal::start("", &format!("top {admin}")).await;
    top.shows(&["Password of the dashboard"]).await;
    top.press(&["wrong", "Enter"]).await;
    top.shows(&["not taken: give the password"]).await;
    top.press(&["correct horse", "Enter"]).await;
    top.shows(&["serving", "1 clients"]).await;
    first.signal("TERM");
    first.end().await;
    let screen = top.shows(&["trying again: nothing answers at", "old figures, see below"]).await;
    assert!(!screen.contains("serving"), "{screen}");
    let second = relay(&admin).await;
    top.shows(&["serving", "f filter"]).await;
    second.signal("TERM");
    top.press(&["C-c"]).await;
    top.shows(&["code 0"]).await;
    second.end().await;
}

#[tokio::test]
async fn what_cannot_work_is_told_before_the_screen_is_taken() {
    let home = tempfile::tempdir().unwrap();
    let (code, _, err) = run(&mut adit(home.path(), &["top"])).await;
    assert!(code == 2 && err.contains("terminal") && err.contains("adit status --admin"), "{code} {err}");
    let rig = Rig::start().await;
    let public = Terminal::start("", &format!("top {}", rig.address)).await;
    public.shows(&["is not the admin listener of a relay", "code 69"]).await;
    let used = Terminal::start("", &format!("top 'http://{}/login?token=used'", rig.admin)).await;
    used.shows(&["Log in", "it writes another"]).await;
}
