//! The images that the cases of Kubernetes' end-to-end suite run, under the names that the suite asks for.
//!
//! Where upstream's image has a distribution below its program (Alpine's, Debian's), ours has one Debian root; programs
//! are built of upstream's sources ([`upstream`]). Invariant: what an image holds follows from those sources, the programs and
//! the tables here; whatever did not change is taken from the folder of blobs.

use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::archive::{self, Config, Image, Named};
use super::blobs::{Blob, Blobs};
use super::busybox::{self, Shell};
use super::layer::Tree;
use super::names::Names;
use super::{debian, pause};
use crate::shell;
use crate::upstream::{self, Set};

/// Whose images the loopback registry stands in for.
pub(crate) const REGISTRY: &str = "registry.k8s.io";

/// nginx as its own image sets it up: one site, its logs on the container's output.
const NGINX_SITE: &str =
    "server {\n\tlisten 80 default_server;\n\troot /usr/share/nginx/html;\n\tindex index.html;\n}\n";
const NGINX_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n";
/// The case of image volumes looks for the distribution of upstream's image in it.
const OS_RELEASE: &str = "NAME=\"Debian GNU/Linux\"\nID=debian\nPRETTY_NAME=\"Debian in the place of Alpine Linux\"\n";

/// The images, ready to be imported or served.
#[derive(Debug)]
pub(crate) struct Suite {
    blobs: Blobs,
    names: Names,
    images: Vec<Named>,
}

/// Makes the images, or finds them made. Builds programs that are missing; shows what takes long.
///
/// # Errors
/// When a program can't be built, or a package or Debian's archive can't be reached.
pub(crate) fn make() -> Result<Suite> {
    if !rustix::process::geteuid().is_root() {
        bail!("a Debian root is made by root alone");
    }
    let folder = shell::kept()?.join("conformance/images");
    let blobs = Blobs::open(&folder)?;
    // Another command may make them as well: it is waited for.
    let lock = fs::File::create(folder.join("lock")).context("can't make the lock file")?;
    flock(&lock, FlockOperation::LockExclusive).context("can't lock the folder of images")?;
    let debian = debian::layer(&blobs, &folder)?;
    let programs = upstream::ensure(&[Set::Images])?;
    let sources = upstream::sources("k8s.io/kubernetes")?;
    let list = sources.join("test/utils/image/manifest.go");
    let list = fs::read_to_string(&list).with_context(|| format!("can't read {}", list.display()))?;
    let names = Names::parse(&list);
    let images = Maker { blobs: &blobs, programs, sources, names: &names }.all(&debian)?;
    let mut kept: Vec<Blob> = Vec::new();
    for Named { image, .. } in &images {
        kept.extend(image.parts().cloned().chain([image.manifest().clone()]));
    }
    blobs.keep_only(&kept)?;
    Ok(Suite { blobs, names, images })
}

impl Suite {
    /// An image's name by upstream's identifier for it, such as `Agnhost`.
    ///
    /// # Errors
    /// When the suite has no such image.
    pub(crate) fn name(&self, id: &str) -> Result<&str> {
        self.names.of(id)
    }

    /// The images' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.images.iter().map(|named| named.name.as_str())
    }

    /// Writes all images into one archive.
    ///
    /// # Errors
    /// When it can't be written.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        super::replace(file, |out| archive::write(&self.blobs, &self.images, out))
    }

    /// Imports all images into a containerd, through `ctr` with the words that lead to it: its address. What is there
    /// already is not imported again.
    ///
    /// # Errors
    /// When containerd refuses.
    pub(crate) fn import(&self, ctr: impl Fn() -> Command) -> Result<()> {
        let there = shell::output(ctr().args(["--namespace", "k8s.io", "images", "list"]))?;
        let is_there = |named: &Named| {
            let digest = named.image.manifest().digest();
            there.lines().any(|line| {
                let mut fields = line.split_whitespace();
                fields.next() == Some(named.name.as_str()) && fields.any(|field| field == digest)
            })
        };
        if self.images.iter().all(is_there) {
            return Ok(());
        }
        let mut import = ctr()
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "overlayfs", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("can't start ctr")?;
        let written = import.stdin.take().map(|stdin| {
            let mut out = BufWriter::with_capacity(1 << 20, stdin);
            archive::write(&self.blobs, &self.images, &mut out)?;
            Ok::<_, anyhow::Error>(out.flush()?)
        });
        let ended = import.wait_with_output().context("can't wait for ctr")?;
        if !ended.status.success() {
            bail!("`ctr images import` failed: {}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim());
        }
        written.transpose().context("can't write the images to ctr")?;
        Ok(())
    }

    /// The folder that a registry serves the images from: the root directory of its file system storage.
    pub(crate) fn registry_storage(&self) -> &Path {
        self.blobs.root()
    }
}

