//! The prompt cache end to end: the real server against a provider that records what it is sent and counts
//! what its cache would have had.

mod prompt_cache {
    mod prefix;
    mod stage;
    mod withdrawn;
}
