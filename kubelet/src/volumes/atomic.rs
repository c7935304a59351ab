//! Files that change all at once under the eyes of their readers.
//!
//! Invariant: at every moment `..data` leads to one whole set of files. A reader that opened the folder behind it reads
//! one set to the end. The layout is upstream's (`AtomicWriter`): the files lie in a folder named for the time, `..data` is a
//! symlink to it, and each visible name a symlink through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const PATH_LIMIT: usize = 4096;
const NAME_LIMIT: usize = 255;

/// Files by their paths, relative to the volume.
pub type Payload = BTreeMap<String, File>;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub data: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Its owner; none is root.
    pub user: Option<u32>,
}

/// Makes `dir` hold exactly these files, unless it does already; `own` is called with the volume before new files are seen.
///
/// # Errors
/// When a path leads out of the volume or is too long (`InvalidInput`), or the file system refuses. The old files stay then.
pub fn write(dir: &Path, payload: &Payload, own: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let payload = payload.iter().map(|(path, file)| Ok((checked(path)?, file))).collect::<io::Result<_>>()?;
    let current = match fs::read_link(dir.join(DATA)) {
        Ok(current) => Some(current),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let old = match &current {
        Some(current) => files_below(&dir.join(current))?,
        None => BTreeSet::new(),
    };
    let unchanged = current.as_ref().is_some_and(|current| is_same(&dir.join(current), &old, &payload));
    if !unchanged {
        publish(dir, &payload, own)?;
    }
    show(dir, &payload)?;
    hide(dir, &payload)?;
    remove_stale(dir)
}

type Checked<'a> = BTreeMap<PathBuf, &'a File>;

/// Upstream's `validatePath`.
fn checked(path: &str) -> io::Result<PathBuf> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if path.is_empty() {
        return refuse(format!("invalid path: must not be empty: {path:?}"));
    }
    if path.starts_with('/') {
        return refuse(format!("invalid path: must be relative path: {path}"));
    }
    if path.len() > PATH_LIMIT {
        return refuse(format!("invalid path: must be less than or equal to {PATH_LIMIT} characters"));
    }
    let names: Vec<_> = path.split('/').collect();
    if names.contains(&"..") {
        return refuse(format!("invalid path: must not contain '..': {path}"));
    }
    if names.iter().any(|name| name.len() > NAME_LIMIT) {
        return refuse(format!("invalid path: filenames must be less than or equal to {NAME_LIMIT} characters"));
    }
    let clean: PathBuf = Path::new(path).components().filter(|part| *part != Component::CurDir).collect();
    match clean.components().next() {
        None => refuse(format!("invalid path: must not be empty: {path:?}")),
        Some(first) if first.as_os_str().as_encoded_bytes().starts_with(b"..") => {
            refuse(format!("invalid path: must not start with '..': {path}"))
        }
        Some(_) => Ok(clean),
    }
}

fn is_same(data: &Path, old: &BTreeSet<PathBuf>, payload: &Checked<'_>) -> bool {
    old.iter().eq(payload.keys())
        && payload.iter().all(|(path, file)| fs::read(data.join(path)).is_ok_and(|data| data == file.data))
}

