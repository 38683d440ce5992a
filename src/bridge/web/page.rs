//! Pages that come with the program, so that a browser needs nothing else: they stand at the root of the files.

use std::str::FromStr;

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// A desktop; the files of noVNC have to be served beside it.
    NoVnc,
    /// A terminal for services that speak lines, or telnet.
    Terminal,
}

impl Page {
    pub(super) fn html(self) -> &'static str {
        match self {
            Self::NoVnc => include_str!("pages/novnc.html"),
            Self::Terminal => include_str!("pages/terminal.html"),
        }
    }
}

impl FromStr for Page {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "novnc" => Ok(Self::NoVnc),
            "terminal" => Ok(Self::Terminal),
            _ => Err("there are the pages novnc and terminal"),
        }
    }
}
