//! BudgetService: the budgets that sessions share.
//!
//! Boundary: messages to requests of the ledger and back; what is granted is decided in the core.

mod watch;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use loopwright_core::ledger::{Answer, Name, Refusal, Request as Ask};
use loopwright_proto::v1::{self, budget_service_server::BudgetService};
use tonic::{Code, Request, Response, Status};

use super::{
    ServiceState,
    caller::Caller,
    convert::{budget as wire, fields, fields::Violations, timestamp},
    page::{Page, Place},
    status,
};
use crate::{driver::Clock, ledger::LedgerError};

#[cfg(test)]
mod tests;

/// The service.
#[derive(Clone)]
pub struct Budgets(pub ServiceState);

#[tonic::async_trait]
impl BudgetService for Budgets {
    async fn create_budget(
        &self,
        request: Request<v1::CreateBudgetRequest>,
    ) -> Result<Response<v1::CreateBudgetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner();
        let mut all = Violations::default();
        let name = wire::name(&asked.name, &mut all);
        let terms = wire::terms(asked.terms.as_ref(), &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let create = Ask::Create {
            name: Arc::clone(&name),
            terms,
        };
        self.ask(&caller, create).await?;
        let budget = Some(self.budget(&caller, name).await?);
        Ok(Response::new(v1::CreateBudgetResponse { budget }))
    }

