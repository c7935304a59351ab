//! What the core answers: a node, or why there is none, in the words that upstream's users know.

use std::collections::BTreeMap;
use std::fmt;

use super::plugins::{Plugin, PluginSet, Refusal};
use super::pod::Pod;
use super::snapshot::{NodeIndex, Snapshot};

/// The core's answer for one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The pod goes to the node of this name.
    Node(Box<str>),
    /// No node will do.
    Unschedulable(FitError),
    /// There is no node at all.
    NoNodes,
}

/// Why no node will do: how many nodes said what (`framework.FitError`).
///
/// Its text is upstream's: `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s). preemption: …`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FitError {
    /// How many nodes there are.
    pub nodes: usize,
    /// Nodes by the reason that they gave; a node may give several.
    pub reasons: BTreeMap<String, usize>,
    /// A reason that lies in the pod itself and holds for all nodes.
    pub general: Option<&'static str>,
    /// Plugins that refused: what must change before it is worth another try.
    pub plugins: PluginSet,
    preemption: Preemption,
}

/// What preemption could do: nodes where the refusal could be lifted by removing pods, and whether one has a victim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Preemption {
    never: bool,
    without_victims: usize,
    has_victims: bool,
}

/// Collects refusals while nodes are filtered. Equal ones are counted, and put into words once at the end.
pub(crate) struct Diagnosis<'a> {
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    refusals: Vec<(Refusal, usize)>,
    preemption: Preemption,
}

impl<'a> Diagnosis<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, pod: &'a Pod) -> Self {
        let preemption = Preemption { never: !pod.preempts, ..Preemption::default() };
        Self { snapshot, pod, refusals: Vec::new(), preemption }
    }

    pub(crate) fn count(&mut self, node: NodeIndex, refusal: Refusal) {
        if refusal.is_resolvable() {
            if self.snapshot.has_pod_below(node, self.pod.priority) {
                self.preemption.has_victims = true;
            } else {
                self.preemption.without_victims += 1;
            }
        }
        match self.refusals.iter_mut().find(|(own, _)| *own == refusal) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((refusal, 1)),
        }
    }

    pub(crate) fn finish(self) -> FitError {
        let mut error = self.empty();
        for (refusal, count) in &self.refusals {
            error.plugins.insert(refusal.plugin());
            for reason in refusal.reasons(&self.pod.requests) {
                *error.reasons.entry(reason.into_owned()).or_default() += count;
            }
        }
        error
    }

    pub(crate) fn contradictory_affinity(self) -> FitError {
        let mut error = self.empty();
        error.general = Some("pod affinity terms conflict");
        error.plugins.insert(Plugin::NodeAffinity);
        error
    }

    fn empty(&self) -> FitError {
        FitError { nodes: self.snapshot.node_count(), preemption: self.preemption, ..FitError::default() }
    }
}

impl FitError {
    /// What upstream's preemption says when it finds nobody to remove. Where somebody could be removed nothing is said.
    fn preemption(&self) -> Option<String> {
        if self.preemption.never {
            return Some("not eligible due to preemptionPolicy=Never.".to_owned());
        }
        if self.preemption.has_victims {
            return None;
        }
        let without_victims = self.preemption.without_victims;
        let counts = [
            (without_victims, "No preemption victims found for incoming pod"),
            (self.nodes - without_victims, "Preemption is not helpful for scheduling"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        Some(available(self.nodes, counts.map(|(count, reason)| format!("{count} {reason}")).collect()))
    }
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = match self.general {
            Some(general) => vec![general.to_owned()],
            None => self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect(),
        };
        f.write_str(&available(self.nodes, lines))?;
        match self.preemption() {
            Some(preemption) => write!(f, " preemption: {preemption}"),
            None => Ok(()),
        }
    }
}

/// Upstream sorts the lines as text, so that `10 a` comes before `9 b`.
fn available(nodes: usize, mut lines: Vec<String>) -> String {
    lines.sort_unstable();
    if lines.is_empty() {
        return format!("0/{nodes} nodes are available:");
    }
    format!("0/{nodes} nodes are available: {}.", lines.join(", "))
}
