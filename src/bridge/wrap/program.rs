//! Whether a library can be loaded into a program.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::WrapError;
use super::elf::Elf;

/// Scripts whose interpreter is a script; the kernel follows as many.
const SCRIPTS: usize = 4;
/// Bytes of a script's first line that count, as for the kernel.
const FIRST_LINE: usize = 256;

/// The file that a command names, looked for in PATH as the system does.
pub(super) fn find(name: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name)).filter(runs);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(runs)
}

/// Whether `library` gets into the program at `path`, or into the interpreter of a script.
pub(super) fn check(path: &Path, library: &Path) -> Result<(), WrapError> {
    let failed = |path: &Path, error| WrapError::Io(path.display().to_string(), error);
    let mut path = path.to_owned();
    for _ in 0..SCRIPTS {
        if let Some(what) = privileges(&path).map_err(|error| failed(&path, error))? {
            return Err(WrapError::Privileged(path.display().to_string(), what));
        }
        match interpreter(&path).map_err(|error| failed(&path, error))? {
            Some(next) => path = next,
            None => return elf(&path, library),
        }
    }
    Err(WrapError::NoProgram(path.display().to_string()))
}

/// What lets the loader leave the library out.
fn privileges(path: &Path) -> io::Result<Option<&'static str>> {
    let found = fs::metadata(path)?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Ok(if found.mode() & 0o4000 != 0 && found.uid() != user {
        Some("setuid")
    } else if found.mode() & 0o2010 == 0o2010 && found.gid() != group {
        Some("setgid")
    } else if user != 0 && rustix::fs::getxattr(path, "security.capability", &mut [0; 64]).is_ok() {
        Some("file capabilities")
    } else {
        None
    })
}

/// What a script's first line names; of `env` what that would start.
fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut head = Vec::new();
    File::open(path)?.take(FIRST_LINE as u64).read_to_end(&mut head)?;
    let Some(line) = head.strip_prefix(b"#!") else { return Ok(None) };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words =
        line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes);
    let Some(program) = words.next() else { return Ok(None) };
    let program = PathBuf::from(program);
    if program.file_name() == Some(OsStr::new("env")) {
        let started =
            words.find(|word| !word.as_bytes().starts_with(b"-") && !word.as_bytes().contains(&b'='));
        return Ok(started.and_then(find).or(Some(program)));
    }
    Ok(Some(program))
}

fn elf(path: &Path, library: &Path) -> Result<(), WrapError> {
    let shown = |path: &Path| path.display().to_string();
    let read = |path: &Path| fs::read(path).map_err(|error| WrapError::Io(shown(path), error));
    let ours = read(library)?;
    let machine = Elf::read(&ours).ok_or_else(|| WrapError::NoProgram(shown(library)))?.machine;
    let program = Elf::read(&read(path)?).ok_or_else(|| WrapError::NoProgram(shown(path)))?;
    let foreign = |is: String, ours: String| WrapError::Foreign {
        program: shown(path),
        is,
        library: shown(library),
        ours,
    };
    if program.machine != machine {
        return Err(foreign(program.machine.to_string(), machine.to_string()));
    }
    let interpreter = program.interpreter.ok_or_else(|| WrapError::Static(shown(path)))?;
    // A library names the C library that it needs.
    let glibc = memchr::memmem::find(&ours, b"libc.so.6").is_some();
    if glibc == interpreter.contains("ld-musl") {
        let name = |glibc| if glibc { "glibc" } else { "musl" }.to_owned();
        return Err(foreign(name(!glibc), name(glibc)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(dir: &Path, name: &str, first: &str, mode: u32) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("{first}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_script_is_judged_by_its_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        // Anything that is loaded dynamically will do for the library.
        let library = std::env::current_exe().unwrap();
        for first in ["#!/bin/sh", "#! /usr/bin/env -S FOO=1 sh -e", "#!/usr/bin/env sh"] {
            check(&script(dir.path(), "a", first, 0o755), &library).unwrap();
        }
        let one = script(dir.path(), "one", "#!/bin/sh", 0o755);
        check(&script(dir.path(), "two", &format!("#!{}", one.display()), 0o755), &library).unwrap();
        let text = check(&script(dir.path(), "b", "just text", 0o755), &library).unwrap_err().to_string();
        assert!(text.contains("is not a program for Linux"), "{text}");
        let own = script(dir.path(), "itself", &format!("#!{}", dir.path().join("itself").display()), 0o755);
        assert!(matches!(check(&own, &library), Err(WrapError::NoProgram(_))));
    }

    #[test]
    fn only_what_may_be_run_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = script(dir.path(), "a", "#!/bin/sh", 0o644);
        assert_eq!(find(path.as_os_str()), None);
        assert!(find(OsStr::new("sh")).is_some() && find(OsStr::new("no-such-program")).is_none());
    }
}
