//! The session's readable file, against the log as clients read it.

use std::path::Path;

use anyhow::{Context as _, Result};
use loopwright_proto::v1::Entry;
use loopwright_tests::rig::Outcome;
use serde_json::Value;

/// Checks the file of one session after the server has ended in order.
pub(super) fn check(report: &mut Outcome, dir: &Path, session: &str, log: &[Entry]) -> Result<()> {
    let path = dir
        .join("log/default/session")
        .join(session)
        .join("log.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut before = "00000000".to_owned();
    let mut lines = 0;
    for line in text.lines() {
        let (covered, tail) = line
            .rsplit_once(",\"crc\":\"")
            .with_context(|| line.to_owned())?;
        let crc = tail.trim_end_matches("\"}");
        let is_sound = crc == format!("{:08x}", crc32c::crc32c(covered.as_bytes()));
        let record: Value = serde_json::from_str(line)?;
        let follows = record["prev"] == before.as_str();
        let is_logged = log.get(lines).is_none_or(|entry| {
            record["seq"] == entry.seq
                && record["epoch"] == entry.epoch
                && record["events"].as_array().map(Vec::len) == Some(entry.events.len())
        });
        lines += 1;
        report.expect(is_sound && follows && is_logged, || {
            format!("{session}: line {lines} of its file does not fit: {line}")
        });
        before = crc.to_owned();
    }
    if lines < log.len() {
        let words = format!(
            "{session}: {lines} lines in the file, {} in the log",
            log.len()
        );
        report.wrong_as("lost", words);
    }
    Ok(())
}
