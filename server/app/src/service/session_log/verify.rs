//! VerifySession: whether a session's log holds, and what can be done where it does not.
//!
//! Boundary: reads the log and the payloads beside it, as they lie in storage. Invariant: changes
//! nothing, and whatever it calls good was read and checked by it.

use futures_util::StreamExt as _;
use loopwright_core::replay::newer_kinds;
use loopwright_log::{BlobError, Corruption, Log, LogError, ReadItem, ReadMode, StreamKey};
use loopwright_proto::v1::{BlobProblem, DamagePlace, IntegrityReport, Verdict};

use super::blobs::{MOST_BLOBS, Named};
use crate::service::convert::entry;

/// Problems with payloads that a report lists.
const MOST_PROBLEMS: usize = 1_000;

/// Reads all of a session; `None` where there is none.
///
/// # Errors
/// The log or a payload cannot be read now.
pub(crate) async fn report(
    log: &dyn Log,
    key: &StreamKey,
) -> Result<Option<IntegrityReport>, LogError> {
    match log.tail(key).await {
        Ok(None) => return Ok(None),
        Ok(Some(_)) | Err(LogError::Corrupt(_) | LogError::NewerVersion { .. }) => {}
        Err(error) => return Err(error),
    }
    let mut report = IntegrityReport {
        session_id: key.id().to_owned(),
        verdict: Verdict::Good as i32,
        ..IntegrityReport::default()
    };
    let mut named = Named::default();
    let ended = read_entries(log, key, &mut report, &mut named).await?;
    if let Some(damage) = ended {
        report.verdict = Verdict::Corrupt as i32;
        report.problem = damage.reason;
    }
    look_at_file(log, key, &mut report).await?;
    read_blobs(log, key, &mut report, &named).await?;
    report.ways_out = ways_out(&report);
    Ok(Some(report))
}

/// Reads the entries; the damage that it came to, if it did.
async fn read_entries(
    log: &dyn Log,
    key: &StreamKey,
    report: &mut IntegrityReport,
    named: &mut Named,
) -> Result<Option<Corruption>, LogError> {
    let mut items = log.read(key, 0, ReadMode::ToTail);
    while let Some(item) = items.next().await {
        let record = match item {
            Ok(ReadItem::Fact(record)) => record,
            Ok(ReadItem::Progress(_) | ReadItem::CompleteThrough(_)) => continue,
            Err(LogError::Corrupt(damage)) => return Ok(Some(damage)),
            Err(error @ LogError::NewerVersion { .. }) => {
                newer(report, error.to_string());
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if named.note(&record).is_err() && report.problem.is_empty() {
            report.problem = format!("more than {MOST_BLOBS} payloads; the others are not checked");
        }
        report.good_through = record.seq;
        report.good_bytes += record.stored_bytes();
        match entry::parse(&record) {
            // Whole, so not damaged: this version cannot read it.
            Err(unreadable) => newer(report, unreadable.to_string()),
            Ok(entry) => {
                if let Some(kind) = newer_kinds(&entry).next() {
                    let seq = record.seq;
                    newer(
                        report,
                        format!("seq {seq} holds an event of the kind {kind}"),
                    );
                }
            }
        }
    }
    Ok(None)
}

fn newer(report: &mut IntegrityReport, problem: String) {
    if report.verdict == Verdict::Good as i32 {
        report.verdict = Verdict::Newer as i32;
        report.problem = problem;
    }
}

/// Where the damage lies, and what lies behind it, where the backend can tell. The file may hold more
/// than a reader is given.
async fn look_at_file(
    log: &dyn Log,
    key: &StreamKey,
    report: &mut IntegrityReport,
) -> Result<(), LogError> {
    let Some(verdict) = log.inspect(key).await? else {
        return Ok(());
    };
    if verdict.fault.is_some() || verdict.condemned.is_some() {
        report.verdict = Verdict::Corrupt as i32;
    }
    if report.verdict() != Verdict::Corrupt {
        let torn: u64 = verdict.torn.iter().map(|aside| aside.bytes).sum();
        if torn > 0 && report.problem.is_empty() {
            report.problem = format!(
                "{torn} bytes of a write that was never acknowledged; the next start sets them aside"
            );
        }
        return Ok(());
    }
    report.entries_after = verdict.good_after_fault;
    report.last_seq_after = verdict.last_after_fault;
    let file = verdict.path.to_string_lossy().into_owned();
    if let Some(found) = verdict.fault {
        report.problem = format!("where seq {} was due: {}", found.seq, found.fault);
        let (line, byte) = (found.line, found.offset);
        report.place = Some(DamagePlace { file, line, byte });
    } else {
        // Nothing is wrong with what is there: what followed it is gone.
        if report.problem.is_empty() {
            report.problem = verdict.condemned.unwrap_or_default();
        }
        report.place = Some(DamagePlace {
            file,
            line: report.good_through + 1,
            byte: verdict.file_bytes,
        });
    }
    Ok(())
}

async fn read_blobs(
    log: &dyn Log,
    key: &StreamKey,
    report: &mut IntegrityReport,
    named: &Named,
) -> Result<(), LogError> {
    report.blobs = named.len() as u64;
    for (blob, seq) in named.iter() {
        let problem = match log.get_blob(key, &blob).await {
            Ok(_) => continue,
            Err(BlobError::Unavailable { reason }) => return Err(LogError::Unavailable { reason }),
            Err(error) => error.to_string(),
        };
        if report.verdict == Verdict::Good as i32 {
            report.verdict = Verdict::BlobsMissing as i32;
            report.problem.clone_from(&problem);
        }
        if report.blob_problems.len() < MOST_PROBLEMS {
            report.blob_problems.push(BlobProblem {
                sha256: blob.sha256,
                bytes: blob.bytes,
                seq,
                problem,
            });
        }
    }
    Ok(())
}

fn ways_out(report: &IntegrityReport) -> Vec<String> {
    let (id, good) = (&report.session_id, report.good_through);
    match report.verdict() {
        Verdict::Good | Verdict::Unspecified => Vec::new(),
        Verdict::Newer => vec!["upgrade this server; nothing is damaged".to_owned()],
        Verdict::BlobsMissing => vec![
            "the session goes on as it is: the model was never shown these payloads".to_owned(),
            format!("`loopwright log export {id}` keeps all that is left"),
        ],
        Verdict::Corrupt if good == 0 => vec![
            "restore the session's folder from a backup, with the server stopped".to_owned(),
            format!("`loopwright log rm {id}` deletes it: nothing of it can be read"),
        ],
        Verdict::Corrupt => vec![
            "restore the session's folder from a backup, with the server stopped".to_owned(),
            format!("`loopwright log show {id}` and `log export {id}` read entries 1 to {good}"),
            format!("`loopwright log fork {id}` goes on from seq {good} in a new session"),
            format!(
                "`loopwright log repair {id}`, with the server stopped, cuts the session back to seq \
                 {good}; what is cut off is kept in quarantine"
            ),
        ],
    }
}
