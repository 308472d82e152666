//! BudgetService over a log in memory.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::StreamExt as _;
use loopwright_proto::v1::watch_budget_response::Item;
use tonic_types::StatusExt as _;

use super::*;
use crate::{drain::Drain, ledger::Ledgers, service::fixture};

mod crashes;

fn service() -> (Budgets, Drain) {
    let (state, drain) = fixture::state("- text: hello\n");
    (Budgets(state), drain)
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller::local());
    request
}

fn terms(parent: &str, total: u64) -> Option<v1::BudgetTerms> {
    Some(v1::BudgetTerms {
        parent: parent.to_owned(),
        limits: Some(v1::BudgetLimits {
            max_total_tokens: Some(total),
            ..v1::BudgetLimits::default()
        }),
        period: None,
    })
}

async fn create(
    service: &Budgets,
    name: &str,
    terms: Option<v1::BudgetTerms>,
) -> Result<v1::Budget, Status> {
    let name = name.to_owned();
    let request = asked(v1::CreateBudgetRequest { name, terms });
    let created = service.create_budget(request).await?.into_inner();
    Ok(created.budget.unwrap())
}

fn reserve(id: &str, budget: &str, input_tokens: u64) -> Request<v1::ReserveRequest> {
    asked(v1::ReserveRequest {
        reservation_id: id.to_owned(),
        budgets: vec![budget.to_owned()],
        amount: Some(v1::BudgetAmount {
            input_tokens,
            ..v1::BudgetAmount::default()
        }),
        expires_after: None,
    })
}

fn reason(status: &Status) -> String {
    status
        .get_details_error_info()
        .map(|info| info.reason)
        .unwrap_or_default()
}

async fn get(service: &Budgets, name: &str) -> v1::Budget {
    let name = name.to_owned();
    let got = service
        .get_budget(asked(v1::GetBudgetRequest { name }))
        .await;
    got.unwrap().into_inner().budget.unwrap()
}

#[tokio::test]
async fn a_reservation_takes_from_the_whole_chain_and_a_settlement_gives_the_rest_back() {
    let (service, _drain) = service();
    create(&service, "org", terms("", 1_000)).await.unwrap();
    create(&service, "team", terms("org", 500)).await.unwrap();
    let reserved = service
        .reserve(reserve("r1", "team", 400))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reserved.budgets, ["team", "org"]);
    assert!(reserved.expires_at.is_some());
    let again = service
        .reserve(reserve("r1", "team", 400))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, reserved);
    let short = service
        .reserve(reserve("r2", "team", 101))
        .await
        .unwrap_err();
    assert_eq!(
        (short.code(), reason(&short).as_str()),
        (Code::ResourceExhausted, "BUDGET_EXCEEDED")
    );
    let metadata = short.get_details_error_info().unwrap().metadata;
    assert_eq!(metadata["budget"], "team");
    assert_eq!(metadata["used"], "400");
    let settle = v1::SettleRequest {
        reservation_id: "r1".to_owned(),
        used: Some(v1::BudgetAmount {
            input_tokens: 30,
            ..v1::BudgetAmount::default()
        }),
    };
    for _ in 0..2 {
        service.settle(asked(settle.clone())).await.unwrap();
    }
    for name in ["org", "team"] {
        let budget = get(&service, name).await;
        assert_eq!(budget.settled.unwrap().input_tokens, 30, "{name}");
        assert_eq!(budget.reserved.unwrap().input_tokens, 0, "{name}");
        assert_eq!(budget.open_reservations, 0, "{name}");
    }
}

