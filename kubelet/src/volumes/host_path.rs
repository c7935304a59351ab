//! A file or folder of the node, checked to be what the pod takes it for.
//!
//! Upstream: `pkg/volume/hostpath`.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::error::Cause;

pub(super) fn check(source: &HostPathVolumeSource) -> Result<PathBuf, Cause> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let exists = path.exists();
    match kind {
        // As runtimes do: a container must not fail for want of a folder that it may fill.
        "" | "DirectoryOrCreate" if !exists => create_folder(&path)?,
        "FileOrCreate" if !exists => create_file(&path)?,
        _ => {}
    }
    let expected = match kind {
        "" => return Ok(path),
        "DirectoryOrCreate" | "Directory" => "directory",
        "FileOrCreate" | "File" => "file",
        "Socket" => "socket file",
        "CharDevice" => "character device",
        "BlockDevice" => "block device",
        other => return Err(Cause::refused(format!("{other} is an invalid volume type"))),
    };
    let shown = path.display();
    match actual(&path) {
        Ok((name, _)) if name == expected => Ok(path),
        Ok((_, api)) => {
            let message = format!("hostPath type check failed: {shown} is not a {expected}, it's a {api}");
            Err(Cause::Io(io::Error::other(message)))
        }
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::NotFound => format!("path {:?} does not exist", source.path),
                _ => error.to_string(),
            };
            let message =
                format!("hostPath type check failed, {shown} is not a {expected}, unable to determine its type: {why}");
            Err(Cause::Io(io::Error::other(message)))
        }
    }
}

/// What it is in a sentence, and in the API.
fn actual(path: &Path) -> io::Result<(&'static str, &'static str)> {
    let kind = fs::metadata(path)?.file_type();
    Ok(match () {
        () if kind.is_dir() => ("directory", "Directory"),
        () if kind.is_file() => ("file", "File"),
        () if kind.is_socket() => ("socket file", "Socket"),
        () if kind.is_char_device() => ("character device", "CharDevice"),
        () if kind.is_block_device() => ("block device", "BlockDevice"),
        () => ("pipe", "Pipe"),
    })
}

fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn create_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_as(path: &Path, kind: &str) -> Result<PathBuf, String> {
        let source = HostPathVolumeSource { path: path.to_str().unwrap().to_owned(), type_: Some(kind.to_owned()) };
        check(&source).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_is_made_only_where_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        assert!(check_as(&path("a/b"), "DirectoryOrCreate").is_ok() && path("a/b").is_dir());
        assert!(check_as(&path("f"), "FileOrCreate").is_ok() && path("f").is_file());
        assert!(check_as(&path("unset"), "").is_ok() && path("unset").is_dir());
        let refused = check_as(&path("none"), "Directory").unwrap_err();
        assert!(refused.ends_with("does not exist") && refused.contains("is not a directory"), "{refused}");
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = check_as(dir.path(), "File").unwrap_err();
        let shown = dir.path().display();
        assert_eq!(refused, format!("hostPath type check failed: {shown} is not a file, it's a Directory"));
        assert!(check_as(Path::new("/dev/null"), "CharDevice").is_ok());
        assert!(check_as(Path::new("/dev/null"), "BlockDevice").is_err());
    }
}
