//! Files that an installer delivers: announced once by path and size, then sent as raw bytes in that order. Pure.
//!
//! What was announced is checked before a byte of it is taken, and each file's buffer is made in its full size.

use std::collections::{BTreeMap, BTreeSet};

use super::settings::InstallLimits;
use crate::domain::package_set::SetKind;

const MOST_PATH: usize = 1024;

/// A delivery under way.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Those that are not whole yet, the next one last.
    awaited: Vec<(String, usize)>,
    /// Of the next one.
    bytes: Vec<u8>,
    whole: BTreeMap<String, Vec<u8>>,
}

impl Delivery {
    /// None: this may not be installed, for `kind` has no place for it, or it is more than `most`.
    pub(super) fn announced(files: Vec<(String, usize)>, most: InstallLimits, kind: SetKind) -> Option<Self> {
        let bytes = files.iter().try_fold(0_usize, |sum, (_, size)| sum.checked_add(*size))?;
        let good = |path: &str| path.len() <= MOST_PATH && path.split('/').all(is_plain);
        let mut known = BTreeSet::new();
        let good = files.iter().all(|(path, _)| good(path) && known.insert(path.as_str()));
        if !good || bytes > most.bytes || files.len() > most.files {
            return None;
        }
        let placed = files.iter().rev().map(|(path, size)| Some((kind.place(path)?, *size)));
        let awaited = placed.collect::<Option<_>>()?;
        let mut delivery = Self { awaited, bytes: Vec::new(), whole: BTreeMap::new() };
        delivery.keep_whole();
        Some(delivery)
    }

    /// Takes the next bytes. None: these are more than was announced.
    pub(super) fn take(&mut self, mut piece: &[u8]) -> Option<()> {
        while !piece.is_empty() {
            let (_, size) = self.awaited.last()?;
            let missing = size.saturating_sub(self.bytes.len());
            self.bytes.reserve_exact(missing);
            let (part, rest) = piece.split_at(piece.len().min(missing));
            self.bytes.extend_from_slice(part);
            piece = rest;
            self.keep_whole();
        }
        Some(())
    }

    /// All files by their paths in a volume, once the last byte is there.
    pub(super) fn files(&mut self) -> Option<BTreeMap<String, Vec<u8>>> {
        self.awaited.is_empty().then(|| std::mem::take(&mut self.whole))
    }

    /// Empty files are whole as soon as it is their turn.
    fn keep_whole(&mut self) {
        while let Some((path, _)) = self.awaited.pop_if(|(_, size)| self.bytes.len() == *size) {
            self.whole.insert(path, std::mem::take(&mut self.bytes));
        }
    }
}

/// A name that a path may have: nothing that leads elsewhere, or that a terminal would take for a command.
pub(super) fn is_plain(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..") && segment.len() <= 255 && !segment.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: InstallLimits = InstallLimits { bytes: 1000, files: 20 };

    fn announced(files: &[(&str, usize)]) -> Option<Delivery> {
        let files = files.iter().map(|(path, size)| (format!("node_modules/{path}"), *size)).collect();
        Delivery::announced(files, MOST, SetKind::Npm)
    }

    #[test]
    fn what_would_not_lie_beneath_the_volume_or_is_too_much_is_refused_before_it_comes() {
        for path in ["", "/a", "a//b", "../a", "a/./b", "a/..", "a\0", "a\nb", &"x".repeat(256), &"x/".repeat(600)] {
            assert!(announced(&[(path, 1)]).is_none(), "{path:?}");
        }
        assert!(announced(&[("a", 1), ("a", 1)]).is_none());
        assert!(announced(&[("a", 1001)]).is_none());
        assert!(announced(&[("a", usize::MAX), ("b", 2)]).is_none());
        let names: Vec<_> = (0..21).map(|number| number.to_string()).collect();
        assert!(announced(&names.iter().map(|name| (name.as_str(), 0)).collect::<Vec<_>>()).is_none());
        assert!(Delivery::announced(vec![("main.js".to_owned(), 1)], MOST, SetKind::Npm).is_none());
        assert!(announced(&[("a/b", 1), ("a.b", 999)]).is_some());
    }

    proptest! {
        #[test]
        fn files_come_out_as_they_were_however_the_bytes_are_cut(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cut in 1_usize..50,
        ) {
            let name = |number: usize| format!("node_modules/{number}");
            let files = contents.iter().enumerate().map(|(number, bytes)| (name(number), bytes.len())).collect();
            let mut delivery = Delivery::announced(files, MOST, SetKind::Npm).unwrap();
            let stream = contents.concat();
            for piece in stream.chunks(cut) {
                prop_assert!(delivery.files().is_none());
                prop_assert!(delivery.take(piece).is_some());
            }
            prop_assert!(delivery.take(b"x").is_none());
            let whole = delivery.files().unwrap();
            let place = |number: usize| format!("workspace/{}", name(number));
            let numbered = contents.into_iter().enumerate().map(|(number, bytes)| (place(number), bytes));
            prop_assert_eq!(whole, numbered.collect::<BTreeMap<_, _>>());
        }
    }
}
