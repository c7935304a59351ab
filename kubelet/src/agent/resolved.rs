//! What a container's specification is resolved from: fetched from the API, the image and the node, then handed to the pure part.
//!
//! Invariant: everything is read here, before anything of the container exists; what is missing is upstream's `CreateContainerConfigError`.

use std::path::{Path, PathBuf};

use containerd_client::types::Mount;
use k8s_openapi::api::core::v1::Container;
use skep_client::EventType;

use super::record::Record;
use super::start::Failure;
use super::worker::{Worker, ephemeral};
use crate::images::Image;
use crate::objects::Freshness;
use crate::pod::references::References;
use crate::pod::resolve::security::{self, Seccomp};
use crate::pod::resolve::{Context, ImageInfo, UserIds};
use crate::runtime::containerd::TaskStatus;
use crate::runtime::spec::ContainerSpec;
use crate::runtime::user::User;
use crate::runtime::{rootfs, seccomp};
use crate::volumes::container::prepare;

/// The most that is read of an image's `/etc/passwd` or `/etc/group`.
const USER_FILE_LIMIT: u64 = 1 << 20;

impl Worker {
    /// The specification of a container's run whose root is at `mounts`.
    pub(super) async fn spec(
        &self,
        container: &Container,
        image: &Image,
        record: &Record,
        mounts: &[Mount],
    ) -> Result<ContainerSpec, Failure> {
        let info = ImageInfo {
            entrypoint: image.config.entrypoint.clone(),
            cmd: image.config.cmd.clone(),
            env: image.config.env.clone(),
            working_dir: image.config.working_dir.clone(),
            user: image.config.user.clone(),
        };
        let (namespace, _) = self.names();
        let references = References::of_environment(container);
        let objects = self.node.objects.all(&namespace, &references, Freshness::Now).await;
        let (config_maps, secrets) = objects.map_err(Failure::config)?;
        let services = self.node.objects.services(&namespace).map_err(Failure::config)?;
        let ids = self.ids(container, &info.user, mounts)?;
        let profile = self.seccomp(container)?;
        let (Some(sandbox), Some(volumes)) = (&self.sandbox, &self.volumes) else {
            return Err(Failure::create("the pod's sandbox is not there"));
        };
        let mut namespaces = sandbox.namespaces.clone();
        namespaces.target_pid = self.target_processes(&container.name).await?;
        let cgroup = self.cgroup().join(record.id());
        let pod_dir = self.node.pod_dir(&self.uid);
        let context = Context {
            pod: &self.pod,
            container,
            attempt: record.attempt,
            image: &info,
            ids: &ids,
            pod_ips: &self.seen.addresses,
            node: &self.node.context,
            config_maps: &config_maps,
            secrets: &secrets,
            services: &services,
            volumes,
            pod_dir: &pod_dir,
            namespaces: &namespaces,
            shm: sandbox.shm.as_deref(),
            cgroup: &cgroup,
            seccomp: profile.as_ref(),
        };
        // Small files on the node's own disk, and a bind mount a subPath.
        let prepared = tokio::task::block_in_place(|| prepare(&context)).map_err(Failure::config)?;
        for (reason, note) in prepared.warnings {
            self.node.event(&self.pod, None, EventType::Warning, reason, note);
        }
        Ok(prepared.spec)
    }

    /// The namespace of processes that an ephemeral container joins: that of the container it targets.
    async fn target_processes(&self, name: &str) -> Result<Option<PathBuf>, Failure> {
        let of_pod = self.pod.spec.as_ref().and_then(|spec| ephemeral(spec, name));
        let target = of_pod.and_then(|own| own.target_container_name.as_deref()).filter(|target| !target.is_empty());
        let Some(target) = target else { return Ok(None) };
        let missing = || Failure::create(format!("unable to find target container {target:?}"));
        let id = &self.seen.containers.get(target).ok_or_else(missing)?.id;
        let task = self.node.containerd.task(id).await.map_err(Failure::create)?.ok_or_else(missing)?;
        match task.status {
            TaskStatus::Created | TaskStatus::Running | TaskStatus::Paused => {
                Ok(Some(Path::new("/proc").join(task.pid.to_string()).join("ns/pid")))
            }
            TaskStatus::Stopped(_) => Err(missing()),
        }
    }

    /// Who the container runs as, by the image's own lists of users and groups.
    fn ids(&self, container: &Container, image_user: &str, mounts: &[Mount]) -> Result<UserIds, Failure> {
        let request = security::user_request(&self.pod, container, image_user).map_err(Failure::config)?;
        let read = |path: &str| {
            let read = tokio::task::block_in_place(|| rootfs::read(mounts, Path::new(path), USER_FILE_LIMIT));
            let bytes = read.map_err(|error| Failure::create(format!("{path} of the image: {error}")))?;
            Ok::<_, Failure>(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
        };
        let (passwd, groups) = (read("/etc/passwd")?, read("/etc/group")?);
        let (name, group) = request.user.split_once(':').unwrap_or((&request.user, ""));
        let found = User::of_image(name).resolve(group.parse().ok(), &passwd, &groups).map_err(Failure::create)?;
        let groups = if request.with_image_groups { found.groups } else { Vec::new() };
        Ok(UserIds { uid: found.uid, gid: found.gid, groups })
    }

    fn seccomp(&self, container: &Container) -> Result<Option<serde_json::Value>, Failure> {
        let wanted =
            security::seccomp(&self.pod, container, self.node.context.seccomp_default).map_err(Failure::config)?;
        match wanted {
            Seccomp::Unconfined => Ok(None),
            Seccomp::RuntimeDefault => {
                let capabilities = security::capabilities(container, &self.node.context.capabilities);
                Ok(Some(seccomp::runtime_default(&capabilities)))
            }
            Seccomp::Localhost(path) => {
                let path = self.node.root.join("seccomp").join(path);
                let text = std::fs::read_to_string(&path).map_err(|error| {
                    Failure::create(format!("cannot load seccomp profile {:?}: {error}", path.display().to_string()))
                })?;
                let profile = serde_json::from_str(&text).map_err(|error| {
                    Failure::create(format!("cannot load seccomp profile {:?}: {error}", path.display().to_string()))
                })?;
                Ok(Some(profile))
            }
        }
    }
}
