//! What the demo plays on: a folder with files, a model, and the arguments of its processes.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use loopwright_client::{cli::Terminal, v1::StartLoopRequest};

use super::{Demo, Played, Process, agent, start};
use crate::cli::Where;

/// The folder's one file at the beginning.
const ORDERS: &str = "pencils 12 at 0.40\nnotebooks 3 at 2.50\nerasers 5 at 0.30\n";
/// The turns of the scripted model, where no other is configured.
const SCRIPT: &str = include_str!("script.yaml");
const SCRIPT_CRASH: &str = include_str!("script_crash.yaml");
/// What the demo's tools leave behind.
const LEFT_BEHIND: [&str; 2] = ["total.txt", "journal.txt"];
const MESSAGE: &str = "Read the file orders.txt, then compute the total price of all orders with \
                       the calculator, then write the total to the file total.txt.";
const MESSAGE_CRASH: &str =
    "Append the line \"shipped\" to the file journal.txt, then say that it is done.";

/// Everything that the demo's processes are started with.
pub(super) struct Stage {
    dir: PathBuf,
    files: PathBuf,
    log_dir: PathBuf,
    serve: Vec<String>,
    model: String,
    words: String,
    crash: bool,
}

impl Stage {
    pub(super) fn set(demo: &Demo, place: &Where) -> anyhow::Result<Self> {
        let (loaded, env) = place.load()?;
        let dir = match &demo.dir {
            Some(dir) => dir.clone(),
            None => std::env::temp_dir().join(format!("loopwright-demo-{}", std::process::id())),
        };
        let files = dir.join("files");
        std::fs::create_dir_all(&files)
            .with_context(|| format!("--dir: {} cannot be made", files.display()))?;
        std::fs::write(files.join("orders.txt"), ORDERS)?;
        for file in LEFT_BEHIND {
            // Of an earlier demo in this folder, whose effects would be taken for this one's.
            match std::fs::remove_file(files.join(file)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
        }
        let dir = dir.canonicalize()?;
        let log_dir = match loaded.provenance.contains_key("session_log.dir") {
            true => loaded.config.session_log.dir.clone(),
            false => dir.join("log"),
        };
        let mut stage = Self {
            files: dir.join("files"),
            log_dir,
            serve: vec!["serve".to_owned()],
            model: String::new(),
            words: String::new(),
            crash: demo.crash,
            dir,
        };
        if let Some(file) = &place.file {
            stage
                .serve
                .extend(["--config".to_owned(), file.display().to_string()]);
        }
        for (key, value) in &place.flags {
            stage.set_key(key, value);
        }
        stage.set_key("session_log.dir", &stage.log_dir.display().to_string());
        let chosen = crate::config::models::resolve(&loaded.config, &env, demo.model.as_deref());
        match (&demo.model, &demo.base_url, chosen) {
            (Some(model), Some(base_url), _) => stage.remote(model, base_url),
            (Some(_), None, Err(error)) => return Err(error.into()),
            (_, None, Ok(model)) => {
                stage.words = format!("{} ({})", model.id, model.provider.as_str());
                stage.model = model.alias;
            }
            (None, _, _) => stage.scripted()?,
        }
        Ok(stage)
    }

    fn set_key(&mut self, key: &str, value: &str) {
        self.serve
            .extend(["--set".to_owned(), format!("{key}={value}")]);
    }

    /// A model that was named on the command line together with where it is served.
    fn remote(&mut self, model: &str, base_url: &str) {
        let (provider, id) = match model.split_once('/') {
            Some((provider @ ("anthropic" | "openai"), id)) => (provider, id),
            Some(_) | None => ("openai", model),
        };
        self.set_key("models.demo.provider", provider);
        self.set_key("models.demo.id", id);
        self.set_key("models.demo.base_url", base_url);
        self.model = "demo".to_owned();
        self.words = format!("{id} ({provider} at {base_url})");
    }

    fn scripted(&mut self) -> anyhow::Result<()> {
        let script = self.dir.join("script.yaml");
        std::fs::write(&script, if self.crash { SCRIPT_CRASH } else { SCRIPT })?;
        self.set_key("models.demo.provider", "scripted");
        self.set_key("models.demo.script", &script.display().to_string());
        self.model = "demo".to_owned();
        self.words =
            "scripted, as no key is set (ANTHROPIC_API_KEY, OPENAI_API_KEY, or --model)".to_owned();
        Ok(())
    }

    pub(super) fn server(&self) -> anyhow::Result<Process> {
        self.server_again("http://127.0.0.1:0")
    }

    /// Starts the server on the address that it had.
    pub(super) fn server_again(&self, url: &str) -> anyhow::Result<Process> {
        let mut args = self.serve.clone();
        args.extend([
            "--listen".to_owned(),
            url.trim_start_matches("http://").to_owned(),
        ]);
        Process::serve(&args, &self.dir.join("server.log"))
    }

    pub(super) fn files(&self, url: &str) -> anyhow::Result<Process> {
        let root = self.files.display().to_string();
        let mut args = ["sidecar", "files", "--root", &root, "--server", url]
            .map(str::to_owned)
            .to_vec();
        if self.crash {
            // So that there is a middle of the call to kill the server in.
            args.extend(["--append-delay-ms", "1500"].map(str::to_owned));
        }
        Process::start(&args, &self.dir.join("files.log"))
    }

    pub(super) fn calc(&self, url: &str) -> anyhow::Result<Process> {
        let args = ["sidecar", "calc", "--server", url].map(str::to_owned);
        Process::start(&args, &self.dir.join("calc.log"))
    }

    pub(super) fn token(&self) -> Option<String> {
        std::env::var("LOOPWRIGHT_TOKEN")
            .ok()
            .filter(|token| !token.is_empty())
    }

    pub(super) fn model_words(&self) -> &str {
        &self.words
    }

    pub(super) fn message(&self) -> &str {
        if self.crash { MESSAGE_CRASH } else { MESSAGE }
    }

    pub(super) fn request(&self) -> StartLoopRequest {
        let tools: &[&str] = match self.crash {
            true => &["files__append_line"],
            false => &["files__read", "files__write", "calc__evaluate"],
        };
        start(agent(&self.model, tools), self.message())
    }

    /// Shows what is left behind, and checks what must hold.
    pub(super) fn epilogue(
        &self,
        played: &Played,
        terminal: &mut Terminal,
    ) -> anyhow::Result<ExitCode> {
        let log = self
            .log_dir
            .join("default/session")
            .join(&played.session)
            .join("log.jsonl");
        terminal.note("")?;
        let held = match &played.crashed {
            Some(before) => self.nothing_repeated(played, before, terminal)?,
            None => true,
        };
        for file in LEFT_BEHIND.map(|name| self.files.join(name)) {
            if let Ok(text) = std::fs::read_to_string(&file) {
                terminal.note(&format!("on disk   {}: {}", shown(&file), text.trim_end()))?;
            }
        }
        terminal.note(&format!("log       {}", shown(&log)))?;
        terminal.note(&format!(
            "look      jq -c '[.seq, (.events[] | keys[0])]' {}",
            shown(&log)
        ))?;
        let dir = shown(&self.log_dir);
        terminal.note(&format!(
            "go on     loopwright serve --dir {dir}   and there: loopwright log show {}",
            played.session
        ))?;
        Ok(if held {
            played.exit.into()
        } else {
            ExitCode::FAILURE
        })
    }

    /// After the crash: the call kept its id, and its effect is there once.
    fn nothing_repeated(
        &self,
        played: &Played,
        before: &[(String, u32)],
        terminal: &mut Terminal,
    ) -> anyhow::Result<bool> {
        let lines = std::fs::read_to_string(self.files.join("journal.txt"))?;
        let count = lines.lines().filter(|line| *line == "shipped").count();
        let ids = |calls: &[(String, u32)]| {
            calls
                .iter()
                .map(|(call, attempt)| format!("{call}/{attempt}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let after = &played.dispatched[before.len()..];
        terminal.note(&format!(
            "dispatched before the crash  {}   (call/attempt)",
            ids(before)
        ))?;
        terminal.note(&format!("dispatched after it          {}", ids(after)))?;
        let same = after
            .iter()
            .all(|(call, _)| before.iter().any(|(known, _)| known == call));
        terminal.note(&format!("effects of the call          {count}"))?;
        let held = same && count == 1;
        terminal.note(if held {
            "the same ids, and nothing repeated\n"
        } else {
            "FAILED\n"
        })?;
        Ok(held)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