#[tokio::test]
async fn bad_terms_are_told_all_at_once_and_by_name() {
    let (service, _drain) = service();
    let bad = v1::BudgetTerms {
        parent: "Org".to_owned(),
        limits: Some(v1::BudgetLimits {
            warn_at: Some(f64::NAN),
            on_exhausted: 77,
            min_output_tokens: Some(1),
            ..v1::BudgetLimits::default()
        }),
        period: Some(v1::BudgetPeriod {
            kind: v1::BudgetPeriodKind::Rolling.into(),
            window: None,
        }),
    };
    let status = create(&service, "../x", Some(bad)).await.unwrap_err();
    let told = status.get_details_bad_request().unwrap().field_violations;
    let mut fields: Vec<&str> = told.iter().map(|one| one.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(
        fields,
        [
            "name",
            "terms.limits.min_output_tokens",
            "terms.limits.on_exhausted",
            "terms.limits.warn_at",
            "terms.parent",
            "terms.period.window",
        ]
    );
}

#[tokio::test]
async fn a_list_has_pages_in_the_order_of_names() {
    let (service, _drain) = service();
    for name in ["c", "a", "b"] {
        create(&service, name, None).await.unwrap();
    }
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let page_token = std::mem::take(&mut token);
        let request = v1::ListBudgetsRequest {
            page_size: 2,
            page_token,
        };
        let page = service
            .list_budgets(asked(request))
            .await
            .unwrap()
            .into_inner();
        seen.extend(page.budgets.into_iter().map(|budget| budget.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn what_is_in_use_or_not_there_is_refused_with_its_reason() {
    let (service, _drain) = service();
    create(&service, "org", terms("", 1_000)).await.unwrap();
    create(&service, "team", terms("org", 500)).await.unwrap();
    let delete = |name: &str| {
        asked(v1::DeleteBudgetRequest {
            name: name.to_owned(),
        })
    };
    let status = service.delete_budget(delete("org")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "BUDGET_IN_USE")
    );
    let status = service.delete_budget(delete("nobody")).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "BUDGET_NOT_FOUND")
    );
    let status = create(&service, "org", terms("", 1)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "BUDGET_EXISTS")
    );
    let update = v1::UpdateBudgetRequest {
        name: "org".to_owned(),
        terms: None,
    };
    let status = service.update_budget(asked(update)).await.unwrap_err();
    assert_eq!(
        status.code(),
        Code::InvalidArgument,
        "no terms is not all terms"
    );
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_where_each_stands_then_each_change_and_every_warning() {
    let (service, drain) = service();
    create(&service, "org", terms("", 100)).await.unwrap();
    let watch = v1::WatchBudgetRequest {
        name: "org".to_owned(),
    };
    let mut watch = service
        .watch_budget(asked(watch))
        .await
        .unwrap()
        .into_inner();
    let mut next = async || watch.next().await.unwrap().unwrap().item.unwrap();
    let Item::Budget(first) = next().await else {
        panic!("not where it stands")
    };
    assert_eq!(first.reserved.unwrap().input_tokens, 0);
    create(&service, "other", None).await.unwrap();
    service.reserve(reserve("r1", "org", 90)).await.unwrap();
    let Item::Budget(changed) = next().await else {
        panic!("not the change")
    };
    assert_eq!(changed.reserved.unwrap().input_tokens, 90);
    let settle = v1::SettleRequest {
        reservation_id: "r1".to_owned(),
        used: None,
    };
    service.settle(asked(settle)).await.unwrap();
    let Item::Warning(warning) = next().await else {
        panic!("not the warning")
    };
    assert_eq!((warning.used, warning.limit), (90, 100));
    let Item::Budget(settled) = next().await else {
        panic!("not the change")
    };
    assert_eq!(settled.settled.unwrap().input_tokens, 90);
    let started = tokio::time::Instant::now();
    let Item::Heartbeat(_) = next().await else {
        panic!("not a sign of life")
    };
    assert!(started.elapsed() <= Duration::from_secs(16));
    drain.begin();
    let Item::Goodbye(_) = next().await else {
        panic!("no goodbye")
    };
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_goes_where_the_ledger_goes_and_hears_every_warning() {
    let (mut state, _drain) = fixture::state("- text: hello\n");
    state.ledgers = Ledgers::with_streams_of(Arc::clone(&state.log), Clock, 1_500);
    let service = Budgets(state);
    let opened = service.watch_budget(asked(v1::WatchBudgetRequest::default()));
    let mut watch = opened.await.unwrap().into_inner();
    let late = service.watch_budget(asked(v1::WatchBudgetRequest::default()));
    let mut late = late.await.unwrap().into_inner();
    for number in 0..60 {
        let (name, id) = (format!("b{number}"), format!("r{number}"));
        create(&service, &name, terms("", 100)).await.unwrap();
        service.reserve(reserve(&id, &name, 90)).await.unwrap();
        let settle = v1::SettleRequest {
            reservation_id: id,
            used: None,
        };
        service.settle(asked(settle)).await.unwrap();
        let (mut warned, mut settled) = (false, false);
        while !(warned && settled) {
            match watch.next().await.unwrap().unwrap().item.unwrap() {
                Item::Warning(warning) => warned = warning.budget.unwrap().name == name,
                Item::Budget(budget) => {
                    assert_eq!(budget.name, name, "what is carried over is no change");
                    settled = budget.settled.unwrap().input_tokens == 90;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let (_, place) = service
        .0
        .ledgers
        .whole(&fixture::namespace())
        .await
        .unwrap();
    assert!(place.base > 60, "it stayed in one stream: {place:?}");
    let mut warnings = 0;
    let told = loop {
        match late.next().await {
            Some(Ok(item)) => {
                warnings += usize::from(matches!(item.item, Some(Item::Warning(_))));
            }
            Some(Err(status)) => break status,
            None => panic!("it ended without a word"),
        }
    };
    assert!(warnings < 60);
    assert_eq!(
        (told.code(), reason(&told).as_str()),
        (Code::OutOfRange, "WATCHER_TOO_LATE")
    );
}
