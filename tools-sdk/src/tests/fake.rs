//! A small fake of ToolService: it dials back as the real one does, and does as the test tells it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use loopwright_proto::v1;
use loopwright_proto::v1::tool_service_server::{ToolService, ToolServiceServer};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::dial;

/// What the fake was asked.
#[derive(Debug, PartialEq)]
pub(super) enum Asked {
    Register {
        request: v1::RegisterSidecarRequest,
        authorization: Option<String>,
        tools: usize,
    },
    Renew {
        lease_id: String,
    },
    Deregister {
        lease_id: String,
    },
}

/// The fake, serving until dropped.
pub(super) struct Fake {
    pub(super) asked: mpsc::UnboundedReceiver<Asked>,
    answers: Arc<Mutex<Answers>>,
    task: JoinHandle<()>,
}

/// What the fake is to answer; OK where nothing is said.
#[derive(Default)]
struct Answers {
    register: Vec<Code>,
    renew: Vec<Code>,
    leases: u32,
}

struct Service {
    asked: mpsc::UnboundedSender<Asked>,
    answers: Arc<Mutex<Answers>>,
}

impl Fake {
    /// Serves at a unix socket.
    pub(super) fn at(path: &Path) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(Answers::default()));
        let service = Service {
            asked: sender,
            answers: Arc::clone(&answers),
        };
        let incoming = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let task = tokio::spawn(async move {
            let router = Server::builder().add_service(ToolServiceServer::new(service));
            router.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            asked,
            answers,
            task,
        }
    }

    /// The next registration is refused with this code.
    pub(super) fn refuse_registration(&self, code: Code) {
        self.answers.lock().unwrap().register.push(code);
    }

    /// The next renewal is refused with this code.
    pub(super) fn refuse_renewal(&self, code: Code) {
        self.answers.lock().unwrap().renew.push(code);
    }

    pub(super) async fn next(&mut self) -> Asked {
        super::within(self.asked.recv()).await.unwrap()
    }

    /// The next that is no renewal.
    pub(super) async fn next_but_renewals(&mut self) -> Asked {
        loop {
            match self.next().await {
                Asked::Renew { .. } => (),
                asked => return asked,
            }
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ttl() -> Option<loopwright_proto::well_known::Duration> {
    Some(std::time::Duration::from_millis(150).into())
}

#[tonic::async_trait]
impl ToolService for Service {
    async fn register_sidecar(
        &self,
        request: Request<v1::RegisterSidecarRequest>,
    ) -> Result<Response<v1::RegisterSidecarResponse>, Status> {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
        let request = request.into_inner();
        let mut sidecar = dial(&request.endpoint).await;
        let tools = sidecar
            .describe(v1::DescribeRequest {})
            .await?
            .into_inner()
            .tools;
        let count = tools.len();
        let (refusal, lease) = {
            let mut answers = self.answers.lock().unwrap();
            answers.leases += 1;
            (answers.register.pop(), answers.leases)
        };
        let name = request.name.clone();
        self.asked
            .send(Asked::Register {
                request,
                authorization,
                tools: count,
            })
            .unwrap();
        if let Some(code) = refusal {
            return Err(Status::new(code, "as the test says"));
        }
        let offered = tools.into_iter().map(|spec| v1::OfferedTool {
            name: format!("{name}__{}", spec.name),
            sidecar: name.clone(),
            spec: Some(spec),
        });
        Ok(Response::new(v1::RegisterSidecarResponse {
            lease_id: format!("lease-{lease}"),
            lease_ttl: ttl(),
            accepted: offered.collect(),
            quarantined: Vec::new(),
        }))
    }

    async fn renew_lease(
        &self,
        request: Request<v1::RenewLeaseRequest>,
    ) -> Result<Response<v1::RenewLeaseResponse>, Status> {
        let refusal = self.answers.lock().unwrap().renew.pop();
        let _ = self.asked.send(Asked::Renew {
            lease_id: request.into_inner().lease_id,
        });
        match refusal {
            Some(code) => Err(Status::new(code, "as the test says")),
            None => Ok(Response::new(v1::RenewLeaseResponse { lease_ttl: ttl() })),
        }
    }

    async fn deregister_sidecar(
        &self,
        request: Request<v1::DeregisterSidecarRequest>,
    ) -> Result<Response<v1::DeregisterSidecarResponse>, Status> {
        let Some(v1::deregister_sidecar_request::Target::LeaseId(lease_id)) =
            request.into_inner().target
        else {
            return Err(Status::invalid_argument("no lease"));
        };
        let _ = self.asked.send(Asked::Deregister { lease_id });
        Ok(Response::new(v1::DeregisterSidecarResponse {}))
    }

    async fn list_sidecars(
        &self,
        _: Request<v1::ListSidecarsRequest>,
    ) -> Result<Response<v1::ListSidecarsResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_tools(
        &self,
        _: Request<v1::ListToolsRequest>,
    ) -> Result<Response<v1::ListToolsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