/// The files (not folders) below `dir`, relative to it.
fn files_below(dir: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(below) = left.pop() {
        let entries = match fs::read_dir(dir.join(&below)) {
            Ok(entries) => entries,
            // Someone removed what `..data` leads to: it is written anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                left.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    Ok(found)
}

fn publish(dir: &Path, payload: &Checked<'_>, own: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let id = uuid::Uuid::new_v4().simple().to_string();
    let name = format!("{}.{}", Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S"), &id[..10]);
    let data = dir.join(&name);
    let written = write_files(&data, payload).and_then(|()| own(dir)).and_then(|()| {
        // One may be left of a kubelet that died here.
        remove_if_there(&dir.join(NEW_DATA))?;
        symlink(&name, dir.join(NEW_DATA))?;
        fs::rename(dir.join(NEW_DATA), dir.join(DATA))
    });
    if written.is_err() {
        // What can't be removed now is removed as stale by the next write.
        let _ = fs::remove_dir_all(&data);
    }
    written
}

fn write_files(data: &Path, payload: &Checked<'_>) -> io::Result<()> {
    create_dir(data)?;
    for (path, file) in payload {
        let mut folder = data.to_owned();
        for part in path.parent().into_iter().flat_map(Path::components) {
            folder.push(part);
            if !folder.is_dir() {
                create_dir(&folder)?;
            }
        }
        let path = data.join(path);
        fs::write(&path, &file.data)?;
        // The umask must not take anything away.
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
        if let Some(user) = file.user {
            chown(&path, Some(user), None)?;
        }
    }
    Ok(())
}

fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// Makes the visible names.
fn show(dir: &Path, payload: &Checked<'_>) -> io::Result<()> {
    for (path, file) in payload {
        let Some(name) = path.components().next() else { continue };
        let visible = dir.join(name);
        match symlink(Path::new(DATA).join(name), &visible) {
            Ok(()) => file.user.map_or(Ok(()), |user| lchown(&visible, Some(user), None))?,
            // It is there; or it is a mount point of another volume inside of this one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes the visible names of files that are no more.
fn hide(dir: &Path, payload: &Checked<'_>) -> io::Result<()> {
    let names: BTreeSet<_> = payload.keys().filter_map(|path| path.components().next()).collect();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = fs::read_link(entry.path()).is_ok_and(|to| to.starts_with(DATA));
        if is_ours && !names.contains(&Component::Normal(&name)) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the folders that `..data` doesn't lead to.
fn remove_stale(dir: &Path) -> io::Result<()> {
    let current = fs::read_link(dir.join(DATA))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_data = name.as_encoded_bytes().starts_with(b"..2") && entry.file_type()?.is_dir();
        if is_data && Path::new(&name) != current {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Err(_) | Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt as _;

    fn payload(files: &[(&str, &str)]) -> Payload {
        let file = |data: &str| File { data: data.as_bytes().to_vec(), mode: 0o644, user: None };
        files.iter().map(|(path, data)| ((*path).to_owned(), file(data))).collect()
    }

    fn write_all(dir: &Path, files: &[(&str, &str)]) {
        write(dir, &payload(files), |_| Ok(())).unwrap();
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("..")).collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_seen_through_the_link_to_their_set() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), &[("a", "1"), ("b/c", "2")]);
        assert_eq!(names(dir.path()), ["a", "b"]);
        assert_eq!(fs::read_link(dir.path().join("a")).unwrap(), Path::new("..data/a"));
        assert_eq!(fs::read_to_string(dir.path().join("b/c")).unwrap(), "2");
    }

    #[test]
    fn nothing_changes_while_the_content_stays() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), &[("a", "1")]);
        let before = fs::read_link(dir.path().join("..data")).unwrap();
        write_all(dir.path(), &[("a", "1")]);
        assert_eq!(fs::read_link(dir.path().join("..data")).unwrap(), before);
    }

    #[test]
    fn a_change_swaps_the_whole_set_and_removes_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), &[("a", "1"), ("b", "2"), ("c/d", "3"), ("c/e", "4")]);
        write_all(dir.path(), &[("a", "9"), ("c/e", "4")]);
        assert_eq!(names(dir.path()), ["a", "c"]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "9");
        assert!(!dir.path().join("c/d").exists());
        let sets = fs::read_dir(dir.path())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("..2"));
        assert_eq!(sets.count(), 1);
    }

    #[test]
    fn a_half_done_write_of_a_dead_kubelet_is_cleaned_up() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), &[("a", "1")]);
        fs::create_dir(dir.path().join("..2020_01_01_00_00_00.x")).unwrap();
        symlink("..2020_01_01_00_00_00.x", dir.path().join("..data_tmp")).unwrap();
        write_all(dir.path(), &[("a", "2")]);
        assert_eq!(fs::read_to_string(dir.path().join("a")).unwrap(), "2");
        assert!(!dir.path().join("..2020_01_01_00_00_00.x").exists());
        assert!(fs::symlink_metadata(dir.path().join("..data_tmp")).is_err());
    }

    #[test]
    fn modes_and_owners_are_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let file = File { data: vec![], mode: 0o600, user: Some(1234) };
        write(dir.path(), &Payload::from([("t".to_owned(), file)]), |_| Ok(())).expect("write, as root");
        let metadata = fs::metadata(dir.path().join("t")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o600, 1234));
        assert_eq!(fs::symlink_metadata(dir.path().join("t")).unwrap().uid(), 1234);
    }

    #[test]
    fn no_path_leads_out_of_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["", "/etc/passwd", "../x", "a/../../x", "..data", ".", &"x".repeat(256)] {
            let refused = write(dir.path(), &payload(&[(path, "1")]), |_| Ok(())).unwrap_err();
            assert!(refused.to_string().starts_with("invalid path: "), "{path}: {refused}");
        }
    }

    #[test]
    fn an_empty_payload_makes_an_empty_set() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path(), &[]);
        assert!(names(dir.path()).is_empty() && dir.path().join("..data").is_dir());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn after_any_writes_the_last_set_is_seen_and_nothing_else(
            writes in prop::collection::vec(prop::collection::btree_map("[abc](/[de]){0,2}", "[xy]{0,2}", 0..5), 1..6)
        ) {
            // A path can't be a file and a folder of others at once.
            let writes: Vec<BTreeMap<String, String>> = writes.into_iter().map(|mut files| {
                let all: Vec<_> = files.keys().cloned().collect();
                files.retain(|path, _| !all.iter().any(|other| other.starts_with(&format!("{path}/"))));
                files
            }).collect();
            let dir = tempfile::tempdir().unwrap();
            for files in &writes {
                let files: Vec<_> = files.iter().map(|(path, data)| (path.as_str(), data.as_str())).collect();
                write_all(dir.path(), &files);
            }
            let last = writes.last().unwrap();
            let seen = files_below(&dir.path().join(DATA)).unwrap();
            prop_assert!(seen.iter().map(|path| path.to_str().unwrap()).eq(last.keys()));
            for (path, data) in last {
                prop_assert_eq!(&fs::read_to_string(dir.path().join(path)).unwrap(), data);
            }
            let shown: BTreeSet<_> = last.keys().map(|path| path.split('/').next().unwrap().to_owned()).collect();
            prop_assert_eq!(names(dir.path()), shown.into_iter().collect::<Vec<_>>());
        }
    }
}
