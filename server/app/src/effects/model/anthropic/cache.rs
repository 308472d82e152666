//! Where prefixes of a prompt are worth a cache breakpoint.
//!
//! Boundary: what the provider documents, and nothing of the conversation. A request has four
//! breakpoints at most: the last tool, the system block, and two that roll on the last turns, one of
//! which is where the call before ended: a breakpoint finds an older prefix only within 20 blocks, and
//! a step of many tools has more.
//! Source: platform.claude.com/docs/en/build-with-claude/prompt-caching and the models' own pages, read
//! on 2026-11-22.

use crate::{config::CacheTtl, effects::model::transcript::Breakpoints};

/// Tokens of the shortest prefix that is kept, by how a model's id begins; the longest match counts.
const LEAST_TOKENS: [(&str, usize); 15] = [
    ("claude-3-5-haiku", 2_048),
    ("claude-3-7-sonnet", 1_024),
    ("claude-3-haiku", 2_048),
    ("claude-haiku-4-5", 4_096),
    ("claude-mythos-preview", 2_048),
    ("claude-opus-4-0", 1_024),
    ("claude-opus-4-1", 1_024),
    ("claude-opus-4-2", 1_024),
    ("claude-opus-4-5", 4_096),
    ("claude-opus-4-6", 4_096),
    ("claude-opus-4-7", 2_048),
    ("claude-opus-4-8", 1_024),
    ("claude-sonnet-4", 1_024),
    ("claude-sonnet-5", 1_024),
    ("claude-sonnet-5-5", 512),
];
/// The same for every other model: the least of any. A breakpoint that is ignored costs nothing, one
/// that is missing does.
const LEAST_OF_ANY: usize = 512;
/// What a prompt's tokens are taken for.
const BYTES_PER_TOKEN: usize = 4;

/// How a model of this id is asked to keep prefixes.
pub(in crate::effects::model) fn breakpoints(id: &str, ttl: CacheTtl) -> Breakpoints {
    Breakpoints {
        member: match ttl {
            CacheTtl::FiveMinutes => ",\"cache_control\":{\"type\":\"ephemeral\"}",
            CacheTtl::OneHour => ",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}",
        },
        least_bytes: least_tokens(id) * BYTES_PER_TOKEN,
    }
}

fn least_tokens(id: &str) -> usize {
    // A gateway's name of a model has the provider before it.
    let id = id.rsplit('/').next().unwrap_or(id);
    let fitting = LEAST_TOKENS
        .iter()
        .filter(|(prefix, _)| id.starts_with(prefix));
    fitting
        .max_by_key(|(prefix, _)| prefix.len())
        .map_or(LEAST_OF_ANY, |(_, least)| *least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_has_its_own_shortest_prefix() {
        for (id, tokens) in [
            ("claude-sonnet-5-5", 512),
            ("claude-sonnet-5", 1_024),
            ("claude-sonnet-4-5-20250929", 1_024),
            ("claude-opus-5-5", 512),
            ("claude-opus-4-20250514", 1_024),
            ("claude-opus-4-7", 2_048),
            ("claude-opus-4-6", 4_096),
            ("claude-haiku-4-5-20251001", 4_096),
            ("claude-haiku-5-5", 512),
            ("anthropic/claude-haiku-4-5", 4_096),
            ("something-else", 512),
        ] {
            let found = breakpoints(id, CacheTtl::FiveMinutes).least_bytes;
            assert_eq!(found, 4 * tokens, "{id}");
        }
    }
}
