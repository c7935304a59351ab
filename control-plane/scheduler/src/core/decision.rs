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

impl FitError {
    pub(crate) fn new(snapshot: &Snapshot, pod: &Pod) -> Self {
        let preemption = Preemption { never: !pod.preempts, ..Preemption::default() };
        Self { nodes: snapshot.node_count(), preemption, ..Self::default() }
    }

    pub(crate) fn contradictory_affinity(snapshot: &Snapshot, pod: &Pod) -> Self {
        let mut error = Self::new(snapshot, pod);
        error.general = Some("pod affinity terms conflict");
        error.plugins.insert(Plugin::NodeAffinity);
        error
    }

    pub(crate) fn count(&mut self, snapshot: &Snapshot, pod: &Pod, node: NodeIndex, refusal: &Refusal) {
        self.plugins.insert(refusal.plugin());
        for reason in refusal.reasons(&pod.requests) {
            match self.reasons.get_mut(&*reason) {
                Some(count) => *count += 1,
                None => {
                    self.reasons.insert(reason.into_owned(), 1);
                }
            }
        }
        if refusal.is_resolvable() {
            if snapshot.has_pod_below(node, pod.priority) {
                self.preemption.has_victims = true;
            } else {
                self.preemption.without_victims += 1;
            }
        }
    }

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
