//! How a conversation is kept within the model's window: what a request asks for, what the log says.

use loopwright_core::{
    context::{CompactionTrigger, ContextTerms, RecapFallback},
    event::ContextCompacted,
};
use loopwright_proto::v1;

use super::fields::{Violations, shown};
use crate::config::{Config, ContextConfig, RecapBy};

/// Characters of a model's name.
const MAX_NAME: usize = 200;

/// Tokens of the window that are used where nobody says: less where the model has less.
const DEFAULT_WINDOW: u64 = 180_000;
/// The smallest window that a conversation fits.
const MIN_WINDOW: u64 = 1_000;

/// The terms that a request asks for, over the configured ones.
pub fn resolve(
    asked: Option<&v1::ContextOptions>,
    config: &Config,
    all: &mut Violations,
) -> ContextTerms {
    let none = v1::ContextOptions::default();
    let (asked, configured) = (asked.unwrap_or(&none), &config.context);
    let window = asked.max_tokens.or(configured.max_tokens);
    let max_tokens = window.unwrap_or(DEFAULT_WINDOW);
    if max_tokens < MIN_WINDOW {
        let problem = format!("{max_tokens} is less than {MIN_WINDOW}, which no conversation fits");
        all.add("agent.context.max_tokens", problem);
    }
    let check_every = asked.compaction_check_every;
    if check_every == Some(0) {
        let problem = "0 is no cadence; send 1 for every step";
        all.add("agent.context.compaction_check_every", problem);
    }
    let threshold = asked
        .compaction_threshold
        .unwrap_or(configured.compaction_threshold);
    let target = asked
        .compaction_target
        .unwrap_or(configured.compaction_target);
    ContextTerms {
        max_tokens,
        threshold_permille: permille(threshold, 0.1, "compaction_threshold", all),
        check_every: check_every
            .unwrap_or(configured.compaction_check_every)
            .max(1),
        target_permille: permille(target, 0.05, "compaction_target", all),
        min_recent_messages: asked
            .min_recent_messages
            .unwrap_or(configured.min_recent_messages),
        recap_by_model: recap_by_model(asked, configured, all),
    }
}

/// The terms on the wire.
#[must_use]
pub fn to_wire(terms: &ContextTerms) -> v1::ContextOptions {
    v1::ContextOptions {
        max_tokens: Some(terms.max_tokens),
        compaction_threshold: Some(f64::from(terms.threshold_permille) / 1_000.0),
        compaction_check_every: Some(terms.check_every),
        compaction_target: Some(f64::from(terms.target_permille) / 1_000.0),
        min_recent_messages: Some(terms.min_recent_messages),
        max_tool_output_chars: None,
        recap: match terms.recap_by_model {
            Some(_) => v1::RecapKind::Model,
            None => v1::RecapKind::Heuristic,
        } as i32,
        recap_model: terms.recap_by_model.clone().unwrap_or_default(),
    }
}

/// A compaction on the wire.
#[must_use]
pub fn compacted(e: &ContextCompacted) -> v1::ContextCompacted {
    let kind = if e.dropped > 0 {
        v1::CompactionKind::TurnsDropped
    } else {
        v1::CompactionKind::ResultsShrunk
    };
    let trigger = match e.trigger {
        CompactionTrigger::Threshold => v1::CompactionTrigger::Threshold,
        CompactionTrigger::Ceiling => v1::CompactionTrigger::Ceiling,
        CompactionTrigger::Provider => v1::CompactionTrigger::Provider,
    };
    v1::ContextCompacted {
        kind: kind.into(),
        trigger: trigger.into(),
        from_seq: e.from_seq,
        through_seq: e.through_seq,
        tokens_before: e.tokens_before,
        tokens_after: e.tokens_after,
        messages_dropped: e.dropped,
        recap: e
            .recap
            .as_ref()
            .map(|recap| recap.text())
            .unwrap_or_default(),
        recap_by_model: e.by_model,
        target_met: e.target_met,
        recap_fallback: e.fallback.map_or(v1::RecapFallback::Unspecified, fallback) as i32,
    }
}

fn fallback(why: RecapFallback) -> v1::RecapFallback {
    match why {
        RecapFallback::Budget => v1::RecapFallback::Budget,
        RecapFallback::Failed => v1::RecapFallback::Failed,
        RecapFallback::Cut => v1::RecapFallback::Cut,
        RecapFallback::Empty => v1::RecapFallback::Empty,
        RecapFallback::TooLarge => v1::RecapFallback::TooLarge,
        RecapFallback::Interrupted => v1::RecapFallback::Interrupted,
    }
}

/// The model that writes recaps: `None` where none does, empty for the agent's own.
fn recap_by_model(
    asked: &v1::ContextOptions,
    configured: &ContextConfig,
    all: &mut Violations,
) -> Option<String> {
    let by_model = match v1::RecapKind::try_from(asked.recap) {
        Ok(v1::RecapKind::Unspecified) => configured.recap == RecapBy::Model,
        Ok(v1::RecapKind::Heuristic) => false,
        Ok(v1::RecapKind::Model) => true,
        Err(_) => {
            let problem = format!("{} is no value of this enum; leave it out", asked.recap);
            all.add("agent.context.recap", problem);
            false
        }
    };
    let model = &asked.recap_model;
    if !by_model && !model.is_empty() {
        let problem = "names a model that would write nothing; set agent.context.recap to MODEL";
        all.add("agent.context.recap_model", problem);
    }
    if model.chars().count() > MAX_NAME {
        let problem = format!("{} is longer than {MAX_NAME} characters", shown(model));
        all.add("agent.context.recap_model", problem);
    }
    let named = Some(model.clone()).filter(|model| !model.is_empty());
    let named = named.or_else(|| configured.recap_model.clone());
    by_model.then(|| named.unwrap_or_default())
}

fn permille(share: f64, least: f64, field: &str, all: &mut Violations) -> u32 {
    if !(least..=1.0).contains(&share) {
        let problem = format!("{share} is not a share from {least} to 1");
        all.add(format!("agent.context.{field}"), problem);
        return 500;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 0 to 1,000"
    )]
    let permille = (share * 1_000.0).round() as u32;
    permille
}
