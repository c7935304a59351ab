//! Role-based access control, in memory: the rules of a subject are found by the subject, so that a decision costs its own rules and nobody else's.
//!
//! Fed by the watch cache ([`Rbac::apply`]). Aggregated ClusterRoles are computed when they are asked for, never stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::RwLock;
use serde_json::{Value, json};
use skep_api::selector::LabelSelector;

use super::super::{Attributes, SERVICE_ACCOUNT_PREFIX, Target, User};
use super::Decision;

/// The API group.
pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
/// The resources that this index is fed with.
pub(super) const RESOURCES: [&str; 4] = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

/// A PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `verbs`
    pub verbs: Vec<String>,
    /// `apiGroups`
    pub groups: Vec<String>,
    /// `resources`
    pub resources: Vec<String>,
    /// `resourceNames`
    pub names: Vec<String>,
    /// `nonResourceURLs`
    pub urls: Vec<String>,
}

impl Rule {
    /// Reads the `rules` of a role.
    #[must_use]
    pub fn list(rules: &Value) -> Vec<Self> {
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        rules
            .as_array()
            .into_iter()
            .flatten()
            .map(|rule| Self {
                verbs: strings(&rule["verbs"]),
                groups: strings(&rule["apiGroups"]),
                resources: strings(&rule["resources"]),
                names: strings(&rule["resourceNames"]),
                urls: strings(&rule["nonResourceURLs"]),
            })
            .collect()
    }

    /// The rule as it stands in a role.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = json!({ "verbs": self.verbs });
        let parts = [
            ("apiGroups", &self.groups),
            ("resources", &self.resources),
            ("resourceNames", &self.names),
            ("nonResourceURLs", &self.urls),
        ];
        for (key, values) in parts.into_iter().filter(|(_, values)| !values.is_empty()) {
            out[key] = values.iter().map(String::as_str).collect();
        }
        out
    }

    /// Whether the rule allows a wish (upstream's RuleAllows).
    #[must_use]
    pub fn allows(&self, attributes: &Attributes) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|there| there == "*" || there == wanted);
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        match &attributes.target {
            Target::Path(path) => self.urls.iter().any(|url| path_matches(url, path)),
            Target::Resource { group, resource, subresource, name, .. } => {
                has(&self.groups, group)
                    && self.resources.iter().any(|there| resource_matches(there, resource, subresource))
                    && (self.names.is_empty() || self.names.iter().any(|there| there == name))
            }
        }
    }
}

/// `*`, `pods`, `pods/log`, `*/scale`.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((of, sub)) => !subresource.is_empty() && sub == subresource && (of == "*" || of == resource),
    }
}

/// `/healthz/*` matches what begins so.
fn path_matches(rule: &str, path: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => rule == path,
    }
}

/// Whom a binding names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Subject {
    User(String),
    Group(String),
}

/// A binding, as the index keeps it.
#[derive(Debug)]
struct Binding {
    /// Empty for a ClusterRoleBinding.
    namespace: String,
    name: String,
    /// Whether the role is a ClusterRole.
    cluster_role: bool,
    role: String,
    subjects: Vec<Subject>,
}

#[derive(Debug, Default)]
struct ClusterRole {
    rules: Vec<Rule>,
    labels: Value,
    selectors: Vec<LabelSelector>,
}

type Key = (String, String);

#[derive(Default)]
struct State {
    roles: HashMap<Key, Vec<Rule>>,
    cluster_roles: BTreeMap<String, ClusterRole>,
    bindings: HashMap<Key, Arc<Binding>>,
    by_subject: HashMap<Subject, Vec<Arc<Binding>>>,
}

/// The index.
#[derive(Default)]
pub struct Rbac(RwLock<State>);

impl Rbac {
    /// Takes note of a change of a role or binding; `None` when it is gone.
    pub fn apply(&self, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        let mut state = self.0.write();
        let key = (namespace.to_owned(), name.to_owned());
        match (resource, object) {
            ("roles", Some(object)) => drop(state.roles.insert(key, Rule::list(&object["rules"]))),
            ("roles", None) => drop(state.roles.remove(&key)),
            ("clusterroles", Some(object)) => {
                let selectors = object["aggregationRule"]["clusterRoleSelectors"].as_array();
                let role = ClusterRole {
                    rules: Rule::list(&object["rules"]),
                    labels: object["metadata"]["labels"].clone(),
                    selectors: selectors
                        .into_iter()
                        .flatten()
                        .filter_map(|s| LabelSelector::from_object(s).ok())
                        .collect(),
                };
                state.cluster_roles.insert(key.1, role);
            }
            ("clusterroles", None) => drop(state.cluster_roles.remove(&key.1)),
            ("rolebindings" | "clusterrolebindings", object) => {
                state.unbind(&key);
                if let Some(object) = object {
                    state.bind(key, object);
                }
            }
            _ => {}
        }
    }

