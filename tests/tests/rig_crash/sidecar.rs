//! Four tools, one of each effect class, that write down what they did.
//!
//! Boundary: serves SidecarService, and outlives the server under test. Invariant: one line for each
//! real effect, in the file before the answer leaves; a call goes on when its caller is gone, as an
//! effect that is under way does.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use loopwright_proto::v1::{
    AttachCallRequest, AttachCallResponse, CallToolRequest, CallToolResponse, DescribeRequest,
    DescribeResponse, EffectClass, LookupCallRequest, LookupCallResponse, NotExecuted, Part,
    ToolResult, ToolSpec, call_tool_response, part,
    sidecar_service_server::{SidecarService, SidecarServiceServer},
};
use loopwright_tests::rig::Chance;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status};

/// The name that it registers by.
pub(super) const NAME: &str = "rig";
/// Longest pause of a call before its effect, and again after it, milliseconds.
const LONGEST_PAUSE_MS: u64 = 25;
/// Longer than any run.
const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);
/// The tools, by name.
pub(super) const TOOLS: [(&str, EffectClass); 4] = [
    ("look", EffectClass::ReadOnly),
    ("set", EffectClass::Idempotent),
    ("charge", EffectClass::Deduplicated),
    ("send", EffectClass::AtMostOnce),
];

/// One effect, as its line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Effect {
    /// `namespace/session/call`.
    pub(super) key: String,
    /// The tool's own name.
    pub(super) tool: String,
    /// The attempt that had it.
    pub(super) attempt: u32,
    /// The epoch of the driver that called.
    pub(super) epoch: u64,
}

/// The sidecar.
#[derive(Clone)]
pub(super) struct Tools(Arc<Shared>);

struct Shared {
    path: PathBuf,
    done: Mutex<Done>,
    chance: Mutex<Chance>,
    /// Told at every effect.
    had_effect: Arc<Notify>,
}

struct Done {
    file: File,
    /// What `charge` remembers, by key.
    kept: BTreeMap<String, Kept>,
}

struct Kept {
    arguments_sha256: String,
    epoch: u64,
    result: String,
}

impl Tools {
    /// Tools that write to `path` and tell `had_effect`.
    pub(super) fn new(path: &Path, chance: Chance, had_effect: Arc<Notify>) -> Result<Self> {
        let file = File::create(path)?;
        let kept = BTreeMap::new();
        Ok(Self(Arc::new(Shared {
            path: path.to_owned(),
            done: Mutex::new(Done { file, kept }),
            chance: Mutex::new(chance),
            had_effect,
        })))
    }

    /// Serves them; answers where.
    pub(super) async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let routes = tonic::transport::Server::builder()
            .add_service(SidecarServiceServer::new(self.clone()));
        tokio::spawn(routes.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(url)
    }

    /// Every effect so far, as the file has it.
    pub(super) fn effects(&self) -> Result<Vec<Effect>> {
        let text = std::fs::read_to_string(&self.0.path)?;
        let effect = |line: &str| {
            let mut words = line.split(' ').map(str::to_owned);
            Some(Effect {
                key: words.next()?,
                tool: words.next()?,
                attempt: words.next()?.parse().ok()?,
                epoch: words.next()?.parse().ok()?,
            })
        };
        text.lines()
            .map(|line| effect(line).with_context(|| format!("`{line}` is no effect")))
            .collect()
    }

    async fn run(&self, request: &CallToolRequest) -> call_tool_response::Kind {
        self.pause().await;
        let done = self.act(request);
        self.pause().await;
        match done {
            Ok(text) => call_tool_response::Kind::Result(ToolResult {
                parts: vec![Part {
                    kind: Some(part::Kind::Text(text)),
                    ..Part::default()
                }],
                ..ToolResult::default()
            }),
            Err(reason) => call_tool_response::Kind::NotExecuted(NotExecuted {
                reason,
                ..NotExecuted::default()
            }),
        }
    }

    /// Has the effect, unless `charge` knows the key already.
    fn act(&self, request: &CallToolRequest) -> Result<String, String> {
        let mut done = locked(&self.0.done);
        if request.tool == "charge"
            && let Some(kept) = done.kept.get_mut(&request.key)
        {
            if kept.arguments_sha256 != request.arguments_sha256 {
                return Err(format!("{} came with other arguments", request.key));
            }
            if request.epoch < kept.epoch {
                return Err(format!("{} is called by a newer driver", request.key));
            }
            kept.epoch = request.epoch;
            return Ok(kept.result.clone());
        }
        let CallToolRequest {
            key,
            tool,
            attempt,
            epoch,
            ..
        } = request;
        let line = format!("{key} {tool} {attempt} {epoch}\n");
        done.file
            .write_all(line.as_bytes())
            .map_err(|error| error.to_string())?;
        let result = format!("did {tool} for {key}");
        let kept = Kept {
            arguments_sha256: request.arguments_sha256.clone(),
            epoch: *epoch,
            result: result.clone(),
        };
        done.kept.insert(key.clone(), kept);
        drop(done);
        self.0.had_effect.notify_waiters();
        Ok(result)
    }

    async fn pause(&self) {
        let pause = locked(&self.0.chance).below(LONGEST_PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

#[tonic::async_trait]
impl SidecarService for Tools {
    type CallToolStream = ReceiverStream<Result<CallToolResponse, Status>>;

    async fn describe(
        &self,
        _: Request<DescribeRequest>,
    ) -> Result<Response<DescribeResponse>, Status> {
        let tools = TOOLS.map(|(name, class)| ToolSpec {
            name: name.to_owned(),
            description: format!("Has an effect that is {}.", class.as_str_name()),
            input_schema_json: r#"{"type":"object"}"#.to_owned(),
            effect_class: class.into(),
            retention: (class == EffectClass::Deduplicated).then(|| RETENTION.into()),
            ..ToolSpec::default()
        });
        Ok(Response::new(DescribeResponse {
            tools: tools.to_vec(),
            ..DescribeResponse::default()
        }))
    }

    async fn call_tool(
        &self,
        request: Request<CallToolRequest>,
    ) -> Result<Response<Self::CallToolStream>, Status> {
        let (answer, stream) = mpsc::channel(1);
        let tools = self.clone();
        tokio::spawn(async move {
            let kind = Some(tools.run(request.get_ref()).await);
            // Nobody may be there to hear it.
            let _ = answer.send(Ok(CallToolResponse { kind })).await;
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn lookup_call(
        &self,
        _: Request<LookupCallRequest>,
    ) -> Result<Response<LookupCallResponse>, Status> {
        Err(Status::unimplemented("nothing is looked up here"))
    }

    type AttachCallStream = ReceiverStream<Result<AttachCallResponse, Status>>;

    async fn attach_call(
        &self,
        _: Request<AttachCallRequest>,
    ) -> Result<Response<Self::AttachCallStream>, Status> {
        Err(Status::unimplemented("nothing is rejoined here"))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
