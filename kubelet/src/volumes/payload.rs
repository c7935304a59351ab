//! The files of a volume that comes from the API.
//!
//! Invariant: pure; the objects and tokens arrive fetched. Upstream: `MakePayload` of the configmap and secret plugins,
//! `downwardapi.CollectData` and `projected.collectData`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, ConfigMap, ConfigMapVolumeSource, DownwardAPIVolumeFile, DownwardAPIVolumeSource,
    KeyToPath, Pod, ProjectedVolumeSource, Secret, SecretVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

use super::atomic::{File, Payload};
use crate::objects::{ConfigMaps, Secrets};
use crate::pod::resolve::resources::ResourceAmounts;
use crate::pod::resolve::{ConfigError, fields};

/// `defaultMode` where the pod says nothing.
const DEFAULT_MODE: i32 = 0o644;

/// The kinds of volumes that are files from the API.
#[derive(Debug, Clone, Copy)]
pub enum Files<'a> {
    /// The keys of a ConfigMap.
    ConfigMap(&'a ConfigMapVolumeSource),
    /// The keys of a Secret.
    Secret(&'a SecretVolumeSource),
    /// Several sources in one.
    Projected(&'a ProjectedVolumeSource),
    /// Fields of the pod.
    DownwardApi(&'a DownwardAPIVolumeSource),
}

impl<'a> Files<'a> {
    /// The tokens in it, in order.
    pub fn tokens(self) -> impl Iterator<Item = &'a ServiceAccountTokenProjection> {
        self.projections().iter().filter_map(|source| source.service_account_token.as_ref())
    }

    /// The trust bundles in it, in order.
    pub fn trust_bundles(self) -> impl Iterator<Item = &'a ClusterTrustBundleProjection> {
        self.projections().iter().filter_map(|source| source.cluster_trust_bundle.as_ref())
    }

    fn projections(self) -> &'a [VolumeProjection] {
        match self {
            Self::Projected(source) => source.sources.as_deref().unwrap_or_default(),
            Self::ConfigMap(_) | Self::Secret(_) | Self::DownwardApi(_) => &[],
        }
    }
}

/// What the files are made from.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Whose volume it is.
    pub pod: &'a Pod,
    /// By name, as far as they exist.
    pub config_maps: &'a ConfigMaps,
    /// By name, as far as they exist.
    pub secrets: &'a Secrets,
    /// For each of [`Files::tokens`], in order.
    pub tokens: &'a [String],
    /// For each of [`Files::trust_bundles`], in order.
    pub anchors: &'a [Result<Vec<u8>, ConfigError>],
    /// What an amount that has no limit is said to be.
    pub allocatable: &'a ResourceAmounts,
}

/// The files of a volume by path.
///
/// # Errors
/// When an object or a key that isn't optional is not there, or something isn't supported; all causes together.
pub fn payload(source: Files<'_>, known: &Known<'_>) -> Result<Payload, ConfigError> {
    match source {
        Files::ConfigMap(source) => {
            let defaults = Defaults { mode: source.default_mode, user: source.default_user };
            of_config_map(known, &source.name, source.items.as_deref(), source.optional, defaults)
        }
        Files::Secret(source) => {
            let defaults = Defaults { mode: source.default_mode, user: source.default_user };
            let name = source.secret_name.as_deref().unwrap_or_default();
            of_secret(known, name, source.items.as_deref(), source.optional, defaults)
        }
        Files::DownwardApi(source) => {
            let defaults = Defaults { mode: source.default_mode, user: source.default_user };
            of_pod(known, source.items.as_deref().unwrap_or_default(), defaults)
        }
        Files::Projected(source) => of_projected(known, source),
    }
}

#[derive(Clone, Copy)]
struct Defaults {
    mode: Option<i32>,
    user: Option<i64>,
}

impl Defaults {
    fn file(self, data: Vec<u8>, mode: Option<i32>, user: Option<i64>) -> Result<File, ConfigError> {
        let user = user.or(self.user);
        let user = user.map(|user| u32::try_from(user).map_err(|_| ConfigError::new(format!("{user} is no user"))));
        let mode = mode.or(self.mode).unwrap_or(DEFAULT_MODE);
        let mode = u32::try_from(mode).map_err(|_| ConfigError::new(format!("{mode} is no mode of a file")))?;
        Ok(File { data, mode: mode & 0o7777, user: user.transpose()? })
    }
}