    /// Decides on a wish.
    #[must_use]
    pub fn authorize(&self, attributes: &Attributes) -> Decision {
        let namespace = match &attributes.target {
            Target::Resource { namespace, .. } => namespace.as_str(),
            Target::Path(_) => "",
        };
        let state = self.0.read();
        for binding in state.bindings_of(&attributes.user, namespace) {
            if state.rules(binding).iter().any(|rule| rule.allows(attributes)) {
                return Decision::Allow { reason: reason(binding, &attributes.user) };
            }
        }
        Decision::NoOpinion { reason: String::new() }
    }

    /// Every rule of a user in a namespace.
    #[must_use]
    pub fn rules_of(&self, user: &User, namespace: &str) -> Vec<Rule> {
        let state = self.0.read();
        state.bindings_of(user, namespace).flat_map(|binding| state.rules(binding)).cloned().collect()
    }

    /// The rules of a role that a binding would refer to.
    #[must_use]
    pub fn rules_of_role(&self, cluster_role: bool, namespace: &str, name: &str) -> Option<Vec<Rule>> {
        let state = self.0.read();
        if cluster_role {
            state.cluster_roles.contains_key(name).then(|| state.cluster_rules(name).into_iter().cloned().collect())
        } else {
            state.roles.get(&(namespace.to_owned(), name.to_owned())).cloned()
        }
    }

    /// The rules that an aggregated ClusterRole has now; `None` when it is not aggregated or not there.
    #[must_use]
    pub fn aggregated(&self, name: &str) -> Option<Vec<Rule>> {
        let state = self.0.read();
        state.cluster_roles.get(name).filter(|role| !role.selectors.is_empty())?;
        let mut seen = HashSet::new();
        Some(state.cluster_rules(name).into_iter().filter(|rule| seen.insert(*rule)).cloned().collect())
    }

    /// What of `wanted` a user does not have: upstream's `validation.Covers`, rule by rule, each broken down to single rights.
    #[must_use]
    pub fn missing(&self, user: &User, namespace: &str, wanted: &[Rule]) -> Vec<Rule> {
        let held = self.rules_of(user, namespace);
        let single = wanted.iter().flat_map(break_down);
        single.filter(|right| !held.iter().any(|rule| covers(rule, right))).collect()
    }
}

impl State {
    fn unbind(&mut self, key: &Key) {
        let Some(old) = self.bindings.remove(key) else { return };
        for subject in &old.subjects {
            if let Some(bindings) = self.by_subject.get_mut(subject) {
                bindings.retain(|binding| !Arc::ptr_eq(binding, &old));
                if bindings.is_empty() {
                    self.by_subject.remove(subject);
                }
            }
        }
    }

    fn bind(&mut self, key: Key, object: &Value) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut subjects: Vec<Subject> = Vec::new();
        for subject in object["subjects"].as_array().into_iter().flatten() {
            let name = text(&subject["name"]);
            let subject = match subject["kind"].as_str() {
                Some("User") => Subject::User(name),
                Some("Group") => Subject::Group(name),
                Some("ServiceAccount") => {
                    let namespace = subject["namespace"].as_str().filter(|ns| !ns.is_empty()).unwrap_or(&key.0);
                    Subject::User(format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"))
                }
                _ => continue,
            };
            if !subjects.contains(&subject) {
                subjects.push(subject);
            }
        }
        let binding = Arc::new(Binding {
            namespace: key.0.clone(),
            name: key.1.clone(),
            cluster_role: object["roleRef"]["kind"] == "ClusterRole",
            role: text(&object["roleRef"]["name"]),
            subjects,
        });
        for subject in &binding.subjects {
            self.by_subject.entry(subject.clone()).or_default().push(binding.clone());
        }
        self.bindings.insert(key, binding);
    }

