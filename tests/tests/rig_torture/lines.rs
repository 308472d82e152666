//! Ends that are cut at every byte or padded, and lines that are deleted, doubled and swapped.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use loopwright_log::verify_stream;
use loopwright_tests::rig::Outcome;

use super::{
    bits::runtime,
    image::{self, Image, Lines, RECORDS, Truth},
    judge::Due,
    look,
};

/// Records at the end that are cut at every byte.
const CUT: usize = 3;
/// How many zeros a file system may leave behind the last record.
const PADDINGS: [usize; 6] = [1, 2, 511, 512, 4096, 65_536];

/// What is done to a line.
#[derive(Clone, Copy, Debug)]
enum Change {
    Deleted,
    Doubled,
    Swapped,
}

/// Cuts, padding, and changes of whole lines, of the journal and of a session's file.
pub(super) fn run(seed: u64) -> Result<Outcome> {
    let mut outcome = Outcome::new("torture", seed);
    let runtime = runtime()?;
    runtime.block_on(async {
        let (journal, truth) = image::journal().await?;
        cut_journal(&journal, &truth, &mut outcome).await?;
        pad_journal(&journal, &truth, &mut outcome).await?;
        change_journal(&journal, &truth, &mut outcome).await?;
        let (closed, truth) = image::closed().await?;
        cut_file(&closed, &truth, &mut outcome).await?;
        change_file(&closed, &truth, &mut outcome).await
    })?;
    Ok(outcome)
}

/// A cut journal keeps the records before the cut; what is left of one is set aside, and every stream
/// goes on. That whole records are gone shows against a cursor alone.
async fn cut_journal(image: &Image, truth: &Truth, outcome: &mut Outcome) -> Result<()> {
    let content = image.file(&image::segment())?;
    let lines = Lines::of(content).ranges;
    for cut in lines[RECORDS - CUT].start..content.len() {
        outcome.count("cuts", 1);
        let disk = image
            .with(&image::segment(), content[..cut].to_vec())
            .disk()?;
        let whole = lines.iter().filter(|range| range.end <= cut).count();
        let in_record = lines.get(whole).is_some_and(|range| range.start < cut);
        let due = Due {
            kept: kept(truth, whole),
            reported: in_record,
            ..Due::default()
        };
        let seen = look::look(&disk, &truth.streams()).await?;
        let done = due.check(truth, &seen).map_err(anyhow::Error::msg);
        outcome.take(&format!("the journal cut at {cut}"), done);
        let done = look::goes_on(&disk, &due.kept).await;
        outcome.take(&format!("the journal cut at {cut}"), done);
    }
    Ok(())
}

/// Zeros after the last record are no record, and cost none.
async fn pad_journal(image: &Image, truth: &Truth, outcome: &mut Outcome) -> Result<()> {
    let content = image.file(&image::segment())?;
    let last = Lines::of(content).ranges[RECORDS - 1].clone();
    // After the last record, and in its place.
    for (kept_bytes, whole) in [(content.len(), RECORDS), (last.start, RECORDS - 1)] {
        for padding in PADDINGS {
            outcome.count("paddings", 1);
            let mut padded = content[..kept_bytes].to_vec();
            padded.resize(kept_bytes + padding, 0);
            let disk = image.with(&image::segment(), padded).disk()?;
            let due = Due {
                kept: kept(truth, whole),
                reported: true,
                ..Due::default()
            };
            let seen = look::look(&disk, &truth.streams()).await?;
            let name = format!("{padding} zeros after {whole} records");
            outcome.take(&name, due.check(truth, &seen).map_err(anyhow::Error::msg));
            outcome.take(&name, look::goes_on(&disk, &due.kept).await);
        }
    }
    Ok(())
}

/// A journal with a line deleted, doubled or swapped: a stream that has a gap is damaged from there on;
/// what changes no stream changes nothing.
async fn change_journal(image: &Image, truth: &Truth, outcome: &mut Outcome) -> Result<()> {
    let content = image.file(&image::segment())?;
    for change in [Change::Deleted, Change::Doubled, Change::Swapped] {
        for line in 0..RECORDS {
            let Some(order) = change.order(line) else {
                continue;
            };
            outcome.count("line_changes", 1);
            let disk = image
                .with(&image::segment(), ordered(content, &order))
                .disk()?;
            let seen = look::look(&disk, &truth.streams()).await?;
            let due = due_of_journal(truth, &order);
            let done = due.check(truth, &seen).map_err(anyhow::Error::msg);
            outcome.take(&format!("line {line} of the journal {change:?}"), done);
        }
    }
    Ok(())
}

