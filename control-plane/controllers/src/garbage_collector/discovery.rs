//! What kinds there are: which ones can be watched and deleted, and which path an owner reference names.

use std::collections::{HashMap, HashSet};

use kube::Client;
use kube::api::ApiResource;
use kube::core::discovery::v2::APIGroupDiscoveryList;

/// A kind of object in one version.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Resource {
    pub(crate) api: ApiResource,
    pub(crate) namespaced: bool,
}

/// All kinds of the API server.
#[derive(Debug, Default)]
pub(crate) struct Discovered {
    /// Kinds to watch, each in its preferred version.
    pub(crate) deletable: HashSet<Resource>,
    /// Every kind in every version, by `apiVersion` and `kind`.
    pub(super) by_kind: HashMap<(String, String), Resource>,
}

/// Asks the API server what there is.
pub(crate) async fn discover(client: &Client) -> Result<Discovered, kube::Error> {
    let mut found = Discovered::default();
    found.add(&client.list_core_api_versions_aggregated().await?);
    found.add(&client.list_api_groups_aggregated().await?);
    Ok(found)
}

impl Discovered {
    fn add(&mut self, discovery: &APIGroupDiscoveryList) {
        for group in &discovery.items {
            let group_name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
            // The versions are in order of preference: a kind is watched in the first one that has it.
            let mut seen = HashSet::new();
            for version in &group.versions {
                let version_name = version.version.clone().unwrap_or_default();
                for resource in &version.resources {
                    let has = |verb: &str| resource.verbs.iter().any(|own| own == verb);
                    let plural = resource.resource.clone().unwrap_or_default();
                    let kind = resource.response_kind.as_ref().and_then(|kind| kind.kind.clone()).unwrap_or_default();
                    let api_version = match group_name.as_str() {
                        "" => version_name.clone(),
                        group => format!("{group}/{version_name}"),
                    };
                    let api = ApiResource {
                        group: group_name.clone(),
                        version: version_name.clone(),
                        api_version: api_version.clone(),
                        kind: kind.clone(),
                        plural: plural.clone(),
                    };
                    let namespaced = resource.scope.as_deref() == Some("Namespaced");
                    let found = Resource { api, namespaced };
                    if has("get") {
                        self.by_kind.insert((api_version, kind), found.clone());
                    }
                    // Events are many, have no owners and end by their time, so nobody watches them here.
                    let watched = has("delete") && has("list") && has("watch") && plural != "events";
                    if watched && seen.insert(plural) {
                        self.deletable.insert(found);
                    }
                }
            }
        }
    }
}
