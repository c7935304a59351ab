//! Who may use an image that is here already: the pods whose credentials its registry has accepted before.
//!
//! Invariant: a record is written before the pull begins and removed only when another says more, so that no crash makes
//! a private image free for all. Images that were here before the kubelet (loaded by the administrator) have no record and
//! are for everyone. Behaviour: KEP-2535, upstream's policy `NeverVerifyPreloadedImages`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keyring::{CredentialSource, RegistryAuth};

/// The records of a node, a file an image.
#[derive(Debug, Clone)]
pub(super) struct AccessRecords {
    folder: PathBuf,
}

/// Of one image, by the repository that it was pulled from.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    repositories: BTreeMap<String, Access>,
}

/// Whose credentials a repository has accepted.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Access {
    /// It asked for none, or took the node's own.
    everyone: bool,
    secrets: Vec<Accepted>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Accepted {
    source: CredentialSource,
    hash: String,
}

impl AccessRecords {
    /// Records below a folder that only the kubelet may read.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Says whether a pod with these credentials may use the image without asking its registry.
    pub(super) fn allow(&self, id: &str, name: &str, repository: &str, auth: &[RegistryAuth]) -> io::Result<bool> {
        let Some(record) = self.read(id)? else {
            // Not pulled by us, unless a pull was cut short.
            return Ok(!fs::exists(self.path("pulling", name))?);
        };
        let Some(access) = record.repositories.get(repository) else { return Ok(false) };
        // The same secret may have new content, and the same content be in another secret: either will do.
        let known = |auth: &RegistryAuth| {
            let hash = hash(auth);
            let matches = |is: &Accepted| is.hash == hash || Some(&is.source) == auth.source.as_ref();
            auth.source.is_some() && access.secrets.iter().any(matches)
        };
        Ok(access.everyone || auth.iter().any(known))
    }

    /// Notes that a pull is under way: what it brings is not free for all.
    pub(super) fn begin(&self, name: &str) -> io::Result<()> {
        self.write("pulling", name, name.as_bytes())
    }

    /// Notes that a repository has accepted a credential, or needs none; one without a source is the node's own.
    pub(super) fn accepted(&self, id: &str, repository: &str, auth: Option<&RegistryAuth>) -> io::Result<()> {
        let mut record = self.read(id)?.unwrap_or_default();
        let access = record.repositories.entry(repository.to_owned()).or_default();
        match auth.and_then(|auth| Some((auth, auth.source.clone()?))) {
            None => access.everyone = true,
            Some((auth, source)) => {
                access.secrets.retain(|accepted| accepted.source != source);
                access.secrets.push(Accepted { source, hash: hash(auth) });
            }
        }
        self.write("pulled", id, &serde_json::to_vec(&record)?)
    }

    /// Notes that a pull has ended, after [`Self::accepted`] if it brought something.
    pub(super) fn end(&self, name: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path("pulling", name)))
    }

    /// Forgets an image that was removed.
    pub(super) fn forget(&self, id: &str) -> io::Result<()> {
        absent_is_fine(fs::remove_file(self.path("pulled", id)))
    }

    fn read(&self, id: &str) -> io::Result<Option<Record>> {
        match fs::read(self.path("pulled", id)) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, kind: &str, of: &str, text: &[u8]) -> io::Result<()> {
        let path = self.path(kind, of);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(self.folder.join(kind))?;
        let temporary = path.with_extension("new");
        fs::write(&temporary, text)?;
        fs::rename(temporary, path)
    }

    fn path(&self, kind: &str, of: &str) -> PathBuf {
        self.folder.join(kind).join(format!("{:x}.json", Sha256::digest(of)))
    }
}

fn hash(auth: &RegistryAuth) -> String {
    let mut hasher = Sha256::new();
    for part in [&auth.username, &auth.password, &auth.server_address, &auth.identity_token, &auth.registry_token] {
        // Lengths keep neighbours apart.
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    format!("{:x}", hasher.finalize())
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sha256:1";
    const REPOSITORY: &str = "registry.test/app";

    fn auth(secret: &str, password: &str) -> RegistryAuth {
        let source =
            CredentialSource { uid: format!("uid-{secret}"), namespace: "default".into(), name: secret.into() };
        RegistryAuth {
            username: "web".into(),
            password: password.into(),
            source: Some(source),
            ..RegistryAuth::default()
        }
    }

    fn records() -> (tempfile::TempDir, AccessRecords) {
        let folder = tempfile::tempdir().unwrap();
        let records = AccessRecords::new(folder.path());
        (folder, records)
    }

    #[test]
    fn an_image_that_nobody_pulled_is_for_everyone() {
        let (_folder, records) = records();
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
    }

    #[test]
    fn an_image_of_a_pull_that_was_cut_short_is_for_nobody() {
        let (_folder, records) = records();
        records.begin("app:v1").unwrap();
        assert!(!records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
        records.end("app:v1").unwrap();
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
    }

    #[test]
    fn a_private_image_is_for_those_whose_secret_was_accepted() {
        let (_folder, records) = records();
        records.accepted(ID, REPOSITORY, Some(&auth("a", "right"))).unwrap();
        assert!(!records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
        assert!(!records.allow(ID, "app:v1", REPOSITORY, &[auth("b", "wrong")]).unwrap());
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[auth("b", "wrong"), auth("a", "new")]).unwrap());
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[auth("b", "right")]).unwrap());
    }

    #[test]
    fn what_one_repository_accepted_opens_no_other() {
        let (_folder, records) = records();
        records.accepted(ID, REPOSITORY, None).unwrap();
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
        assert!(!records.allow(ID, "x:v1", "other.test/app", &[]).unwrap());
    }

    #[test]
    fn a_removed_image_is_forgotten() {
        let (_folder, records) = records();
        records.accepted(ID, REPOSITORY, Some(&auth("a", "right"))).unwrap();
        records.forget(ID).unwrap();
        assert!(records.allow(ID, "app:v1", REPOSITORY, &[]).unwrap());
    }
}
