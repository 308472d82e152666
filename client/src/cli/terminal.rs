//! Where a command writes, and how it is interrupted.
//!
//! Boundary: the only module that asks what the process's streams are. Invariant: without a terminal there
//! are plain lines only; spinners never share a line with text.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;
use tokio::sync::mpsc;

use super::screen::Screen;
use super::spinner::Spinners;
use crate::render::{Piece, Style};

/// The spinner of the one thing that takes a while.
const WORK: &str = "";

/// Where a command writes, and how it is interrupted.
pub struct Terminal {
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    style: Style,
    spinners: Option<Spinners>,
    /// Whether what was written can be drawn over.
    draws: bool,
    interrupts: Interrupts,
    input: Box<dyn io::Read + Send>,
    /// Whether somebody can be asked.
    asks: bool,
}

/// Presses of Ctrl-C.
pub enum Interrupts {
    /// Of the process: caught from the first time that a command waits for one.
    Process(Option<tokio::signal::unix::Signal>),
    /// Of a test, or of a program that embeds the commands.
    Channel(mpsc::Receiver<()>),
}

impl Terminal {
    /// The process's own streams: colours and spinners where standard error is a terminal, `NO_COLOR` is
    /// not set and `TERM` is not `dumb`.
    #[must_use]
    pub fn stdio() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let capable = set("TERM").is_none_or(|term| term != "dumb");
        let live = io::stderr().is_terminal() && capable;
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            style: Style {
                color: live && set("NO_COLOR").is_none(),
                user_messages: false,
            },
            spinners: live.then(Spinners::new),
            draws: io::stdout().is_terminal() && capable,
            interrupts: Interrupts::Process(None),
            input: Box::new(io::stdin()),
            asks: io::stdin().is_terminal(),
        }
    }

    /// Plain streams, never a terminal.
    #[must_use]
    pub fn plain(
        out: impl Write + Send + 'static,
        err: impl Write + Send + 'static,
        interrupts: Interrupts,
    ) -> Self {
        Self {
            out: Box::new(out),
            err: Box::new(err),
            style: Style::default(),
            spinners: None,
            draws: false,
            interrupts,
            input: Box::new(io::empty()),
            asks: false,
        }
    }

    /// The same terminal with another standard input.
    #[must_use]
    pub fn with_input(mut self, input: impl io::Read + Send + 'static) -> Self {
        self.input = Box::new(input);
        self
    }

    /// The same terminal, with somebody at its standard input.
    #[must_use]
    pub fn with_somebody(mut self, input: impl io::Read + Send + 'static) -> Self {
        self.asks = true;
        self.with_input(input)
    }

    /// How text looks here.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    /// Lines that can be drawn over; `None` where standard output is no terminal.
    pub(super) fn screen(&self) -> Option<Screen> {
        self.draws.then(Screen::new)
    }

    /// A line of the command's answer.
    ///
    /// # Errors
    /// Those of standard output.
    pub fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// A line about how it went.
    ///
    /// # Errors
    /// Those of standard error.
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        let err = &mut self.err;
        suspended(self.spinners.as_ref(), || {
            writeln!(err, "{line}")?;
            err.flush()
        })
    }

    /// A value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), serde_json::Error> {
        serde_json::to_writer(&mut self.out, value)?;
        self.out.write_all(b"\n").map_err(serde_json::Error::io)?;
        self.out.flush().map_err(serde_json::Error::io)
    }

    /// What a view shows: the reply's words to standard output, lines to standard error.
    pub(crate) fn pieces(&mut self, pieces: Vec<Piece>) -> io::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => {
                    let out = &mut self.out;
                    suspended(self.spinners.as_ref(), || {
                        write!(out, "{text}")?;
                        out.flush()
                    })?;
                }
                Piece::Line(line) => self.note(&line)?,
                Piece::Started { call, line } => match &mut self.spinners {
                    Some(spinners) => spinners.start(&call, &line),
                    None => self.note(&line)?,
                },
                Piece::Progress { call, line } => {
                    if let Some(spinners) = &mut self.spinners {
                        spinners.progress(&call, &line);
                    }
                }
                Piece::Ended { call, line } => {
                    if let Some(spinners) = &mut self.spinners {
                        spinners.end(&call);
                    }
                    self.note(&line)?;
                }
            }
        }
        Ok(())
    }

    /// All of standard input as text, at most `limit` bytes.
    pub(crate) fn read_input(&mut self, limit: u64) -> io::Result<String> {
        use io::Read as _;
        let mut text = String::new();
        let read = (&mut self.input)
            .take(limit + 1)
            .read_to_string(&mut text)?;
        if read as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("standard input is longer than {limit} bytes"),
            ));
        }
        Ok(text)
    }

    /// Bytes of the command's answer, as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// Something that takes a while begins; shown where there is a terminal.
    pub(crate) fn begin(&mut self, what: &str) {
        if let Some(spinners) = &mut self.spinners {
            spinners.start(WORK, what);
        }
    }

    /// How far it is.
    pub(crate) fn progress(&mut self, words: &str) {
        if let Some(spinners) = &mut self.spinners {
            spinners.progress(WORK, words);
        }
    }

    /// It is over.
    pub(crate) fn end(&mut self) {
        if let Some(spinners) = &mut self.spinners {
            spinners.end(WORK);
        }
    }

    /// Whether somebody says yes; `None` where nobody can be asked.
    pub(crate) fn confirm(&mut self, question: &str) -> io::Result<Option<bool>> {
        use io::Read as _;
        if !self.asks {
            return Ok(None);
        }
        write!(self.err, "{question}")?;
        self.err.flush()?;
        let mut answer = String::new();
        // A byte at a time: what follows the answer is not this question's.
        let input = io::BufReader::with_capacity(1, &mut self.input);
        for byte in input.bytes().take(16) {
            match byte? {
                b'\n' => break,
                byte => answer.push(char::from(byte)),
            }
        }
        let answer = answer.trim().to_lowercase();
        Ok(Some(matches!(answer.as_str(), "y" | "yes")))
    }

    /// Standard input, to be read by somebody else; nothing is left of it here.
    pub(crate) fn take_input(&mut self) -> Box<dyn io::Read + Send> {
        std::mem::replace(&mut self.input, Box::new(io::empty()))
    }

    /// The next press of Ctrl-C. From the first call on, the process no longer ends by it.
    pub(crate) async fn interrupted(&mut self) {
        self.interrupts.next().await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(spinners) = &mut self.spinners {
            spinners.clear();
        }
    }
}

impl Interrupts {
    async fn next(&mut self) {
        let came = match self {
            Self::Process(signal) => {
                let kind = tokio::signal::unix::SignalKind::interrupt();
                if signal.is_none() {
                    *signal = tokio::signal::unix::signal(kind).ok();
                }
                match signal {
                    Some(signal) => signal.recv().await,
                    None => None,
                }
            }
            Self::Channel(presses) => presses.recv().await,
        };
        if came.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn suspended<T>(spinners: Option<&Spinners>, write: impl FnOnce() -> T) -> T {
    match spinners {
        Some(spinners) => spinners.suspended(write),
        None => write(),
    }
}
