//! Clients: they send commands, repeat those that nobody answered, and repeat some that were.

use std::sync::Arc;

use loopwright_core::{
    What,
    input::{Command, SendMessage, StartLoop},
    message::Part,
};

use super::{Happening, Request, World, driver::Reply};
use crate::simulator::{
    oracle::{Violation, check},
    plan::{Feature, Order},
};

impl World {
    pub(super) fn draw_requests(&mut self) {
        let orders = self.plan.orders.clone();
        for (number, (after, order)) in orders.into_iter().enumerate() {
            let prefix = self.prefix;
            let id = format!("{prefix}r{number}");
            let by = Command {
                request_id: id.clone(),
                principal: "ann".to_owned(),
            };
            let parts = Arc::new(vec![Part::Text(format!("m{prefix}{number}"))]);
            let what = match order {
                Order::Start => What::StartLoop(StartLoop {
                    by,
                    parts,
                    agent: None,
                    limits: None,
                    traceparent: None,
                }),
                Order::Send(mode) => What::SendMessage(SendMessage {
                    by,
                    parts,
                    mode,
                    guard: None,
                    agent: None,
                    limits: None,
                    traceparent: None,
                }),
                Order::Cancel => What::CancelLoop {
                    by,
                    guard: None,
                    reason: format!("x{prefix}{number}"),
                },
                Order::Pause => What::PauseLoop { by, guard: None },
                Order::Resume => What::ResumeLoop { by, guard: None },
                Order::Move(moved) => What::UpdateLimits {
                    by,
                    guard: None,
                    change: Box::new(moved.into()),
                },
            };
            self.requests.push(Request {
                id,
                what,
                answer: None,
                done: false,
            });
            self.put(after, Happening::Send(number));
        }
    }

    /// Sends a request to whoever claims to drive the session.
    pub(super) fn send(&mut self, number: usize) -> Result<(), Violation> {
        let alive: Vec<usize> = (0..self.drivers.len())
            .filter(|&id| self.drivers[id].alive)
            .collect();
        if alive.is_empty() {
            // Without an answer somebody will drive the session; a mere repeat wakes nobody.
            if !self.requests[number].done {
                self.put(7, Happening::Send(number));
            }
            return Ok(());
        }
        let id = self.rng.pick(&alive);
        let what = self.requests[number].what.clone();
        match self.handle(id, what)? {
            Reply::Done => self.answered(number, id),
            Reply::Rejected(rejection) => {
                let request = &mut self.requests[number];
                request.done = true;
                // A driver that lost the session may not know of an answer that others gave.
                let knows = request
                    .answer
                    .is_some_and(|answer| self.drivers[id].state.seq >= answer.seq);
                let detail = || format!("{} was accepted, then {rejection}", request.id);
                check(!knows, "answer_stays", detail)
            }
            Reply::Died => {
                self.put(9, Happening::Send(number));
                Ok(())
            }
        }
    }

    fn answered(&mut self, number: usize, id: usize) -> Result<(), Violation> {
        let request = &mut self.requests[number];
        let Some(answer) = self.drivers[id].state.answer(&request.id) else {
            let detail = format!("{} was accepted without an answer", request.id);
            return Err(Violation::new("answer_stays", detail));
        };
        let first = *request.answer.get_or_insert(answer);
        request.done = true;
        check(first == answer, "answer_stays", || {
            format!("{} was answered {first:?}, then {answer:?}", request.id)
        })?;
        let again = self.rng.chance(25);
        if again && self.features.has(Feature::Duplicate) {
            let after = self.rng.between(1, 60);
            self.put(after, Happening::Send(number));
        }
        Ok(())
    }

    /// What was acknowledged is in the log, once, where its answer says.
    pub(super) fn judge_requests(&self) -> Result<(), Violation> {
        for request in &self.requests {
            let asked = |by: &Command| by.request_id == request.id;
            let at: Vec<u64> = (1..)
                .zip(&self.records)
                .filter(|(_, record)| record.entry.cause.command().is_some_and(asked))
                .map(|(seq, _)| seq)
                .collect();
            if let Some(answer) = request.answer
                && let Some(record) = self
                    .records
                    .get(usize::try_from(answer.seq - 1).expect("small"))
            {
                self.judge_answer(request, &record.entry)?;
            }
            let kept = match request.answer {
                Some(answer) => at == [answer.seq],
                None => at.len() <= 1 && request.done,
            };
            check(kept, "acknowledged_once", || {
                format!(
                    "{} answered {:?}, logged at {at:?}",
                    request.id, request.answer
                )
            })?;
        }
        Ok(())
    }
}
