//! What a power loss leaves of a folder: a `sync` of the test's own writes down what would be on the
//! disk. A file's content is there once the file was synced, a folder's entries once the folder was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::hub::folder;

/// A file's inode keeps its number for as long as it has a name: here it gets one.
pub const SYNC: &str = r#"#!/bin/bash
set -e
[ "$1" != -- ] || shift
for path; do
    inode=$(stat -c %i "$path")
    if [ -d "$path" ]; then
        find "$path" -mindepth 1 -maxdepth 1 -printf '%i %f\n' >"$DURABLE/new"
        mv "$DURABLE/new" "$DURABLE/entries-$inode"
        find "$path" -mindepth 1 -maxdepth 1 -type f -exec sh -c \
            'for file; do ln -f "$file" "$DURABLE/name-$(stat -c %i "$file")"; done' sh {} +
    else
        cp "$path" "$DURABLE/new"
        mv "$DURABLE/new" "$DURABLE/content-$inode"
        ln -f "$path" "$DURABLE/name-$inode"
    fi
done
"#;

/// Which of the names that were not synced have got to the disk.
#[derive(Clone, Copy, Debug)]
pub enum Names {
    None,
    /// The removals alone.
    Removals,
    /// All of them, as a journal has it that does not hold the contents.
    All,
}
pub const NAMES: [Names; 3] = [Names::None, Names::Removals, Names::All];

/// What a power loss leaves of a folder below `top`: names and contents.
pub type Left = BTreeMap<String, Vec<u8>>;

pub fn left(durable: &Path, top: &Path, folder: &str, names: Names) -> Left {
    let entries = |inode: u64| -> BTreeMap<String, u64> {
        let text = fs::read_to_string(durable.join(format!("entries-{inode}"))).unwrap_or_default();
        let entries = text.lines().map(|line| line.split_once(' ').unwrap());
        entries.map(|(inode, name)| (name.to_owned(), inode.parse().unwrap())).collect()
    };
    let now: BTreeMap<String, u64> = (fs::read_dir(top.join(folder))
        .into_iter()
        .flatten()
        .flatten())
    .filter(|entry| entry.file_type().unwrap().is_file())
    .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().ino()))
    .collect();
    let mut inode = Some(fs::metadata(top).unwrap().ino());
    for part in folder.split('/') {
        inode = inode.and_then(|inode| entries(inode).get(part).copied());
    }
    // Without its own entry the folder is not there.
    let synced = inode.map(entries).unwrap_or_default();
    let found = match names {
        Names::None => synced,
        Names::Removals => synced.into_iter().filter(|(name, _)| now.contains_key(name)).collect(),
        Names::All if inode.is_some() => now,
        Names::All => BTreeMap::new(),
    };
    let content =
        |inode: u64| fs::read(durable.join(format!("content-{inode}"))).unwrap_or_default();
    found.into_iter().map(|(name, inode)| (name, content(inode))).collect()
}

pub fn restore(folder: &Path, left: &Left) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    for (name, content) in left {
        fs::write(folder.join(name), content).unwrap();
        fs::set_permissions(folder.join(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
}

/// A folder for what is on the disk, outside of the place, whose files are looked through.
pub fn durable() -> PathBuf {
    static ALL: LazyLock<PathBuf> = LazyLock::new(|| folder("power"));
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let durable = ALL.join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    fs::create_dir(&durable).unwrap();
    durable
}
