//! The kinds that are served now: the built-in ones, and those that CustomResourceDefinitions add. Read on every request without a lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skep_api::kinds::Kind;
use skep_api::{GroupResource, GroupVersion};

/// The table of kinds at one moment.
#[derive(Default)]
pub struct Table {
    by_path: HashMap<(String, String, String), Arc<Kind>>,
    groups: Vec<GroupVersions>,
    /// The resources that objects of other kinds are stored under, too.
    shared: Vec<(&'static str, &'static str)>,
    /// Kinds that are known only because objects are stored so.
    unserved: Vec<Arc<Kind>>,
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
        Self::of(kinds.into_iter().map(Arc::new))
    }

    /// A table of declarations that are shared already. Where two are for one path, the first is served.
    fn of(kinds: impl IntoIterator<Item = Arc<Kind>>) -> Self {
        let mut table = Self::default();
        let mut by_group: Vec<(String, ByVersion)> = Vec::new();
        for kind in kinds {
            let GroupVersion { group, version } = &kind.group_version;
            if !kind.served {
                table.unserved.push(kind);
                continue;
            }
            let path = (group.to_string(), version.to_string(), kind.plural.to_string());
            if kind.custom.is_some() && table.by_path.contains_key(&path) {
                continue;
            }
            table.shared.extend(kind.conversion.map(|conversion| conversion.stored_as));
            table.by_path.insert(path, kind.clone());
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
            || kind.custom.is_some()
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
        let stores = |kind: &Kind| {
            let own = kind.custom.as_ref().is_none_or(|custom| custom.stored_as == kind.group_version);
            own && kind.conversion.is_none() && kind.group_resource() == *resource
        };
        self.kinds().chain(&self.unserved).find(|kind| stores(kind))
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
pub struct Registry {
    table: ArcSwap<Table>,
    builtin: Vec<Arc<Kind>>,
    /// By the name of the definition.
    custom: Mutex<BTreeMap<String, Vec<Arc<Kind>>>>,
}

impl Registry {
    /// A registry that begins with the built-in kinds.
    #[must_use]
    pub fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        let builtin: Vec<Arc<Kind>> = kinds.into_iter().map(Arc::new).collect();
        let table = ArcSwap::from_pointee(Table::of(builtin.iter().cloned()));
        Self { table, builtin, custom: Mutex::default() }
    }

    /// The table now.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Replaces the kinds of a definition; none takes it away. Answers with those that were there.
    pub fn define(&self, definition: &str, kinds: Vec<Kind>) -> Vec<Arc<Kind>> {
        let mut custom = self.custom.lock();
        let before = if kinds.is_empty() {
            custom.remove(definition)
        } else {
            custom.insert(definition.to_owned(), kinds.into_iter().map(Arc::new).collect())
        };
        let table = Table::of(self.builtin.iter().chain(custom.values().flatten()).cloned());
        self.table.store(Arc::new(table));
        before.unwrap_or_default()
    }
}
