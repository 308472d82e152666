//! The oracle of spoilt logs: what must be left, and that it was told.
//!
//! Invariant: a stream reads as exactly the prefix that is due, and damage that is not one of the two
//! that nothing can tell from a loss of power is named.

use std::collections::BTreeMap;

use super::{
    image::Truth,
    look::{End, Seen},
};

/// What a log must be after it was spoilt.
#[derive(Clone, Debug, Default)]
pub(super) struct Due<'a> {
    /// The streams that are to be called damaged.
    pub(super) damaged: Vec<&'a str>,
    /// Records that each stream must read as, where that is not all of them.
    pub(super) kept: BTreeMap<&'a str, usize>,
    /// Something must be reported, though no stream is damaged.
    pub(super) reported: bool,
}

impl Due<'_> {
    /// Nothing wrong, or what is.
    pub(super) fn check(&self, truth: &Truth, seen: &Seen) -> Result<(), String> {
        for (stream, read) in &seen.streams {
            let all = truth.bodies(stream, usize::MAX);
            let due = &all[..self.kept.get(stream.as_str()).copied().unwrap_or(all.len())];
            if read.bodies != due {
                let (read, due, of) = (read.bodies.len(), due.len(), all.len());
                return Err(format!(
                    "{stream} reads as {read} records, {due} of {of} were due, or with other content"
                ));
            }
            // A start that was refused named the place, and goes on when a person accepts the loss.
            let is_damaged = self.damaged.contains(&stream.as_str());
            match read.end {
                End::Whole if is_damaged && seen.refused.is_none() => {
                    return Err(format!(
                        "{stream} is damaged, and reads as if it were whole"
                    ));
                }
                End::Corrupt(good_through) if good_through != due.len() as u64 => {
                    return Err(format!("{stream} is called good through {good_through}"));
                }
                End::Corrupt(_) if !is_damaged => {
                    return Err(format!("{stream} is called damaged and is not"));
                }
                End::Whole | End::Corrupt(_) => {}
            }
        }
        let of_ours = |id: &str| seen.streams.contains_key(id) && !self.damaged.contains(&id);
        let mut named = seen.report.corrupt.iter();
        if let Some(other) = named.find(|one| of_ours(one.stream.id())) {
            return Err(format!("the start calls {} damaged", other.stream));
        }
        let is_told = seen.refused.is_some() || !seen.report.is_clean();
        if self.reported && !is_told {
            return Err("nothing was reported".to_owned());
        }
        Ok(())
    }
}

/// The oracle must fail for each lie that it is there to catch.
mod tests {
    use loopwright_log::{Corruption, RecoveryReport};

    use super::{
        super::{
            image::{Known, key},
            look::Read,
        },
        *,
    };

    fn truth() -> Truth {
        let record = |(stream, seq): (&str, usize)| Known {
            stream: stream.to_owned(),
            seq,
            body: format!("{stream}-{seq}"),
        };
        Truth(
            [("s0", 1), ("s1", 1), ("s0", 2), ("s1", 2)]
                .map(record)
                .to_vec(),
        )
    }

    /// What a sound log would be seen as, with `s0` damaged after its first record.
    fn sound() -> (Seen, Due<'static>) {
        let read = |bodies: &[&str], end| Read {
            bodies: bodies.iter().map(|body| (*body).to_owned()).collect(),
            end,
        };
        let corruption = Corruption {
            stream: key("s0"),
            good_through: 1,
            reason: "a test".to_owned(),
        };
        let seen = Seen {
            refused: None,
            report: RecoveryReport {
                corrupt: vec![corruption],
                ..RecoveryReport::default()
            },
            streams: [
                ("s0".to_owned(), read(&["s0-1"], End::Corrupt(1))),
                ("s1".to_owned(), read(&["s1-1", "s1-2"], End::Whole)),
            ]
            .into(),
        };
        let due = Due {
            damaged: vec!["s0"],
            kept: [("s0", 1)].into(),
            reported: true,
        };
        (seen, due)
    }

    #[test]
    fn a_sound_log_passes() {
        let (seen, due) = sound();
        assert_eq!(due.check(&truth(), &seen), Ok(()));
    }

    #[test]
    fn every_lie_is_caught() {
        type Lie = fn(&mut Seen);
        fn read<'a>(seen: &'a mut Seen, stream: &str) -> &'a mut Read {
            seen.streams.get_mut(stream).expect("it is there")
        }
        let lies: [(&str, Lie); 8] = [
            ("a damaged record is shown", |seen| {
                read(seen, "s0").bodies.push("s0-2".to_owned());
            }),
            ("a good record is hidden", |seen| {
                read(seen, "s0").bodies.clear()
            }),
            ("another stream suffers", |seen| {
                read(seen, "s1").bodies.pop();
            }),
            ("another content", |seen| {
                read(seen, "s1").bodies[0] = "s1-9".to_owned()
            }),
            ("twice", |seen| {
                let again = read(seen, "s1").bodies[1].clone();
                read(seen, "s1").bodies.push(again);
            }),
            ("damage passed over in silence", |seen| {
                read(seen, "s0").end = End::Whole
            }),
            ("a wrong place", |seen| {
                read(seen, "s0").end = End::Corrupt(0)
            }),
            ("a sound stream blamed", |seen| {
                read(seen, "s1").end = End::Corrupt(2)
            }),
        ];
        for (lie, tell) in lies {
            let (mut seen, due) = sound();
            tell(&mut seen);
            assert!(due.check(&truth(), &seen).is_err(), "not caught: {lie}");
        }
        let (mut seen, mut due) = sound();
        seen.report = RecoveryReport::default();
        assert!(
            due.check(&truth(), &seen).is_err(),
            "not caught: an empty report"
        );
        due = Due {
            damaged: Vec::new(),
            ..due
        };
        assert!(
            due.check(&truth(), &sound().0).is_err(),
            "not caught: damage out of nothing"
        );
    }
}
