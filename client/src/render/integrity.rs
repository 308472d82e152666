//! What a verification found, for a tired person: what is wrong, where, what is left, what to do.

use loopwright_proto::v1::{IntegrityReport, Verdict};

/// Lost payloads that are named one by one.
const NAMED: usize = 10;

/// The lines of `log verify`.
#[must_use]
pub fn integrity_lines(report: &IntegrityReport) -> Vec<String> {
    let good = report.good_through;
    let size = bytes_words(report.good_bytes);
    let readable = match good {
        0 => "nothing of it can be read".to_owned(),
        1 => format!("entry 1 can be read ({size})"),
        _ => format!("entries 1 to {good} can be read ({size})"),
    };
    let id = &report.session_id;
    let mut lines = Vec::new();
    match report.verdict() {
        Verdict::Good => {
            let blobs = match report.blobs {
                0 => String::new(),
                n => format!(", {n} payloads"),
            };
            lines.push(format!("{id}: good: {good} entries, {size}{blobs}"));
            if !report.problem.is_empty() {
                lines.push(format!("  note:     {}", report.problem));
            }
            return lines;
        }
        Verdict::BlobsMissing => lines.push(format!("{id}: payloads are missing or damaged")),
        Verdict::Corrupt => lines.push(format!("{id}: DAMAGED")),
        Verdict::Newer => lines.push(format!("{id}: written by a newer version")),
        Verdict::Unspecified => lines.push(format!("{id}: unknown to this version of the client")),
    }
    if !report.problem.is_empty() {
        lines.push(format!("  what:     {}", report.problem));
    }
    if let Some(place) = &report.place {
        lines.push(format!(
            "  where:    {}, line {}, byte {}",
            place.file, place.line, place.byte
        ));
    }
    lines.push(format!("  readable: {readable}"));
    if report.entries_after > 0 {
        lines.push(format!(
            "  behind:   {} entries look good behind the damage, up to seq {}; nothing vouches for them",
            report.entries_after, report.last_seq_after
        ));
    }
    for blob in report.blob_problems.iter().take(NAMED) {
        lines.push(format!(
            "  payload:  {} ({}, entry {}): {}",
            blob.sha256,
            bytes_words(blob.bytes),
            blob.seq,
            blob.problem
        ));
    }
    let more = report.blob_problems.len().saturating_sub(NAMED);
    if more > 0 {
        lines.push(format!("  payload:  and {more} more; --json names them"));
    }
    for (at, way) in report.ways_out.iter().enumerate() {
        let lead = if at == 0 { "ways out:" } else { "" };
        lines.push(format!("  {lead:<9} {way}"));
    }
    lines
}

/// A size as people read it.
#[must_use]
pub fn bytes_words(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    for (unit, size) in UNITS {
        if bytes >= size {
            let tenths = u128::from(bytes) * 10 / u128::from(size);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        let all = [
            0,
            1023,
            1024,
            1536,
            5 << 20,
            (3 << 30) + (1 << 29),
            u64::MAX,
        ];
        let words = all.map(bytes_words);
        let expected = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.5 GiB"];
        assert_eq!(words[..6], expected);
        assert_eq!(words[6], "17179869183.9 GiB");
    }
}