struct Maker<'a> {
    blobs: &'a Blobs,
    programs: PathBuf,
    sources: PathBuf,
    names: &'a Names,
}

impl Maker<'_> {
    fn all(&self, debian: &Blob) -> Result<Vec<Named>> {
        let pause_tag = self.names.of("Pause")?.rsplit(':').next().unwrap_or_default();
        let pause = pause::layer(self.blobs, &self.sources, pause_tag)?;
        let pause_config = Config { user: "65535:65535".to_owned(), ..entrypoint(&["/pause"], &[]) };
        let pause = Image::new(self.blobs, &[pause], &pause_config)?;
        let agnhost = vec![debian.clone(), self.layer(&self.agnhost(&pause)?)?];
        let on = |base: &[Blob], tree: &Tree| -> Result<Vec<Blob>> {
            Ok(base.iter().cloned().chain([self.layer(tree)?]).collect())
        };
        let on_debian = |tree: &Tree| on(std::slice::from_ref(debian), tree);
        let webserver = entrypoint(&["/agnhost"], &["test-webserver"]);
        let shell = cmd(&["bash"]);

        let mut images = Vec::new();
        let mut add = |id: &str, image: Image| -> Result<()> {
            let name = self.names.of(id)?.to_owned();
            if let Some(path) = name.strip_prefix(REGISTRY).and_then(|rest| rest.strip_prefix('/'))
                && let Some((repository, tag)) = path.rsplit_once(':')
            {
                archive::publish(self.blobs, repository, tag, &image)?;
            }
            images.push(Named { name, image });
            Ok(())
        };
        add("Pause", pause)?;
        add("BusyBox", busybox::image(self.blobs, Shell::AshOrBash)?)?;
        for id in ["Agnhost", "AgnhostPrev"] {
            add(id, Image::new(self.blobs, &agnhost, &entrypoint(&["/agnhost"], &["pause"]))?)?;
        }
        for (id, name) in [("Kitten", "kitten"), ("Nautilus", "nautilus")] {
            add(id, Image::new(self.blobs, &on(&agnhost, &self.pet(name))?, &webserver)?)?;
        }
        for id in ["Nginx", "NginxNew"] {
            add(id, Image::new(self.blobs, &on_debian(&nginx())?, &cmd(&["nginx", "-g", "daemon off;"]))?)?;
        }
        add("GlibcDnsTesting", Image::new(self.blobs, &on_debian(&self.coredns())?, &shell)?)?;
        for id in ["IpcUtils", "Perl"] {
            add(id, Image::new(self.blobs, std::slice::from_ref(debian), &shell)?)?;
        }
        let nobody = Config { user: "1234".to_owned(), ..shell.clone() };
        add("NonRoot", Image::new(self.blobs, std::slice::from_ref(debian), &nobody)?)?;
        add("Nonewprivs", Image::new(self.blobs, &on(&[], &self.nonewprivs())?, &cmd(&["nnp"]))?)?;
        let consumer = on_debian(&self.resource_consumer())?;
        add("ResourceConsumer", Image::new(self.blobs, &consumer, &entrypoint(&["/consumer"], &[]))?)?;
        let sample = on(&[], &self.program("sample-apiserver", "sample-apiserver"))?;
        add("APIServer", Image::new(self.blobs, &sample, &entrypoint(&["/sample-apiserver"], &[]))?)?;
        let etcd = on(&[], &self.program("usr/local/bin/etcd", "etcd"))?;
        add("Etcd", Image::new(self.blobs, &etcd, &cmd(&["/usr/local/bin/etcd"]))?)?;
        Ok(images)
    }

    fn layer(&self, tree: &Tree) -> Result<Blob> {
        self.blobs.layer(&tree.key()?, |out| tree.write(out))
    }

    /// What agnhost's subcommands read (its Dockerfile).
    fn agnhost(&self, pause: &Image) -> Result<Tree> {
        let mut tree = self.coredns();
        tree.copy("agnhost", 0o755, self.programs.join("agnhost"));
        // Another entrypoint, for the cases about commands and arguments.
        tree.link("agnhost-2", "agnhost");
        for name in ["localhost.crt", "localhost.key"] {
            tree.copy(name, 0o644, self.sources.join("test/images/agnhost/porter").join(name));
        }
        tree.directory("uploads", 0o755);
        tree.link("usr/local/bin/iperf", "/usr/bin/iperf");
        self.own_registry(&mut tree, pause)?;
        Ok(tree)
    }

    /// What `agnhost fake-registry-server` serves: `pause:testing`.
    fn own_registry(&self, tree: &mut Tree, pause: &Image) -> Result<()> {
        let folder = "var/registry/pause";
        let path = |kind: &str, blob: &Blob| {
            format!("{folder}/{kind}/sha256/{}/{}/data", blob.hex().get(..2).unwrap_or_default(), blob.hex())
        };
        let manifest = pause.manifest();
        tree.file(&format!("{folder}/manifests/testing"), 0o644, format!("{}\n", manifest.digest()));
        tree.file(&path("manifests", manifest), 0o644, self.blobs.read(manifest)?);
        for part in pause.parts() {
            tree.file(&path("blobs", part), 0o644, self.blobs.read(part)?);
        }
        Ok(())
    }

    fn coredns(&self) -> Tree {
        self.program("coredns", "coredns")
    }

    fn pet(&self, name: &str) -> Tree {
        let mut tree = Tree::default();
        let html = self.sources.join("test/images").join(name).join("html");
        for file in [format!("{name}.jpg"), "data.json".to_owned()] {
            tree.copy(&file, 0o644, html.join(&file));
        }
        tree.file("etc/os-release", 0o644, OS_RELEASE);
        tree
    }

    fn nonewprivs(&self) -> Tree {
        let mut tree = Tree::default();
        // It tells whether a file's set-user-ID bit had effect.
        tree.copy("usr/local/bin/nnp", 0o4755, self.programs.join("nonewprivs"));
        tree
    }

    fn resource_consumer(&self) -> Tree {
        let mut tree = self.program("consumer", "resource-consumer");
        tree.copy("consume-cpu/consume-cpu", 0o755, self.programs.join("consume-cpu"));
        tree
    }

    fn program(&self, path: &str, name: &str) -> Tree {
        let mut tree = Tree::default();
        tree.copy(path, 0o755, self.programs.join(name));
        tree
    }
}

fn nginx() -> Tree {
    let mut tree = Tree::default();
    tree.file("etc/nginx/sites-available/default", 0o644, NGINX_SITE);
    tree.file("usr/share/nginx/html/index.html", 0o644, NGINX_PAGE);
    tree.link("var/log/nginx/access.log", "/dev/stdout");
    tree.link("var/log/nginx/error.log", "/dev/stderr");
    tree
}

fn entrypoint(program: &[&str], arguments: &[&str]) -> Config {
    Config { entrypoint: words(program), cmd: words(arguments), ..Config::default() }
}

fn cmd(command: &[&str]) -> Config {
    Config { cmd: words(command), ..Config::default() }
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}
