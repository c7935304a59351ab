//! What a pod takes from a node: upstream's `resourcehelper.PodRequests`.
//!
//! Sidecars run beside everything that starts after them, other init containers one at a time before the containers, so a pod
//! takes the larger of both phases; pod-level requests replace the sum, and the sandbox's overhead is added (KEP-753, KEP-2837).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use skep_client::slim::{SlimContainer, SlimPod};

/// CPU that a container without a request counts as in scores, in thousandths.
const DEFAULT_MILLI_CPU: i64 = 100;
/// Memory that a container without a request counts as in scores, in bytes.
const DEFAULT_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts by resource name: thousandths of cores for `cpu`, else bytes or a count.
type Amounts = BTreeMap<Box<str>, i64>;

/// What a pod requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Amounts above zero by resource name: `cpu` in thousandths of cores, `memory` and `ephemeral-storage` in bytes, others as counted.
    pub amounts: Box<[(Box<str>, i64)]>,
    /// CPU for scores, in thousandths: 100 for each container that requests none.
    pub scoring_cpu: i64,
    /// Memory for scores, in bytes: 200 MiB for each container that requests none.
    pub scoring_memory: i64,
}

impl Requests {
    /// The requests of a pod by its spec.
    #[must_use]
    pub fn of(pod: &SlimPod) -> Self {
        let exact = total(pod, Missing::Nothing);
        let scoring = total(pod, Missing::Defaults);
        let of = |name: &str| scoring.get(name).copied().unwrap_or(0);
        Self {
            scoring_cpu: of("cpu"),
            scoring_memory: of("memory"),
            amounts: exact.into_iter().filter(|(name, amount)| *amount > 0 && is_accounted(name)).collect(),
        }
    }

    /// The amount of a resource, 0 if it isn't requested.
    #[must_use]
    pub fn amount(&self, name: &str) -> i64 {
        self.amounts.iter().find(|(own, _)| &**own == name).map_or(0, |(_, amount)| *amount)
    }
}

/// Whether nodes account for that resource: the three basic ones, and what has a prefix (`schedutil.IsScalarResourceName`).
pub(crate) fn is_accounted(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || name.contains('/')
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
}

/// A quantity as columns hold it. What can't be read is nothing: the API server let no such text in.
pub(crate) fn amount(name: &str, quantity: &Quantity) -> i64 {
    let Ok(parsed) = quantity.0.parse::<skep_api::quantity::Quantity>() else { return 0 };
    if name == "cpu" { parsed.milli_value() } else { parsed.value() }
}

/// What a container counts as for a resource that it doesn't request.
#[derive(Clone, Copy)]
enum Missing {
    Nothing,
    Defaults,
}

fn total(pod: &SlimPod, missing: Missing) -> Amounts {
    let mut sum = Amounts::new();
    for container in &pod.spec.containers {
        add(&mut sum, &container_amounts(container, missing));
    }
    let mut sidecars = Amounts::new();
    let mut starting = Amounts::new();
    for container in &pod.spec.init_containers {
        let mut own = container_amounts(container, missing);
        if is_sidecar(container) {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut starting, &sidecars);
        } else {
            add(&mut own, &sidecars);
            raise(&mut starting, &own);
        }
    }
    raise(&mut sum, &starting);
    for (name, quantity) in &pod.spec.resources.requests {
        if matches!(&**name, "cpu" | "memory") || name.starts_with("hugepages-") {
            sum.insert(name.as_str().into(), amount(name, quantity));
        }
    }
    let overhead = pod.spec.overhead.iter().map(|(name, quantity)| (name.as_str().into(), amount(name, quantity)));
    add(&mut sum, &overhead.collect());
    sum
}

/// Whether an init container keeps running beside the containers (KEP-753).
pub(crate) fn is_sidecar(container: &SlimContainer) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn container_amounts(container: &SlimContainer, missing: Missing) -> Amounts {
    let requests = container.resources.requests.iter();
    let mut amounts: Amounts =
        requests.map(|(name, quantity)| (name.as_str().into(), amount(name, quantity))).collect();
    match missing {
        Missing::Nothing => {}
        Missing::Defaults => {
            amounts.entry("cpu".into()).or_insert(DEFAULT_MILLI_CPU);
            amounts.entry("memory".into()).or_insert(DEFAULT_MEMORY);
        }
    }
    amounts
}

fn add(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = sum.entry(name.clone()).or_insert(0);
        *own = own.saturating_add(*amount);
    }
}

fn raise(sum: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let own = sum.entry(name.clone()).or_insert(0);
        *own = (*own).max(*amount);
    }
}
