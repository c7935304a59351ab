//! Reading a file of a container's root without mounting it: the layers of its overlay are merged here, a path at a time.
//!
//! Invariant: no path leaves the layers. Each component is opened below the folder before it and never followed if it
//! is a link; links are resolved here, from the container's root, as its own process would see them.
//! Kernel facts: `Documentation/filesystems/overlayfs.rst`, "whiteouts and opaque directories".

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use containerd_client::types::Mount;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

/// As the kernel's own limit (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
const OPAQUE: &str = "trusted.overlay.opaque";

/// Reads a file of the root that `mounts` make (as a snapshotter says them), none if it is not there or not a file.
///
/// # Errors
/// When a layer can't be read, the file is longer than `limit` bytes, or the mounts are of a kind that can't be merged.
pub fn read(mounts: &[Mount], path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let root = layers(mounts)?;
    let Some(file) = find(&root, path)? else { return Ok(None) };
    let length = file.metadata()?.len();
    if length > limit {
        let text = format!("{} has {length} bytes, more than {limit}", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text)?;
    Ok(Some(text))
}

/// The folders that are merged, the uppermost first.
fn layers(mounts: &[Mount]) -> io::Result<Vec<PathBuf>> {
    let unsupported = || io::Error::new(io::ErrorKind::Unsupported, "the snapshot is no overlay and no folder");
    let [mount] = mounts else { return Err(unsupported()) };
    match mount.r#type.as_str() {
        "bind" => Ok(vec![PathBuf::from(&mount.source)]),
        "overlay" => {
            let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
            let upper = option("upperdir=").into_iter();
            let lower = option("lowerdir=").into_iter().flat_map(|folders| folders.split(':'));
            Ok(upper.chain(lower).map(PathBuf::from).collect())
        }
        _ => Err(unsupported()),
    }
}

/// One folder of the merged tree: the folders of the layers that make it, the uppermost first.
type Merged = Vec<OwnedFd>;

enum Found {
    Folder(Merged),
    File(File),
    Link(OsString),
    Nothing,
}

fn find(root: &[PathBuf], path: &Path) -> io::Result<Option<File>> {
    let open_root = || -> io::Result<Merged> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        root.iter().map(|layer| Ok(rustix::fs::open(layer, folder, Mode::empty())?)).collect()
    };
    let mut left: VecDeque<OsString> = path.iter().map(OsStr::to_owned).collect();
    // The folders from the root to where the walk is, so that `..` leads back the way it came.
    let mut way = vec![open_root()?];
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        match Path::new(&name).components().next() {
            None | Some(Component::CurDir) => continue,
            Some(Component::ParentDir) => {
                // The root's parent is the root.
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            Some(Component::RootDir | Component::Prefix(_)) => {
                way = vec![open_root()?];
                continue;
            }
            Some(Component::Normal(_)) => {}
        }
        let Some(here) = way.last() else { return Ok(None) };
        match lookup(here, &name)? {
            Found::Nothing => return Ok(None),
            Found::Folder(folder) => way.push(folder),
            Found::File(file) => return Ok(left.is_empty().then_some(file)),
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                for part in Path::new(&target).iter().rev() {
                    left.push_front(part.to_owned());
                }
            }
        }
    }
    Ok(None)
}

/// What a name is in the merged folder: what the uppermost layer has, and for a folder what lies below it as well.
fn lookup(merged: &Merged, name: &OsStr) -> io::Result<Found> {
    let mut folders = Merged::new();
    for layer in merged {
        let stat = match rustix::fs::statat(layer, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = rustix::fs::openat(layer, name, flags, Mode::empty())?;
            let opaque = is_opaque(&folder);
            folders.push(folder);
            if opaque {
                break;
            }
            continue;
        }
        // Below a folder, whatever is no folder is hidden with all that is below it: a whiteout, too.
        if !folders.is_empty() || is_whiteout(kind, stat.st_rdev) {
            break;
        }
        return match kind {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(layer, name, Vec::new())?;
                Ok(Found::Link(OsString::from_vec(target.into_bytes())))
            }
            FileType::RegularFile => {
                // Not blocking, in case that it was exchanged for a pipe.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(layer, name, flags, Mode::empty())?);
                let regular = file.metadata()?.is_file();
                Ok(if regular { Found::File(file) } else { Found::Nothing })
            }
            FileType::Directory
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Ok(Found::Nothing),
        };
    }
    Ok(if folders.is_empty() { Found::Nothing } else { Found::Folder(folders) })
}

