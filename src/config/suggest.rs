//! "Did you mean …?"

/// The known key that an unknown one was probably meant to be.
pub(super) fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let moved = || known.clone().find(|key| last(key) == last(unknown));
    let typo = known
        .clone()
        .map(|key| (distance(unknown, key), key))
        .min_by_key(|(far, _)| *far);
    match typo {
        Some((far, key)) if far <= 2 || far * 4 <= unknown.len() => Some(key),
        _ => moved(),
    }
}

/// Edits (insert, delete, replace) between two texts, by characters.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_a_wrong_section_and_nonsense() {
        let known = ["server.port", "server.address", "sandbox.max_executions"];
        let near = |key| nearest(key, known.into_iter());
        assert_eq!(near("server.prot"), Some("server.port"));
        assert_eq!(near("sandbox.max_execution"), Some("sandbox.max_executions"));
        assert_eq!(near("port"), Some("server.port"));
        assert_eq!(near("server.max_executions"), Some("sandbox.max_executions"));
        assert_eq!(near("color.theme"), None);
    }
}
