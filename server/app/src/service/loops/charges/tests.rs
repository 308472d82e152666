#![expect(clippy::unwrap_used, reason = "tests")]

use loopwright_proto::v1::{self, loop_service_server::LoopService as _};
use tonic::Request;

use super::*;
use crate::{
    config::{Config, ModelConfig, PriceConfig, Provider},
    effects::model::{Models, ModelsOptions},
    service::{
        caller::Caller,
        fixture,
        loops::{Loops, tests::ended},
    },
};

const SLOW: &str = "at_end: repeat\nturns:\n- text: late\n  delay_ms: 3600000\n";
const QUICK: &str = "at_end: repeat\nturns:\n- text: done\n";

/// A model `m` and a writer of recaps `w`, at so many US dollars for a million tokens.
fn models(script: &str, usd: f64) -> Arc<Models> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("script.yaml");
    std::fs::write(&path, script).unwrap();
    let model = |usd| ModelConfig {
        provider: Some(Provider::Scripted),
        script: Some(path.clone()),
        price: PriceConfig {
            input: Some(usd),
            output: Some(usd),
            ..PriceConfig::default()
        },
        ..ModelConfig::default()
    };
    let config = Config {
        models: [
            ("m".to_owned(), model(usd)),
            ("w".to_owned(), model(2.0 * usd)),
        ]
        .into(),
        ..Config::default()
    };
    Models::new(&config, &[].into(), ModelsOptions::default()).unwrap()
}

fn start(request_id: &str, brings_agent: bool) -> Request<v1::StartLoopRequest> {
    let agent = v1::Agent {
        model: "m".into(),
        context: Some(v1::ContextOptions {
            recap: v1::RecapKind::Model.into(),
            recap_model: "w".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut request = Request::new(v1::StartLoopRequest {
        request_id: request_id.into(),
        session_id: "s1".into(),
        agent: brings_agent.then_some(agent),
        input: Some(v1::start_loop_request::Input::Text("go".into())),
        ..Default::default()
    });
    request.extensions_mut().insert(Caller::local());
    request
}

async fn prices(state: &ServiceState) -> Vec<(String, u64)> {
    let known = state.known(&fixture::key("s1")).await.unwrap().unwrap();
    let prices = &known.state.limits.prices;
    let price = |(model, price): (&String, &Price)| (model.clone(), price.input);
    prices.iter().map(price).collect()
}

fn at(m: u64, w: u64) -> Vec<(String, u64)> {
    vec![("m".to_owned(), m), ("w".to_owned(), w)]
}

#[tokio::test]
async fn a_limit_on_cost_that_moves_keeps_the_price_of_the_recaps_writer() {
    let (mut state, _drain) = fixture::state(SLOW);
    state.models = models(SLOW, 3.0);
    let loops = Loops(state.clone());
    loops.start_loop(start("r1", true)).await.unwrap();
    assert_eq!(prices(&state).await, at(3_000_000, 6_000_000));
    let budget = v1::BudgetLimits {
        max_cost_micro_usd: Some(5_000_000),
        ..Default::default()
    };
    let mut request = Request::new(v1::UpdateLimitsRequest {
        session_id: "s1".into(),
        limits: Some(v1::LoopLimits {
            budget: Some(budget),
            ..Default::default()
        }),
        ..Default::default()
    });
    request.extensions_mut().insert(Caller::local());
    loops.update_limits(request).await.unwrap();
    assert_eq!(prices(&state).await, at(3_000_000, 6_000_000));
}

#[tokio::test]
async fn a_loop_starts_at_the_prices_of_its_day() {
    let (mut state, _drain) = fixture::state(QUICK);
    state.models = models(QUICK, 3.0);
    let loops = Loops(state.clone());
    let first = loops.start_loop(start("r1", true)).await.unwrap();
    assert_eq!(prices(&state).await, at(3_000_000, 6_000_000));
    ended(&loops, "s1", &first.into_inner().loop_id).await;
    state.models = models(QUICK, 5.0);
    let loops = Loops(state.clone());
    loops.start_loop(start("r2", false)).await.unwrap();
    assert_eq!(prices(&state).await, at(5_000_000, 10_000_000));
}
