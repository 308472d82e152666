//! A sidecar that lets secrets out in every way there is, and the search for what got through.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use loopwright_proto::v1::{
    CallToolRequest, CallToolResponse, EffectClass, NotExecuted, Part, ToolProgress, ToolResult,
    ToolSpec, call_tool_response::Kind, part,
};
use loopwright_tests::sidecar::{self, Answers, Plain};
use tonic::{Request, Status};

/// A secret that a kind knows. Put together here, so that no scanner takes this file for a leak.
pub(super) fn token() -> String {
    format!("ghp_{}", "a1B2c3".repeat(6))
}

/// Whether these bytes hold the text.
pub(super) fn have(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|at| at == text.as_bytes())
}

/// The files below a folder that hold the text.
pub(super) fn files_with(dir: &Path, text: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() && have(&fs::read(&path)?, text) {
                found.push(path.display().to_string());
            }
        }
    }
    Ok(found)
}

/// The sidecar: `read` gives a secret back, `refuse` and `fail` name one in their words, `write`
/// does as it is told, and `quote` refuses, saying what it was given. Keeps the arguments that it gets.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaky(Arc<Mutex<Vec<String>>>);

impl Leaky {
    /// Serves it until the runtime ends: itself, and its endpoint.
    pub(super) async fn serve() -> Result<(Self, String)> {
        let leaky = Self::default();
        let endpoint = sidecar::serve(leaky.clone()).await?;
        Ok((leaky, endpoint))
    }

    /// The arguments that came.
    pub(super) fn came(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[tonic::async_trait]
impl Plain for Leaky {
    fn tools(&self) -> Vec<ToolSpec> {
        let spec = |name: &str| ToolSpec {
            name: name.to_owned(),
            description: format!("Does {name}."),
            input_schema_json: r#"{"type":"object","properties":{"content":{"type":"string"}}}"#
                .to_owned(),
            effect_class: EffectClass::AtMostOnce.into(),
            ..ToolSpec::default()
        };
        ["read", "refuse", "fail", "write", "quote"]
            .map(spec)
            .to_vec()
    }

    async fn call(&self, request: Request<CallToolRequest>) -> Result<Answers, Status> {
        let request = request.into_inner();
        let arguments = request.arguments_json;
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(arguments.clone());
        let said = match request.tool.as_str() {
            "read" => vec![progress(&format!("found {}", token())), result(&token())],
            "refuse" => vec![refusal(&format!(
                "{}no, not with {}",
                " ".repeat(1_010),
                token()
            ))],
            "fail" => {
                return Err(Status::internal(format!("{}{}", "x ".repeat(240), token())));
            }
            "quote" => vec![refusal(&format!("cannot write {arguments}"))],
            _ => vec![Kind::Result(ToolResult::default())],
        };
        let said = said
            .into_iter()
            .map(|kind| Ok(CallToolResponse { kind: Some(kind) }));
        Ok(stream::iter(said.collect::<Vec<_>>()).boxed())
    }

    fn no_lookup(&self) -> Status {
        Status::unimplemented(format!("no looking up of {}", token()))
    }
}

fn progress(message: &str) -> Kind {
    Kind::Progress(ToolProgress {
        fraction: None,
        message: message.to_owned(),
    })
}

fn refusal(reason: &str) -> Kind {
    Kind::NotExecuted(NotExecuted {
        reason: reason.to_owned(),
        ..NotExecuted::default()
    })
}

/// Split over two parts, escaped in JSON, and where the text is cut for being too long.
fn result(secret: &str) -> Kind {
    let text = |text: String| Part {
        kind: Some(part::Kind::Text(text)),
        ..Part::default()
    };
    let (head, tail) = secret.split_at(20);
    let long = format!("{}{secret}{}", "x".repeat(19_990), "y".repeat(20_000));
    Kind::Result(ToolResult {
        parts: vec![
            text(format!("it is {head}")),
            text(format!("{tail} there")),
            text(long),
        ],
        structured_json: format!("{{\"it\":\"\\u0067{}\"}}", &secret[1..]),
        ..ToolResult::default()
    })
}