fn is_whiteout(kind: FileType, device: u64) -> bool {
    kind == FileType::CharacterDevice && device == 0
}

fn is_opaque(folder: &OwnedFd) -> bool {
    let mut value = [0_u8; 1];
    rustix::fs::fgetxattr(folder, OPAQUE, &mut value).is_ok_and(|length| length == 1) && value == *b"y"
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Layers {
        folder: tempfile::TempDir,
    }

    impl Layers {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            for layer in ["upper", "lower"] {
                fs::create_dir_all(folder.path().join(layer).join("etc")).unwrap();
            }
            fs::write(folder.path().join("lower/etc/passwd"), "lower").unwrap();
            Self { folder }
        }

        fn path(&self, path: &str) -> PathBuf {
            self.folder.path().join(path)
        }

        fn read(&self, path: &str) -> Option<String> {
            let folder = self.folder.path().display();
            let options = vec![
                format!("workdir={folder}/work"),
                format!("upperdir={folder}/upper"),
                format!("lowerdir={folder}/lower"),
            ];
            let mount = Mount { r#type: "overlay".to_owned(), options, ..Mount::default() };
            read(&[mount], Path::new(path), 100).unwrap().map(|text| String::from_utf8(text).unwrap())
        }
    }

    #[test]
    fn the_upper_layer_hides_the_lower() {
        let layers = Layers::new();
        assert_eq!(layers.read("/etc/passwd").as_deref(), Some("lower"));
        fs::write(layers.path("upper/etc/passwd"), "upper").unwrap();
        assert_eq!(layers.read("/etc/passwd").as_deref(), Some("upper"));
    }

    #[test]
    fn a_whiteout_hides_a_file() {
        let layers = Layers::new();
        let whiteout = layers.path("upper/etc/passwd");
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        assert_eq!(layers.read("/etc/passwd"), None);
    }

    #[test]
    fn an_opaque_folder_hides_all_of_the_lower() {
        let layers = Layers::new();
        rustix::fs::setxattr(layers.path("upper/etc"), OPAQUE, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(layers.read("/etc/passwd"), None);
    }

    #[test]
    fn a_link_leads_within_the_root_even_from_another_layer() {
        let layers = Layers::new();
        symlink("/usr/etc", layers.path("upper/link")).unwrap();
        fs::create_dir_all(layers.path("lower/usr")).unwrap();
        symlink("../../../../etc", layers.path("lower/usr/etc")).unwrap();
        assert_eq!(layers.read("/link/passwd").as_deref(), Some("lower"));
    }

    #[test]
    fn a_link_does_not_lead_out_of_the_root() {
        let layers = Layers::new();
        let secret = layers.path("secret");
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, layers.path("upper/etc/passwd")).unwrap();
        assert_eq!(layers.read("/etc/passwd"), None);
        assert_eq!(layers.read("/../secret"), None);
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let layers = Layers::new();
        symlink("passwd", layers.path("upper/etc/passwd")).unwrap();
        let root = [layers.path("upper")];
        assert_eq!(find(&root, Path::new("/etc/passwd")).unwrap_err().raw_os_error(), Some(Errno::LOOP.raw_os_error()));
    }

    #[test]
    fn a_file_that_is_too_long_is_an_error() {
        let layers = Layers::new();
        let mount =
            Mount { r#type: "bind".to_owned(), source: layers.path("lower").display().to_string(), ..Mount::default() };
        let error = read(&[mount], Path::new("etc/passwd"), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn what_is_no_file_is_nothing() {
        let layers = Layers::new();
        assert_eq!(layers.read("/etc"), None);
        assert_eq!(layers.read("/etc/passwd/x"), None);
        let pipe = layers.path("upper/etc/group");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(layers.read("/etc/group"), None);
    }
}
