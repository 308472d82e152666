//! The commands of BudgetService.

use loopwright_proto::v1::budget_service_client::BudgetServiceClient;
use loopwright_proto::v1::{
    Budget, BudgetAmount, CreateBudgetRequest, DeleteBudgetRequest, GetBudgetRequest,
    ListBudgetsRequest, ListBudgetsResponse, ReleaseRequest, ReserveRequest, ReserveResponse,
    SettleRequest, UpdateBudgetRequest, WatchBudgetRequest, WatchBudgetResponse,
};
use tonic::{Request, Streaming};

use crate::client::fill_in;
use crate::{Client, Error};

impl Client {
    /// Creates a budget that sessions share. A repeat with the same terms changes nothing.
    ///
    /// # Errors
    /// As BudgetService.CreateBudget says.
    pub async fn create_budget(&self, request: CreateBudgetRequest) -> Result<Budget, Error> {
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel)
                .create_budget(request)
                .await
        });
        Ok(answer.await?.budget.unwrap_or_default())
    }

    /// Says where a budget stands.
    ///
    /// # Errors
    /// As BudgetService.GetBudget says.
    pub async fn get_budget(&self, name: impl Into<String>) -> Result<Budget, Error> {
        let request = GetBudgetRequest { name: name.into() };
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel).get_budget(request).await
        });
        Ok(answer.await?.budget.unwrap_or_default())
    }

    /// Lists one page of budgets, by name.
    ///
    /// # Errors
    /// As BudgetService.ListBudgets says.
    pub async fn list_budgets(
        &self,
        request: ListBudgetsRequest,
    ) -> Result<ListBudgetsResponse, Error> {
        self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel)
                .list_budgets(request)
                .await
        })
        .await
    }

    /// Replaces a budget's terms.
    ///
    /// # Errors
    /// As BudgetService.UpdateBudget says.
    pub async fn update_budget(&self, request: UpdateBudgetRequest) -> Result<Budget, Error> {
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel)
                .update_budget(request)
                .await
        });
        Ok(answer.await?.budget.unwrap_or_default())
    }

    /// Deletes a budget.
    ///
    /// # Errors
    /// As BudgetService.DeleteBudget says.
    pub async fn delete_budget(&self, name: impl Into<String>) -> Result<(), Error> {
        let request = DeleteBudgetRequest { name: name.into() };
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel)
                .delete_budget(request)
                .await
        });
        answer.await.map(drop)
    }

    /// Sets an amount aside. An empty `reservation_id` is filled in and comes back beside the answer: it is
    /// what settles or releases it.
    ///
    /// # Errors
    /// As BudgetService.Reserve says.
    pub async fn reserve(
        &self,
        mut request: ReserveRequest,
    ) -> Result<(String, ReserveResponse), Error> {
        fill_in(&mut request.reservation_id);
        let id = request.reservation_id.clone();
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel).reserve(request).await
        });
        Ok((id, answer.await?))
    }

    /// Replaces a reservation by what was used; `None`: it is not known, and the whole reservation counts.
    ///
    /// # Errors
    /// As BudgetService.Settle says.
    pub async fn settle(
        &self,
        reservation_id: impl Into<String>,
        used: Option<BudgetAmount>,
    ) -> Result<(), Error> {
        let reservation_id = reservation_id.into();
        let request = SettleRequest {
            reservation_id,
            used,
        };
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel).settle(request).await
        });
        answer.await.map(drop)
    }

    /// Gives a reservation back whole: nothing was used.
    ///
    /// # Errors
    /// As BudgetService.Release says.
    pub async fn release(&self, reservation_id: impl Into<String>) -> Result<(), Error> {
        let reservation_id = reservation_id.into();
        let request = ReleaseRequest { reservation_id };
        let answer = self.call(request, |channel, request| async move {
            BudgetServiceClient::new(channel).release(request).await
        });
        answer.await.map(drop)
    }

    /// Where a budget stands, then each change; empty `name`: all of them. The stream is not opened again
    /// by itself: whoever opens it anew gets where each budget stands.
    ///
    /// # Errors
    /// As BudgetService.WatchBudget says.
    pub async fn watch_budget(
        &self,
        name: impl Into<String>,
    ) -> Result<Streaming<WatchBudgetResponse>, Error> {
        let request = WatchBudgetRequest { name: name.into() };
        let opened = self.budgets().watch_budget(Request::new(request)).await;
        opened
            .map(tonic::Response::into_inner)
            .map_err(|status| Error::from_status(&status, &self.options().url))
    }
}
