//! The files of a call as one archive.

use tar::{Builder, EntryType, Header};

use crate::domain::execution::OutFile;

const MODE: u32 = 0o644;

/// A tar archive of plain files in the order of their paths. The same files make the same bytes: no times, no owners. Names
/// that are too long for a header of their own stand before it, as GNU's tar has them.
pub fn tar(mut files: Vec<OutFile>) -> Vec<u8> {
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut archive = Builder::new(Vec::new());
    for OutFile { path, content } in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(u64::try_from(content.len()).unwrap_or(u64::MAX));
        header.set_mode(MODE);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        // The only error is a path that leads out of a directory: a call has none by the time it is answered.
        drop(archive.append_data(&mut header, path, content.as_slice()));
    }
    // Memory takes all that is written.
    archive.into_inner().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn files(names: &[&str]) -> Vec<OutFile> {
        names.iter().map(|name| OutFile { path: (*name).to_owned(), content: name.as_bytes().to_vec() }).collect()
    }

    #[test]
    fn the_same_files_make_the_same_bytes_sorted_and_without_times_and_owners() {
        let long = ["漢".repeat(80), "x".repeat(240)].join("/");
        let archive = tar(files(&["z", "a/b c", &long, "-n", "a/\u{202e}\\", "~"]));
        assert_eq!(archive, tar(files(&["~", "a/\u{202e}\\", "-n", &long, "a/b c", "z"])));
        let mut read = tar::Archive::new(archive.as_slice());
        let mut seen = Vec::new();
        for entry in read.entries().unwrap() {
            let mut entry = entry.unwrap();
            let header = entry.header();
            let facts = (header.entry_type(), header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap());
            assert_eq!(facts, (EntryType::Regular, 0o644, 0, 0));
            let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            assert_eq!(content, path);
            seen.push(path);
        }
        assert_eq!(seen, ["-n", "a/b c", "a/\u{202e}\\", "z", "~", &long]);
    }

    #[test]
    fn no_files_are_an_archive_too() {
        assert_eq!(tar(Vec::new()), [0; 1024]);
    }
}
