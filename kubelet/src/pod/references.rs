//! Which ConfigMaps and Secrets a container or a pod refers to.
//!
//! Invariant: pure; whether a reference is optional is for its reader ([`super::resolve`], [`crate::volumes`]) to judge,
//! so that one fetch serves optional and required references alike.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

/// Names in the pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct References {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl References {
    /// What `env` and `envFrom` of a container refer to.
    pub fn of_environment(container: &Container) -> Self {
        let mut found = Self::default();
        for from in container.env_from.iter().flatten() {
            found.config_maps.extend(from.config_map_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(from.secret_ref.iter().map(|reference| reference.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
            found.config_maps.extend(source.config_map_key_ref.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret_key_ref.iter().map(|reference| reference.name.clone()));
        }
        found
    }

    /// What a volume refers to.
    pub fn of_volume(volume: &Volume) -> Self {
        let mut found = Self::default();
        found.config_maps.extend(volume.config_map.iter().map(|source| source.name.clone()));
        found.secrets.extend(volume.secret.iter().filter_map(|source| source.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            found.config_maps.extend(source.config_map.iter().map(|reference| reference.name.clone()));
            found.secrets.extend(source.secret.iter().map(|reference| reference.name.clone()));
        }
        found
    }

    /// What the pod refers to anywhere: its containers, its volumes, and the secrets that its images are pulled with.
    pub fn of_pod(pod: &Pod) -> Self {
        let mut found = Self::default();
        let Some(spec) = &pod.spec else { return found };
        for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
            found.add(Self::of_environment(container));
        }
        spec.volumes.iter().flatten().for_each(|volume| found.add(Self::of_volume(volume)));
        found.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|reference| reference.name.clone()));
        found
    }

    fn add(&mut self, other: Self) {
        self.config_maps.extend(other.config_maps);
        self.secrets.extend(other.secrets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_references_are_found_wherever_they_are() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [{"name": "i", "envFrom": [{"configMapRef": {"name": "a"}}, {"secretRef": {"name": "s"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "b", "key": "k"}}},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}},
            ]}],
            "volumes": [
                {"name": "v", "configMap": {"name": "c"}}, {"name": "w", "secret": {"secretName": "u"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "d"}}, {"secret": {"name": "v"}}]}},
            ],
            "imagePullSecrets": [{"name": "w"}],
        }}))
        .unwrap();
        let found = References::of_pod(&pod);
        assert_eq!(found.config_maps.into_iter().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(found.secrets.into_iter().collect::<Vec<_>>(), ["s", "t", "u", "v", "w"]);
    }
}