/// By what the journal says in this order: the first gap in a stream's seqs damages it, unless nothing
/// of the stream comes after.
fn due_of_journal<'a>(truth: &'a Truth, order: &[usize]) -> Due<'a> {
    let mut due = Due::default();
    for stream in truth.streams() {
        let known: Vec<_> = truth
            .0
            .iter()
            .filter(|known| known.stream == stream)
            .collect();
        let name = known[0].stream.as_str();
        let mut end = 0;
        let in_order = order.iter().map(|n| &truth.0[*n]);
        for record in in_order.filter(|known| known.stream == stream) {
            if record.seq == end + 1 {
                end += 1;
            } else if record.seq > end + 1 {
                due.damaged.push(name);
                due.reported = true;
                break;
            }
        }
        if end < known.len() {
            due.kept.insert(name, end);
        }
    }
    due
}

/// A file that is shorter than its checkpoint is damaged, wherever it was cut.
async fn cut_file(image: &Image, truth: &Truth, outcome: &mut Outcome) -> Result<()> {
    let content = image.file(&image::file("s0"))?;
    let lines = Lines::of(content).ranges;
    for cut in lines[RECORDS - CUT].start..content.len() {
        outcome.count("cuts", 1);
        let disk = image
            .with(&image::file("s0"), content[..cut].to_vec())
            .disk()?;
        let whole = lines.iter().filter(|range| range.end <= cut).count();
        let due = Due {
            damaged: vec!["s0"],
            kept: [("s0", whole)].into(),
            reported: true,
        };
        let seen = look::look(&disk, &truth.streams()).await?;
        let done = due.check(truth, &seen).map_err(anyhow::Error::msg);
        outcome.take(&format!("the file cut at {cut}"), done);
    }
    Ok(())
}

/// A file with a line deleted, doubled or swapped: verification and readers stop there.
async fn change_file(image: &Image, truth: &Truth, outcome: &mut Outcome) -> Result<()> {
    let content = image.file(&image::file("s0"))?;
    for change in [Change::Deleted, Change::Doubled, Change::Swapped] {
        for line in 0..RECORDS {
            let Some(order) = change.order(line) else {
                continue;
            };
            outcome.count("line_changes", 1);
            let disk = image
                .with(&image::file("s0"), ordered(content, &order))
                .disk()?;
            let whole = order.iter().zip(0..).take_while(|(a, b)| *a == b).count();
            let name = format!("line {line} of the file {change:?}");
            let verdict = verify_stream(&disk, Path::new(image::DIR), &image::key("s0"))?;
            let seen = look::look(&disk, &truth.streams()).await?;
            let mut due = Due {
                damaged: vec!["s0"],
                kept: [("s0", whole)].into(),
                reported: false,
            };
            if whole == RECORDS {
                // What lies above the checkpoint, and the journal does not have, is set aside.
                (due.damaged, due.reported) = (Vec::new(), true);
            }
            let done = due.check(truth, &seen).map_err(anyhow::Error::msg);
            outcome.take(&name, done);
            let good_through = verdict.good_through;
            outcome.expect(!verdict.is_good() && good_through == whole as u64, || {
                format!("{name}: verification finds {verdict:?}")
            });
        }
    }
    Ok(())
}

impl Change {
    /// The order in which the lines stand afterwards.
    fn order(self, line: usize) -> Option<Vec<usize>> {
        let mut order: Vec<usize> = (0..RECORDS).collect();
        match self {
            Change::Deleted => {
                order.remove(line);
            }
            Change::Doubled => order.insert(line, line),
            Change::Swapped if line + 1 < RECORDS => order.swap(line, line + 1),
            Change::Swapped => return None,
        }
        Some(order)
    }
}

/// The lines in another order, each with the barrier that stands before it.
fn ordered(content: &[u8], order: &[usize]) -> Vec<u8> {
    let lines = Lines::of(content).ranges;
    let with_barrier = |n: usize| {
        let start = n.checked_sub(1).map_or(0, |before| lines[before].end);
        &content[start..lines[n].end]
    };
    order
        .iter()
        .flat_map(|n| with_barrier(*n))
        .copied()
        .collect()
}

fn kept(truth: &Truth, whole: usize) -> BTreeMap<&str, usize> {
    let streams = truth.0.iter().map(|known| known.stream.as_str());
    streams
        .map(|stream| (stream, truth.bodies(stream, whole).len()))
        .collect()
}

#[test]
fn what_is_due_of_a_journal_follows_from_its_order() -> Result<()> {
    let truth = runtime()?.block_on(image::journal())?.1;
    let order = |change: Change, line| change.order(line).context("a change");
    let gone = due_of_journal(&truth, &order(Change::Deleted, 4)?).kept;
    assert_eq!(gone, [("s0", 1)].into());
    let last = due_of_journal(&truth, &order(Change::Deleted, RECORDS - 1)?);
    assert_eq!((last.damaged.len(), last.kept), (0, [("s3", 49)].into()));
    let twice = due_of_journal(&truth, &order(Change::Doubled, 4)?);
    assert_eq!((twice.damaged.len(), twice.kept), (0, BTreeMap::new()));
    Ok(())
}
