//! The fake's SessionLogService.

use futures_util::StreamExt as _;
use loopwright_proto::v1::{
    BlobProblem, DamagePlace, DeleteSessionRequest, DeleteSessionResponse, EndReason,
    ExportSessionRequest, ExportSessionResponse, ForkSessionRequest, ForkSessionResponse,
    GetModelRequestRequest, GetModelRequestResponse, GetSessionRequest, GetSessionResponse,
    Heartbeat, ImportSessionRequest, ImportSessionResponse, IntegrityReport, ListSessionsRequest,
    ListSessionsResponse, LoopState, ModelRequestHead, ReadDirection, ReadEntriesRequest,
    ReadEntriesResponse, SessionState, SessionSummary, Totals, Usage, Verdict,
    VerifySessionRequest, VerifySessionResponse, get_model_request_response,
    import_session_request, read_entries_response, session_log_service_server::SessionLogService,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::super::session::Step;
use super::{Cut, Fake, Items, read_item};

/// What the fake exports of every session, and what it imports.
pub(crate) const EXPORT: &str = "{\"v\":1,\"stream\":\"session/default/s1\"}\n{\"v\":1}\n";

fn summary(session_id: &str) -> SessionSummary {
    SessionSummary {
        session_id: session_id.into(),
        tail_seq: 7,
        ..SessionSummary::default()
    }
}

fn damaged(session_id: &str) -> IntegrityReport {
    IntegrityReport {
        session_id: session_id.into(),
        verdict: Verdict::Corrupt.into(),
        good_through: 4,
        problem: "checksum 00000001, but the record says 00000002".into(),
        place: Some(DamagePlace {
            file: "default/session/bad/log.jsonl".into(),
            line: 5,
            byte: 812,
        }),
        entries_after: 2,
        last_seq_after: 7,
        good_bytes: 812,
        blobs: 1,
        blob_problems: vec![BlobProblem {
            sha256: "ab".repeat(32),
            bytes: 9,
            seq: 3,
            problem: "is missing".into(),
        }],
        ways_out: vec!["restore it from a backup".into()],
    }
}

impl Fake {
    /// Entries by falling seq, until the stream's cut.
    fn backward(&self, asked: &ReadEntriesRequest) -> Items<ReadEntriesResponse> {
        use read_entries_response::Item;
        let mut state = self.state();
        let cut = state.cuts.pop_front();
        let entries = state.steps.iter().rev().filter_map(|step| match step {
            Step::Entry(entry) => Some(entry.clone()),
            Step::Delta(_) | Step::AwaitCancel => None,
        });
        let (after, through) = (asked.after_seq, asked.through_seq);
        let wanted =
            entries.filter(|entry| entry.seq > after && (through == 0 || entry.seq <= through));
        let limit = usize::try_from(asked.limit).ok().filter(|limit| *limit > 0);
        let wanted = wanted.take(limit.unwrap_or(usize::MAX)).map(Item::Entry);
        let end = Item::Heartbeat(Heartbeat::default());
        let mut items: Vec<_> = wanted
            .chain([end])
            .map(|item| Ok(ReadEntriesResponse { item: Some(item) }))
            .collect();
        match cut {
            Some(Cut::Status(at, status)) => {
                items.truncate(at);
                items.push(Err(status));
            }
            Some(cut) => items.truncate(cut.at()),
            None => {}
        }
        tokio_stream::iter(items).boxed()
    }
}

#[tonic::async_trait]
impl SessionLogService for Fake {
    type ReadEntriesStream = Items<ReadEntriesResponse>;
    type GetModelRequestStream = Items<GetModelRequestResponse>;
    type ExportSessionStream = Items<ExportSessionResponse>;

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        self.state().listed.push(request.get_ref().clone());
        let first = request.get_ref().page_token.is_empty();
        let (session_id, next_page_token) = if first { ("s1", "2") } else { ("s2", "") };
        let session = SessionSummary {
            session_id: session_id.into(),
            state: SessionState::Idle.into(),
            loop_state: LoopState::Ended.into(),
            end_reason: EndReason::MaxSteps.into(),
            title: "What is\n2 + 3?".into(),
            tail_seq: 9,
            loops: 1,
            totals: Some(Totals {
                usage: Some(Usage {
                    input_tokens: 1_000,
                    output_tokens: 56,
                    cache_write_tokens: 34,
                    cache_read_tokens: 200,
                    ..Usage::default()
                }),
                cost_micro_usd: Some(12_300),
                steps: 2,
                ..Totals::default()
            }),
            ..SessionSummary::default()
        };
        Ok(Response::new(ListSessionsResponse {
            sessions: vec![session],
            next_page_token: next_page_token.into(),
        }))
    }

    async fn get_session(
        &self,
        _request: Request<GetSessionRequest>,
    ) -> Result<Response<GetSessionResponse>, Status> {
        self.command("get", "")?;
        let summary = self.state().summary.clone();
        let session = summary.map(|summary| SessionSummary {
            session_id: summary.session_id,
            state: SessionState::Active.into(),
            loop_state: summary.state,
            loop_id: summary.loop_id,
            loops: 1,
            ..SessionSummary::default()
        });
        Ok(Response::new(GetSessionResponse {
            session,
            agent: None,
        }))
    }

    async fn read_entries(
        &self,
        request: Request<ReadEntriesRequest>,
    ) -> Result<Response<Self::ReadEntriesStream>, Status> {
        let asked = request.get_ref();
        self.marked(asked.after_epoch, asked.after_committed_at);
        if asked.direction() == ReadDirection::Backward {
            return Ok(Response::new(self.backward(asked)));
        }
        let (sink, items) = mpsc::channel(1);
        let (after, through) = (request.get_ref().after_seq, request.get_ref().through_seq);
        tokio::spawn(self.clone().play(after, true, sink));
        let items = ReceiverStream::new(items);
        let items = items.filter_map(move |item| {
            std::future::ready(item.map(|item| read_item(item, through)).transpose())
        });
        Ok(Response::new(items.boxed()))
    }

    async fn get_model_request(
        &self,
        request: Request<GetModelRequestRequest>,
    ) -> Result<Response<Self::GetModelRequestStream>, Status> {
        use get_model_request_response::Item;
        let head = ModelRequestHead {
            call: request.into_inner().call,
            attempt: 1,
            exact: true,
            bytes: 5,
            ..ModelRequestHead::default()
        };
        let items = [
            Item::Head(head),
            Item::Body("hel".into()),
            Item::Body("lo".into()),
        ];
        let items = items.map(|item| Ok(GetModelRequestResponse { item: Some(item) }));
        Ok(Response::new(tokio_stream::iter(items).boxed()))
    }

    async fn fork_session(
        &self,
        request: Request<ForkSessionRequest>,
    ) -> Result<Response<ForkSessionResponse>, Status> {
        let request = request.into_inner();
        self.command("fork", &request.request_id)?;
        Ok(Response::new(ForkSessionResponse {
            session: Some(summary(&request.new_session_id)),
        }))
    }

    async fn verify_session(
        &self,
        request: Request<VerifySessionRequest>,
    ) -> Result<Response<VerifySessionResponse>, Status> {
        let session_id = request.into_inner().session_id;
        let report = if session_id == "bad" {
            damaged(&session_id)
        } else {
            IntegrityReport {
                session_id,
                verdict: Verdict::Good.into(),
                good_through: 7,
                good_bytes: 2_000,
                ..IntegrityReport::default()
            }
        };
        Ok(Response::new(VerifySessionResponse {
            report: Some(report),
        }))
    }

    async fn export_session(
        &self,
        _request: Request<ExportSessionRequest>,
    ) -> Result<Response<Self::ExportSessionStream>, Status> {
        let pieces = EXPORT.as_bytes().chunks(7);
        let chunks: Vec<_> = pieces
            .map(|piece| {
                Ok(ExportSessionResponse {
                    chunk: piece.to_vec().into(),
                })
            })
            .collect();
        Ok(Response::new(tokio_stream::iter(chunks).boxed()))
    }

    async fn import_session(
        &self,
        request: Request<Streaming<ImportSessionRequest>>,
    ) -> Result<Response<ImportSessionResponse>, Status> {
        use import_session_request::Item;
        let mut items = request.into_inner();
        let (mut session_id, mut lines) = (String::new(), Vec::new());
        while let Some(item) = items.message().await? {
            match item.item {
                Some(Item::Head(head)) => {
                    self.command("import", &head.request_id)?;
                    session_id = head.session_id;
                }
                Some(Item::Chunk(chunk)) => lines.extend_from_slice(&chunk),
                None => {}
            }
        }
        if lines != EXPORT.as_bytes() {
            return Err(Status::invalid_argument("not what was exported"));
        }
        Ok(Response::new(ImportSessionResponse {
            session: Some(summary(&session_id)),
        }))
    }

    async fn delete_session(
        &self,
        request: Request<DeleteSessionRequest>,
    ) -> Result<Response<DeleteSessionResponse>, Status> {
        self.command("delete", &request.get_ref().request_id)?;
        Ok(Response::new(DeleteSessionResponse {}))
    }
}
