//! The name that somebody most likely meant.

/// The candidate nearest to `name` by edits, if one is near enough to be worth a mention.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let cost = |candidate: &str| {
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let whole = strsim::damerau_levenshtein(name, candidate);
        // A right name in the wrong section is nearer than any misspelling of the whole path.
        if last(name) == last(candidate) {
            whole.min(2)
        } else {
            whole
        }
    };
    let within = 2.max(name.len() / 3);
    candidates
        .map(|candidate| {
            (
                cost(candidate),
                strsim::damerau_levenshtein(name, candidate),
                candidate,
            )
        })
        .filter(|(cost, _, _)| *cost <= within)
        .min()
        .map(|(_, _, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_misspellings_and_wrong_sections_and_leaves_strangers_alone() {
        let keys = [
            "loop.max_steps",
            "loop.deadline",
            "limits.max_steps",
            "server.listen",
        ];
        let find = |name| nearest(name, keys.into_iter());
        assert_eq!(find("loop.max_stpes"), Some("loop.max_steps"));
        assert_eq!(find("lop.max_steps"), Some("loop.max_steps"));
        assert_eq!(find("budget.deadline"), Some("loop.deadline"));
        assert_eq!(find("kitchen.sink"), None);
    }
}
