//! NodeAffinity: `nodeSelector` and required terms choose nodes by label and name; preferred terms add their weight.
//!
//! Upstream: `component-helpers/scheduling/corev1/nodeaffinity`. A term that can't be read matches nothing, and an empty one
//! neither. Required terms that all list node names leave the other nodes out before any filter (its `PreFilterResult`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::Refusal;
use crate::core::{NodeIndex, Pod, Snapshot};

pub(crate) struct NodeAffinity<'a> {
    /// Labels by number; none if no node has such a label, so that nothing matches.
    selector: Option<Vec<(u32, u32)>>,
    required: Option<Vec<Term<'a>>>,
    preferred: Vec<(i64, Term<'a>)>,
    names: Option<BTreeSet<&'a str>>,
}

impl<'a> NodeAffinity<'a> {
    pub(crate) fn prepare(snapshot: &Snapshot, pod: &'a Pod) -> Self {
        let selector = pod.node_selector.iter();
        let selector = selector.map(|(key, value)| Some((snapshot.label_key(key)?, snapshot.label_value(value)?)));
        let preferred = pod.preferred_terms.iter().filter(|term| term.weight != 0);
        Self {
            selector: selector.collect(),
            required: (pod.required_terms.as_deref())
                .map(|terms| terms.iter().filter_map(|term| Term::prepare(snapshot, term)).collect()),
            preferred: preferred
                .filter_map(|term| Some((i64::from(term.weight), Term::prepare(snapshot, &term.preference)?)))
                .collect(),
            names: pod.required_terms.as_deref().and_then(listed_names),
        }
    }

    /// Whether the required terms list node names that contradict each other.
    pub(crate) fn is_contradictory(&self) -> bool {
        self.names.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Whether the node is among those that the required terms list by name, if they do.
    pub(crate) fn names(&self, snapshot: &Snapshot, node: NodeIndex) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(snapshot.node_name(node)))
    }

    pub(crate) fn filter(&self, snapshot: &Snapshot, node: NodeIndex) -> Option<Refusal> {
        let selected = (self.selector.as_ref())
            .is_some_and(|labels| labels.iter().all(|(key, value)| snapshot.label(node, *key) == Some(*value)));
        let required = self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(snapshot, node)));
        (!selected || !required).then_some(Refusal::Affinity)
    }

    /// Whether there are preferences at all.
    pub(crate) fn scores(&self) -> bool {
        !self.preferred.is_empty()
    }

    /// The weights of the preferred terms that match.
    pub(crate) fn score(&self, snapshot: &Snapshot, node: NodeIndex) -> i64 {
        let matching = self.preferred.iter().filter(|(_, term)| term.matches(snapshot, node));
        matching.map(|(weight, _)| weight).sum()
    }
}

/// The names that the terms admit, if each of them lists some.
fn listed_names(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<&str>> {
    let mut all = BTreeSet::new();
    for term in terms {
        let lists =
            term.match_fields.iter().flatten().filter(|field| field.key == "metadata.name" && field.operator == "In");
        let mut own: Option<BTreeSet<&str>> = None;
        for list in lists {
            let names: BTreeSet<&str> = list.values.iter().flatten().map(String::as_str).collect();
            own = Some(match own {
                Some(own) => own.intersection(&names).copied().collect(),
                None => names,
            });
        }
        all.extend(own?);
    }
    (!terms.is_empty()).then_some(all)
}

/// A term with its keys and values as numbers.
struct Term<'a> {
    labels: Vec<Requirement>,
    fields: &'a [NodeSelectorRequirement],
}

impl<'a> Term<'a> {
    /// None for a term that matches nothing: an empty one, or one that can't be read.
    fn prepare(snapshot: &Snapshot, term: &'a NodeSelectorTerm) -> Option<Self> {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if expressions.is_empty() && fields.is_empty() {
            return None;
        }
        let readable = |field: &NodeSelectorRequirement| {
            matches!(field.operator.as_str(), "In" | "NotIn") && field.values.as_ref().is_some_and(|v| v.len() == 1)
        };
        if !fields.iter().all(readable) {
            return None;
        }
        let labels = expressions.iter().map(|expression| Requirement::prepare(snapshot, expression));
        Some(Self { labels: labels.collect::<Option<_>>()?, fields })
    }

    fn matches(&self, snapshot: &Snapshot, node: NodeIndex) -> bool {
        let field = |field: &NodeSelectorRequirement| {
            // A node has no other field than its name: an unknown one reads as empty.
            let value = if field.key == "metadata.name" { snapshot.node_name(node) } else { "" };
            let listed = field.values.iter().flatten().any(|own| own == value);
            listed == (field.operator == "In")
        };
        self.labels.iter().all(|requirement| requirement.matches(snapshot, node)) && self.fields.iter().all(field)
    }
}

/// What is asked of one label. Without a key number no node has that label.
struct Requirement {
    key: Option<u32>,
    test: Test,
}

enum Test {
    In(Vec<u32>),
    NotIn(Vec<u32>),
    Exists,
    DoesNotExist,
    Above(i64),
    Below(i64),
}

impl Requirement {
    fn prepare(snapshot: &Snapshot, requirement: &NodeSelectorRequirement) -> Option<Self> {
        let values = requirement.values.as_deref().unwrap_or_default();
        let known = || values.iter().filter_map(|value| snapshot.label_value(value)).collect();
        let number = || match values {
            [value] => value.parse::<i64>().ok(),
            _ => None,
        };
        let test = match requirement.operator.as_str() {
            "In" if !values.is_empty() => Test::In(known()),
            "NotIn" if !values.is_empty() => Test::NotIn(known()),
            "Exists" if values.is_empty() => Test::Exists,
            "DoesNotExist" if values.is_empty() => Test::DoesNotExist,
            "Gt" => Test::Above(number()?),
            "Lt" => Test::Below(number()?),
            _ => return None,
        };
        Some(Self { key: snapshot.label_key(&requirement.key), test })
    }

    fn matches(&self, snapshot: &Snapshot, node: NodeIndex) -> bool {
        let value = self.key.and_then(|key| snapshot.label(node, key));
        let number = || value.and_then(|value| snapshot.label_text(value).parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(&value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(&value)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::Above(limit) => number().is_some_and(|number| number > *limit),
            Test::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}