    /// The bindings that count for a user in a namespace: those of the cluster first, as upstream visits them.
    fn bindings_of<'a>(&'a self, user: &'a User, namespace: &'a str) -> impl Iterator<Item = &'a Binding> {
        let subjects =
            std::iter::once(Subject::User(user.name.clone())).chain(user.groups.iter().cloned().map(Subject::Group));
        let found: Vec<&Arc<Binding>> =
            subjects.filter_map(|subject| self.by_subject.get(&subject)).flatten().collect();
        let of_cluster = found.clone().into_iter().filter(|binding| binding.namespace.is_empty());
        let of_namespace =
            found.into_iter().filter(move |binding| !namespace.is_empty() && binding.namespace == namespace);
        of_cluster.chain(of_namespace).map(|binding| &**binding)
    }

    fn rules(&self, binding: &Binding) -> Vec<&Rule> {
        if binding.cluster_role {
            self.cluster_rules(&binding.role)
        } else {
            let key = (binding.namespace.clone(), binding.role.clone());
            self.roles.get(&key).into_iter().flatten().collect()
        }
    }

    fn cluster_rules(&self, name: &str) -> Vec<&Rule> {
        let Some(role) = self.cluster_roles.get(name) else { return Vec::new() };
        if role.selectors.is_empty() {
            return role.rules.iter().collect();
        }
        // Roles that are selected may select others in turn (edit into admin): walk, each once.
        let mut visited = HashSet::from([name]);
        let mut next = vec![(name, role)];
        let mut rules: Vec<&Rule> = Vec::new();
        while let Some((at, role)) = next.pop() {
            if role.selectors.is_empty() {
                rules.extend(&role.rules);
                continue;
            }
            for (other, selected) in &self.cluster_roles {
                let matches =
                    other != at && role.selectors.iter().any(|selector| selector.matches_object(&selected.labels));
                if matches && visited.insert(other) {
                    next.push((other, selected));
                }
            }
        }
        rules
    }
}

fn reason(binding: &Binding, user: &User) -> String {
    let role = if binding.cluster_role { "ClusterRole" } else { "Role" };
    let subject = binding.subjects.iter().find(|subject| match subject {
        Subject::User(name) => *name == user.name,
        Subject::Group(group) => user.is_in(group),
    });
    let subject = match subject {
        Some(Subject::User(name)) => match super::super::split_service_account(name) {
            Some((namespace, name)) => format!("ServiceAccount \"{name}/{namespace}\""),
            None => format!("User \"{name}\""),
        },
        Some(Subject::Group(name)) => format!("Group \"{name}\""),
        None => String::new(),
    };
    if binding.namespace.is_empty() {
        format!("RBAC: allowed by ClusterRoleBinding \"{}\" of {role} \"{}\" to {subject}", binding.name, binding.role)
    } else {
        format!(
            "RBAC: allowed by RoleBinding \"{}/{}\" of {role} \"{}\" to {subject}",
            binding.name, binding.namespace, binding.role
        )
    }
}

/// A rule as rules with one verb and one resource (or path) each.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.urls {
            out.push(Rule { verbs: vec![verb.clone()], urls: vec![url.clone()], ..Rule::default() });
        }
        for group in &rule.groups {
            for resource in &rule.resources {
                let one = Rule {
                    verbs: vec![verb.clone()],
                    groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                };
                if rule.names.is_empty() {
                    out.push(one);
                } else {
                    out.extend(rule.names.iter().map(|name| Rule { names: vec![name.clone()], ..one.clone() }));
                }
            }
        }
    }
    out
}

/// Whether a rule gives a single right.
fn covers(rule: &Rule, right: &Rule) -> bool {
    let has = |list: &[String], wanted: &[String]| {
        list.iter().any(|there| there == "*") || wanted.iter().all(|w| list.contains(w))
    };
    let resources = || {
        has(&rule.resources, &right.resources)
            || right.resources.iter().all(|wanted| {
                wanted
                    .split_once('/')
                    .is_some_and(|(_, sub)| rule.resources.iter().any(|there| *there == format!("*/{sub}")))
            })
    };
    let names = || {
        rule.names.is_empty() || (!right.names.is_empty() && right.names.iter().all(|name| rule.names.contains(name)))
    };
    let urls =
        || right.urls.iter().all(|wanted| rule.urls.iter().any(|there| there == wanted || path_matches(there, wanted)));
    has(&rule.verbs, &right.verbs)
        && if right.urls.is_empty() { has(&rule.groups, &right.groups) && resources() && names() } else { urls() }
}
