//! The kinds that are served now: the built-in ones, and room for those that CustomResourceDefinitions will add. Read on every request without a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use skep_api::kinds::Kind;
use skep_api::{GroupResource, GroupVersion};

/// The table of kinds at one moment.
#[derive(Default)]
pub struct Table {
    by_path: HashMap<(String, String, String), Arc<Kind>>,
    groups: Vec<GroupVersions>,
    /// The resources that objects of other kinds are stored under, too.
    shared: Vec<(&'static str, &'static str)>,
}

/// Kinds by version.
type ByVersion = BTreeMap<String, Vec<Arc<Kind>>>;

/// One API group as discovery lists it.
pub struct GroupVersions {
    /// Its name; empty for core.
    pub group: String,
    /// Its versions, the preferred first, each with its kinds by plural name.
    pub versions: Vec<(GroupVersion, Vec<Arc<Kind>>)>,
}

impl Table {
    /// A table of declarations; groups keep the order in which they come.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let mut table = Self::default();
        let mut by_group: Vec<(String, ByVersion)> = Vec::new();
        for kind in kinds {
            let kind = Arc::new(kind);
            let GroupVersion { group, version } = &kind.group_version;
            table.shared.extend(kind.conversion.map(|conversion| conversion.stored_as));
            table.by_path.insert((group.to_string(), version.to_string(), kind.plural.to_string()), kind.clone());
            let at = by_group.iter().position(|(name, _)| name == group).unwrap_or_else(|| {
                by_group.push((group.to_string(), BTreeMap::new()));
                by_group.len() - 1
            });
            by_group[at].1.entry(version.to_string()).or_default().push(kind);
        }
        for (group, versions) in by_group {
            let mut versions: Vec<_> = versions
                .into_values()
                .map(|mut kinds| {
                    kinds.sort_by(|a, b| a.plural.cmp(&b.plural));
                    (kinds[0].group_version.clone(), kinds)
                })
                .collect();
            versions.sort_by_key(|(gv, _)| std::cmp::Reverse(priority(&gv.version)));
            table.groups.push(GroupVersions { group, versions });
        }
        table
    }

    /// The kind behind a path.
    #[must_use]
    pub fn get(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        self.by_path.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// Whether objects of a kind can be seen as another kind or in another version.
    #[must_use]
    pub fn is_shared(&self, kind: &Kind) -> bool {
        kind.conversion.is_some()
            || self.shared.iter().any(|(group, plural)| kind.plural == *plural && kind.group_version.group == *group)
    }

    /// The groups, core first as declared.
    #[must_use]
    pub fn groups(&self) -> &[GroupVersions] {
        &self.groups
    }

    /// Every kind of every version.
    pub fn kinds(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.groups.iter().flat_map(|group| group.versions.iter().flat_map(|(_, kinds)| kinds))
    }

    /// The kind whose objects are stored under a resource.
    #[must_use]
    pub fn stored(&self, resource: &GroupResource) -> Option<&Arc<Kind>> {
        self.kinds().find(|kind| kind.conversion.is_none() && kind.group_resource() == *resource)
    }
}

/// Upstream's order of versions (version.CompareKubeAwareVersionStrings): v2, v1, v1beta2, v1beta1, v1alpha1.
fn priority(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.parse().unwrap_or(0);
    let rest = version.trim_start_matches('v');
    if let Some((major, minor)) = rest.split_once("beta") {
        (1, digits(major), digits(minor))
    } else if let Some((major, minor)) = rest.split_once("alpha") {
        (0, digits(major), digits(minor))
    } else {
        (2, digits(rest), 0)
    }
}

/// The table, replaced whole when it changes.
pub struct Registry(ArcSwap<Table>);

impl Registry {
    /// A registry that begins with a table.
    #[must_use]
    pub fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    /// The table now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.0.load_full()
    }
}