    async fn get_budget(
        &self,
        request: Request<v1::GetBudgetRequest>,
    ) -> Result<Response<v1::GetBudgetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = name_of(&request.get_ref().name)?;
        let budget = Some(self.budget(&caller, name).await?);
        Ok(Response::new(v1::GetBudgetResponse { budget }))
    }

    async fn list_budgets(
        &self,
        request: Request<v1::ListBudgetsRequest>,
    ) -> Result<Response<v1::ListBudgetsResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut asked = request.into_inner();
        let mut all = Violations::default();
        let token = std::mem::take(&mut asked.page_token);
        let size = fields::page_size(std::mem::take(&mut asked.page_size), &mut all);
        let page = Page::parse(size, &token, &asked, &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let listed = self.0.ledgers.look(&caller.namespace, move |ledger, at| {
            let open = wire::open_reservations(ledger);
            let places = ledger.budgets.keys().map(|name| Place::new(0, &**name));
            let (places, next_page_token) = page.cut(places.collect());
            let shown = places.iter().filter_map(|place| {
                let budget = ledger.budgets.get(place.name.as_str())?;
                let open = open.get(place.name.as_str()).copied().unwrap_or(0);
                Some(wire::to_wire(&place.name, budget, open, at))
            });
            v1::ListBudgetsResponse {
                budgets: shown.collect(),
                next_page_token,
            }
        });
        listed.await.map(Response::new).map_err(|e| refused(&e))
    }

    async fn update_budget(
        &self,
        request: Request<v1::UpdateBudgetRequest>,
    ) -> Result<Response<v1::UpdateBudgetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner();
        let mut all = Violations::default();
        let name = wire::name(&asked.name, &mut all);
        if asked.terms.is_none() {
            let problem = "is absent; send all terms, those of GetBudget with what changes";
            all.add("terms", problem);
        }
        let terms = wire::terms(asked.terms.as_ref(), &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let update = Ask::Update {
            name: Arc::clone(&name),
            terms,
        };
        self.ask(&caller, update).await?;
        let budget = Some(self.budget(&caller, name).await?);
        Ok(Response::new(v1::UpdateBudgetResponse { budget }))
    }

    async fn delete_budget(
        &self,
        request: Request<v1::DeleteBudgetRequest>,
    ) -> Result<Response<v1::DeleteBudgetResponse>, Status> {
        let caller = Caller::of(&request)?;
        let name = name_of(&request.get_ref().name)?;
        self.ask(&caller, Ask::Delete { name }).await?;
        Ok(Response::new(v1::DeleteBudgetResponse {}))
    }

    async fn reserve(
        &self,
        request: Request<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut all = Violations::default();
        let ask = wire::reserve(request.into_inner(), Clock.now(), &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let hold = match &ask {
            Ask::Reserve { hold, .. } => hold.clone(),
            _ => return Err(status::invalid_field("amount", "is nothing")),
        };
        let Answer::Granted(granted) = self.ask(&caller, ask).await? else {
            return Ok(Response::new(v1::ReserveResponse::default()));
        };
        // A repeat keeps the expiry that the first one set.
        let expires = move |ledger: &loopwright_core::ledger::Ledger, _| {
            ledger.holds.get(&hold).and_then(|hold| hold.expires_at)
        };
        let expires = self.0.ledgers.look(&caller.namespace, expires).await;
        Ok(Response::new(v1::ReserveResponse {
            budgets: granted
                .budgets
                .iter()
                .map(|name| name.to_string())
                .collect(),
            amount: Some(wire::amount_to_wire(&granted.amount)),
            expires_at: expires.map_err(|e| refused(&e))?.map(timestamp),
        }))
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let caller = Caller::of(&request)?;
        let asked = request.into_inner();
        let mut all = Violations::default();
        let hold = wire::reservation(&asked.reservation_id, &mut all);
        let used = wire::used(asked.used.as_ref(), &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        self.ask(&caller, Ask::Settle { hold, used }).await?;
        Ok(Response::new(v1::SettleResponse {}))
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        let caller = Caller::of(&request)?;
        let mut all = Violations::default();
        let hold = wire::reservation(&request.get_ref().reservation_id, &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        self.ask(&caller, Ask::Release { hold }).await?;
        Ok(Response::new(v1::ReleaseResponse {}))
    }

    type WatchBudgetStream = BoxStream<'static, Result<v1::WatchBudgetResponse, Status>>;

    async fn watch_budget(
        &self,
        request: Request<v1::WatchBudgetRequest>,
    ) -> Result<Response<Self::WatchBudgetStream>, Status> {
        let caller = Caller::of(&request)?;
        let mut all = Violations::default();
        let name = fields::optional_id("name", &request.get_ref().name, &mut all);
        all.check(()).map_err(|all| status::invalid(&all))?;
        let name = name.map(|id| Name::from(id.as_str()));
        watch::open(&self.0, &caller.namespace, name)
            .await
            .map(Response::new)
    }
}

impl Budgets {
    async fn ask(&self, caller: &Caller, ask: Ask) -> Result<Answer, Status> {
        let answer = self.0.ledgers.ask(&caller.namespace, ask).await;
        answer.map_err(|error| refused(&error))
    }

    async fn budget(&self, caller: &Caller, name: Name) -> Result<v1::Budget, Status> {
        let known = Arc::clone(&name);
        let look = self.0.ledgers.look(&caller.namespace, move |ledger, at| {
            let budget = ledger.budgets.get(&name)?;
            let holds = ledger.holds.values();
            let open = holds.filter(|hold| hold.budgets.contains(&name)).count();
            let open = u32::try_from(open).unwrap_or(u32::MAX);
            Some(wire::to_wire(&name, budget, open, at))
        });
        let found = look.await.map_err(|error| refused(&error))?;
        found.ok_or_else(|| refused(&Refusal::NoBudget(known).into()))
    }
}

fn name_of(text: &str) -> Result<Name, Status> {
    let mut all = Violations::default();
    let name = wire::name(text, &mut all);
    all.check(name).map_err(|all| status::invalid(&all))
}

/// Why a ledger refused, as BudgetService names it.
pub(super) fn refused(error: &LedgerError) -> Status {
    let refusal = match error {
        LedgerError::Refused(refusal) => refusal,
        LedgerError::Unavailable(_) => {
            return status::ledger_unavailable(error);
        }
        LedgerError::Unreadable(_) => {
            return status::other(Code::DataLoss, "LEDGER_UNREADABLE", error, Vec::new(), None);
        }
    };
    let (code, reason) = match refusal {
        Refusal::NoBudget(_) => (Code::NotFound, "BUDGET_NOT_FOUND"),
        Refusal::Exists(_) => (Code::AlreadyExists, "BUDGET_EXISTS"),
        Refusal::Circle { .. } => (Code::FailedPrecondition, "BUDGET_CIRCLE"),
        Refusal::TooDeep(_) => (Code::FailedPrecondition, "BUDGET_TOO_DEEP"),
        Refusal::TooMany => (Code::ResourceExhausted, "TOO_MANY_BUDGETS"),
        Refusal::TooManyHolds => (Code::ResourceExhausted, "TOO_MANY_RESERVATIONS"),
        Refusal::InUse { .. } => (Code::FailedPrecondition, "BUDGET_IN_USE"),
        Refusal::Exhausted { .. } => (Code::ResourceExhausted, "BUDGET_EXCEEDED"),
        Refusal::Ended(_) => (Code::FailedPrecondition, "RESERVATION_ENDED"),
        Refusal::Reused(_) => (Code::AlreadyExists, "RESERVATION_ID_REUSED"),
        Refusal::NoHold(_) => (Code::NotFound, "RESERVATION_NOT_FOUND"),
    };
    let metadata = match refusal {
        Refusal::Exhausted { budget, short, .. } => vec![
            ("budget", budget.to_string()),
            ("dimension", short.dimension.to_string()),
            ("limit", short.limit.to_string()),
            ("used", short.used.to_string()),
            ("requested", short.requested.to_string()),
        ],
        _ => Vec::new(),
    };
    status::other(code, reason, refusal, metadata, None)
}
