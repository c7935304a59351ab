//! A container's variables (upstream: `makeEnvironmentVariables`).
//!
//! Invariant: pure. Order: Services, then `envFrom` in order with its keys sorted, then `env` as written; a later one of
//! the same name takes the value, and stays where the first was.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, EnvVarSource, FileKeySelector, Secret};

use super::env_file::{self, EnvFiles};
use super::services::service_variables;
use super::{ConfigError, Context, fields, name_files};
use crate::pod::expansion::expand;

/// Where programs are looked for if the image says nothing (containerd's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables with their values, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Environment {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.order.iter().map(|name| (name.as_str(), self.get(name).unwrap_or_default()))
    }

    fn set(&mut self, name: String, value: String) {
        if self.values.insert(name.clone(), value).is_none() {
            self.order.push(name);
        }
    }
}

/// The variables that the pod gives to the container; what the image and the runtime give is [`with_defaults`].
///
/// # Errors
/// When a reference that isn't optional leads nowhere, with upstream's message.
pub fn environment(ctx: &Context<'_>, files: &EnvFiles) -> Result<Environment, ConfigError> {
    let mut environment = Environment::default();
    let links = ctx.spec()?.enable_service_links.unwrap_or(true);
    for (name, value) in service_variables(ctx.services, ctx.namespace(), links) {
        environment.set(name, value);
    }
    for from in ctx.container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let Some(map) = config_map(ctx, &reference.name, reference.optional)? else { continue };
            for (key, value) in map.data.iter().flatten() {
                environment.set(format!("{prefix}{key}"), value.clone());
            }
        } else if let Some(reference) = &from.secret_ref {
            let Some(secret) = secret(ctx, &reference.name, reference.optional)? else { continue };
            for (key, value) in secret.data.iter().flatten() {
                environment.set(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
            }
        }
    }
    for variable in ctx.container.env.iter().flatten() {
        let value = match (variable.value.as_deref().filter(|value| !value.is_empty()), &variable.value_from) {
            (Some(value), _) => Some(expand(value, |name| environment.get(name))),
            (None, Some(source)) => value_from(ctx, source, files)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            environment.set(variable.name.clone(), value);
        }
    }
    Ok(environment)
}

/// `NAME=value` for the process: what the runtime and the image say, and over it what the pod says.
pub fn with_defaults(ctx: &Context<'_>, environment: &Environment) -> Result<Vec<String>, ConfigError> {
    let hostname = if ctx.spec()?.host_network.unwrap_or(false) {
        ctx.node.hostname.clone()
    } else {
        name_files::pod_hostname(ctx.pod, &ctx.node.cluster_domain)?.kernel
    };
    let mut all = Environment::default();
    all.set("PATH".to_owned(), DEFAULT_PATH.to_owned());
    all.set("HOSTNAME".to_owned(), hostname);
    if ctx.container.tty.unwrap_or(false) {
        all.set("TERM".to_owned(), "xterm".to_owned());
    }
    for variable in &ctx.image.env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        all.set(name.to_owned(), value.to_owned());
    }
    for (name, value) in environment.iter() {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(ConfigError::new(format!("environment variable {name:?} can't be given to a process")));
        }
        all.set(name.to_owned(), value.to_owned());
    }
    Ok(all.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// None is an optional reference that leads nowhere: the variable is not set.
fn value_from(ctx: &Context<'_>, source: &EnvVarSource, files: &EnvFiles) -> Result<Option<String>, ConfigError> {
    if let Some(field) = &source.field_ref {
        return fields::variable_field(field, ctx.pod, ctx.pod_ips, ctx.node).map(Some);
    }
    if let Some(field) = &source.resource_field_ref {
        return fields::resource_field(field, ctx.pod, Some(ctx.container), &ctx.node.allocatable).map(Some);
    }
    if let Some(reference) = &source.config_map_key_ref {
        let Some(map) = config_map(ctx, &reference.name, reference.optional)? else { return Ok(None) };
        let value = map.data.as_ref().and_then(|data| data.get(&reference.key)).cloned();
        return found(value, reference.optional, || ("ConfigMap", &reference.key, &reference.name), ctx);
    }
    if let Some(reference) = &source.secret_key_ref {
        let Some(secret) = secret(ctx, &reference.name, reference.optional)? else { return Ok(None) };
        let value = secret.data.as_ref().and_then(|data| data.get(&reference.key));
        let value = value.map(|value| String::from_utf8_lossy(&value.0).into_owned());
        return found(value, reference.optional, || ("Secret", &reference.key, &reference.name), ctx);
    }
    if let Some(reference) = &source.file_key_ref {
        return of_file(reference, files);
    }
    Ok(Some(String::new()))
}

fn of_file(reference: &FileKeySelector, files: &EnvFiles) -> Result<Option<String>, ConfigError> {
    let FileKeySelector { key, path, volume_name, optional } = reference;
    let text = match files.get(&(volume_name.clone(), path.clone())) {
        Some(Ok(text)) => text,
        Some(Err(why)) => return Err(ConfigError::new(why)),
        None => {
            let message = format!("cannot find the volume {volume_name:?} referenced by FileKeyRef");
            return Err(ConfigError::new(message));
        }
    };
    match env_file::value(text, key) {
        Ok(None) if !optional.unwrap_or(false) => {
            Err(ConfigError::new(format!("environment variable key {key:?} not found in file {path:?}")))
        }
        Ok(value) => Ok(value),
        Err(_) => Err(ConfigError::new("couldn't parse env file")),
    }
}

fn found<'n>(
    value: Option<String>,
    optional: Option<bool>,
    what: impl FnOnce() -> (&'n str, &'n String, &'n String),
    ctx: &Context<'_>,
) -> Result<Option<String>, ConfigError> {
    if value.is_some() || optional.unwrap_or(false) {
        return Ok(value);
    }
    let (kind, key, name) = what();
    Err(ConfigError::new(format!("couldn't find key {key} in {kind} {}/{name}", ctx.namespace())))
}

fn config_map<'a>(ctx: &Context<'a>, name: &str, optional: Option<bool>) -> Result<Option<&'a ConfigMap>, ConfigError> {
    match ctx.config_maps.get(name) {
        Some(map) => Ok(Some(map)),
        None if optional.unwrap_or(false) => Ok(None),
        None => Err(ConfigError::new(format!("configmap {name:?} not found"))),
    }
}

fn secret<'a>(ctx: &Context<'a>, name: &str, optional: Option<bool>) -> Result<Option<&'a Secret>, ConfigError> {
    match ctx.secrets.get(name) {
        Some(secret) => Ok(Some(secret)),
        None if optional.unwrap_or(false) => Ok(None),
        None => Err(ConfigError::new(format!("secret {name:?} not found"))),
    }
}
