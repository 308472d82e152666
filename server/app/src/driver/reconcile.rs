//! Running what the state wants, and nothing else: starts what is missing, aborts what is surplus.

use std::sync::Arc;

use futures_util::{
    FutureExt,
    future::{AbortHandle, Abortable, Aborted, BoxFuture},
};
use loopwright_core::{
    What,
    effect::{EffectKey, wanted},
    ids::{Attempt, CallId, Timestamp},
    outcome::{EndReason, LookupAnswer, ToolFailure, ToolFailureKind},
};

use super::{End, run::Driver};
use crate::{effects::progress::ProgressSink, sidecars::SessionRef};

/// An effect under way; resolves to the input that reports its end.
pub(super) type Effect =
    futures_util::future::Map<Abortable<BoxFuture<'static, (EffectKey, What)>>, Finish>;

type Finish = fn(Result<(EffectKey, What), Aborted>) -> (Option<EffectKey>, Option<What>);

/// A handle of an effect under way. Dropping it aborts the effect.
pub(super) struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Driver {
    /// Makes `running == wanted`. Called once the entry that licenses it is durable, never before.
    pub(super) fn reconcile(&mut self) {
        let wanted = wanted(&self.state);
        self.running.retain(|key, _| wanted.contains(key));
        for key in wanted {
            if !self.running.contains_key(&key) {
                let future = self.start(key);
                let (handle, registration) = AbortHandle::new_pair();
                let finish: Finish = |done| match done {
                    Ok((key, what)) => (Some(key), Some(what)),
                    Err(Aborted) => (None, None),
                };
                self.effects
                    .push(Abortable::new(future, registration).map(finish));
                self.running.insert(key, Running(handle));
            }
        }
    }

    /// Takes an effect's end in. What was aborted reports nothing, and what is stale decides to
    /// nothing.
    pub(super) async fn outcome(
        &mut self,
        key: Option<EffectKey>,
        what: Option<What>,
    ) -> Result<(), End> {
        let (Some(key), Some(what)) = (key, what) else {
            return Ok(());
        };
        self.running.remove(&key);
        self.commit(what).await
    }

    fn start(&mut self, key: EffectKey) -> BoxFuture<'static, (EffectKey, What)> {
        match key {
            EffectKey::Model { call, attempt } => self.start_model(key, call, attempt),
            EffectKey::Tool { call, attempt } => self.start_tool(key, call, attempt),
            EffectKey::Timer { at, why } => {
                let clock = self.world.clock;
                async move {
                    wait_until(clock, at).await;
                    (key, What::TimerFired(why))
                }
                .boxed()
            }
            EffectKey::Lookup { call } => {
                let answer = LookupAnswer::NotKnown("this server does not look calls up".into());
                std::future::ready((key, What::LookedUp { call, answer })).boxed()
            }
            EffectKey::Reserve { call, attempt } => {
                let message = "this server has no named budgets".to_owned();
                let reason = EndReason::Error { message };
                std::future::ready((
                    key,
                    What::BudgetRefused {
                        call,
                        attempt,
                        reason,
                    },
                ))
                .boxed()
            }
            // Without a ledger there is nobody who could take a settlement.
            EffectKey::Settle { .. } => std::future::pending().boxed(),
        }
    }

    fn start_model(
        &mut self,
        key: EffectKey,
        call: CallId,
        attempt: Attempt,
    ) -> BoxFuture<'static, (EffectKey, What)> {
        let request = self
            .state
            .model_request()
            .expect("a wanted model call has a request");
        let tools = Arc::clone(&request.tools);
        let sink = self.sink(call, attempt);
        let trace = self.model_trace(&request);
        let models = Arc::clone(&self.world.models);
        let reply = models.call(&mut self.transcript, request, trace, sink);
        let (sidecars, clock) = (Arc::clone(&self.world.sidecars), self.world.clock);
        async move {
            let what = match reply.await {
                Ok(mut reply) => {
                    reply.verdicts = sidecars.verdicts(&tools, &reply.parts);
                    What::ModelCompleted {
                        call,
                        attempt,
                        reply,
                    }
                }
                Err(failure) => What::ModelFailed {
                    call,
                    attempt,
                    failure,
                    jitter: clock.jitter(),
                },
            };
            (key, what)
        }
        .boxed()
    }

    fn start_tool(
        &mut self,
        key: EffectKey,
        call: CallId,
        attempt: Attempt,
    ) -> BoxFuture<'static, (EffectKey, What)> {
        let request = self
            .state
            .tool_request(call)
            .expect("a wanted tool call has a request");
        let clock = self.world.clock;
        let Some(spec) = self.state.tools.get(&request.part.tool).cloned() else {
            let message = format!("there is no tool named `{}` any more", request.part.tool);
            let kind = ToolFailureKind::NotExecuted;
            let failure = ToolFailure {
                kind,
                message,
                retryable: false,
                retry_after_ms: None,
            };
            let what = What::ToolFailed {
                call,
                attempt,
                failure,
                jitter: 0,
            };
            return std::future::ready((key, what)).boxed();
        };
        let sink = self.sink(call, attempt);
        let trace = self.tool_trace(&request);
        let session = SessionRef {
            namespace: self.key.namespace().into(),
            session: self.key.id().into(),
        };
        let output = self
            .world
            .sidecars
            .call(session, request, spec, trace, sink);
        let began = tokio::time::Instant::now();
        async move {
            let what = match output.await {
                Ok(mut output) => {
                    let took = began.elapsed().as_millis();
                    output.latency_ms = u64::try_from(took).unwrap_or(u64::MAX);
                    What::ToolCompleted {
                        call,
                        attempt,
                        output: Arc::new(output),
                    }
                }
                Err(failure) => What::ToolFailed {
                    call,
                    attempt,
                    failure,
                    jitter: clock.jitter(),
                },
            };
            (key, what)
        }
        .boxed()
    }

    /// Where the effect says how far it is; the entry that licensed it is the last one.
    fn sink(&mut self, call: CallId, attempt: Attempt) -> ProgressSink {
        let anchor = self.state.seq;
        self.anchors.insert((call, attempt), anchor);
        ProgressSink::new(
            Arc::clone(&self.world.log),
            self.key.clone(),
            anchor,
            call,
            attempt,
        )
    }
}

/// Waits for a wall-clock instant, in pieces: a clock that is set forward is noticed.
async fn wait_until(clock: super::Clock, at: Timestamp) {
    const LONGEST: std::time::Duration = std::time::Duration::from_secs(60);
    loop {
        let left = clock.until(at);
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST)).await;
    }
}