fn of_projected(known: &Known<'_>, source: &ProjectedVolumeSource) -> Result<Payload, ConfigError> {
    let defaults = Defaults { mode: source.default_mode, user: source.default_user };
    let (mut tokens, mut anchors) = (known.tokens.iter(), known.anchors.iter());
    let (mut all, mut errors) = (Payload::new(), vec![]);
    for source in source.sources.iter().flatten() {
        let files = if let Some(source) = &source.secret {
            of_secret(known, &source.name, source.items.as_deref(), source.optional, defaults)
        } else if let Some(source) = &source.config_map {
            of_config_map(known, &source.name, source.items.as_deref(), source.optional, defaults)
        } else if let Some(source) = &source.downward_api {
            of_pod(known, source.items.as_deref().unwrap_or_default(), defaults)
        } else if let Some(source) = &source.service_account_token {
            of_token(known.pod, source, tokens.next(), defaults)
        } else if let Some(source) = &source.cluster_trust_bundle {
            match anchors.next() {
                Some(Ok(text)) => restricted(known.pod, &source.path, text.clone(), source.user, defaults),
                Some(Err(error)) => Err(error.clone()),
                None => Err(ConfigError::new("the anchors of a trust bundle are missing")),
            }
        } else if source.pod_certificate.is_some() {
            Err(ConfigError::new("projected podCertificate is not supported by this node"))
        } else {
            Ok(Payload::new())
        };
        match files {
            Ok(files) => all.extend(files),
            Err(error) => errors.push(error),
        }
    }
    aggregate(all, errors)
}

fn of_config_map(
    known: &Known<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    defaults: Defaults,
) -> Result<Payload, ConfigError> {
    let optional = optional.unwrap_or(false);
    let Some(map) = known.config_maps.get(name) else {
        return if optional {
            Ok(Payload::new())
        } else {
            Err(ConfigError::new(format!("configmap {name:?} not found")))
        };
    };
    let ConfigMap { data, binary_data, .. } = map.as_ref();
    let text = data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    // The API server admits a key in one of both only.
    let all: BTreeMap<&str, &[u8]> = binary.chain(text).collect();
    let missing = |key: &str| format!("configmap references non-existent config key: {key}");
    of_keys(&all, items, optional, missing, defaults)
}

fn of_secret(
    known: &Known<'_>,
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    defaults: Defaults,
) -> Result<Payload, ConfigError> {
    let optional = optional.unwrap_or(false);
    let Some(secret) = known.secrets.get(name) else {
        return if optional { Ok(Payload::new()) } else { Err(ConfigError::new(format!("secret {name:?} not found"))) };
    };
    let Secret { data, .. } = secret.as_ref();
    let all = data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice())).collect();
    let missing = |key: &str| format!("references non-existent secret key: {key}");
    of_keys(&all, items, optional, missing, defaults)
}

/// All keys by their names, or some by other paths.
fn of_keys(
    all: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    missing: impl Fn(&str) -> String,
    defaults: Defaults,
) -> Result<Payload, ConfigError> {
    let items = items.unwrap_or_default();
    if items.is_empty() {
        let whole = |(key, data): (&&str, &&[u8])| Ok(((*key).to_owned(), defaults.file(data.to_vec(), None, None)?));
        return all.iter().map(whole).collect();
    }
    let mut files = Payload::new();
    for item in items {
        match all.get(item.key.as_str()) {
            Some(data) => {
                files.insert(item.path.clone(), defaults.file(data.to_vec(), item.mode, item.user)?);
            }
            None if optional => {}
            None => return Err(ConfigError::new(missing(&item.key))),
        }
    }
    Ok(files)
}

fn of_pod(known: &Known<'_>, items: &[DownwardAPIVolumeFile], defaults: Defaults) -> Result<Payload, ConfigError> {
    let (mut files, mut errors) = (Payload::new(), vec![]);
    for item in items {
        let text = if let Some(field) = &item.field_ref {
            fields::volume_field(&field.field_path, known.pod)
        } else if let Some(field) = &item.resource_field_ref {
            fields::resource_field(field, known.pod, None, known.allocatable)
        } else {
            Ok(String::new())
        };
        match text.and_then(|text| defaults.file(text.into_bytes(), item.mode, item.user)) {
            Ok(file) => {
                files.insert(item.path.clone(), file);
            }
            Err(error) => errors.push(error),
        }
    }
    aggregate(files, errors)
}

fn of_token(
    pod: &Pod,
    source: &ServiceAccountTokenProjection,
    token: Option<&String>,
    defaults: Defaults,
) -> Result<Payload, ConfigError> {
    let token = token.ok_or_else(|| ConfigError::new("a service account token is missing"))?;
    restricted(pod, &source.path, token.clone().into_bytes(), source.user, defaults)
}

/// A file that only some user or group of the pod is to read has no rights for others (upstream: KEP-1205).
fn restricted(
    pod: &Pod,
    path: &str,
    data: Vec<u8>,
    user: Option<i64>,
    defaults: Defaults,
) -> Result<Payload, ConfigError> {
    let user = user.or(defaults.user).or_else(|| only_user(pod));
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let grouped = context.and_then(|context| context.fs_group).is_some();
    let mode = (user.is_some() || grouped).then_some(0o600);
    Ok(Payload::from([(path.to_owned(), defaults.file(data, mode, user)?)]))
}

/// The user that every container of the pod runs as, if they say so (upstream: `FsUserFrom`).
fn only_user(pod: &Pod) -> Option<i64> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(first)
}

/// Go's `NewAggregate`: one cause as it is, several in brackets.
fn aggregate(files: Payload, mut errors: Vec<ConfigError>) -> Result<Payload, ConfigError> {
    match errors.len() {
        0 => Ok(files),
        1 => Err(errors.remove(0)),
        _ => {
            let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
            Err(ConfigError::new(format!("[{}]", texts.join(", "))))
        }
    }
}
