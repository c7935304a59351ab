//! What the core answers: a node, or why there is none, in the words that upstream's users know.

use std::collections::BTreeMap;
use std::fmt;

use super::plugins::{Plugin, PluginSet, Refusal};
use super::pod::Pod;
use super::preemption::Preemption;
use super::snapshot::{NodeIndex, Snapshot};

/// The core's answer for one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The pod goes to the node of this name.
    Node(Box<str>),
    /// No node will do.
    Unschedulable(FitError),
    /// No node will do, until pods of a lower priority have made room on one.
    Preempt(FitError, Preemption),
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
    /// What preemption said; nothing where it made room.
    preemption: Option<String>,
}

/// What became of preemption.
pub(crate) enum Outcome {
    /// The pod never preempts.
    Never,
    /// Whom it preempted has not gone yet.
    Waits,
    /// It makes room.
    Made,
    /// Nobody's removal would do; the reasons are those of nodes where there was somebody.
    Nobody(BTreeMap<String, usize>),
}

/// Collects refusals while nodes are filtered. Equal ones are counted, and put into words once at the end.
pub(crate) struct Diagnosis<'a> {
    snapshot: &'a Snapshot,
    pod: &'a Pod,
    refusals: Vec<(Refusal, usize)>,
    /// Nodes where removing pods of a lower priority could help.
    resolvable: Vec<NodeIndex>,
    /// How many more there would be if they had such pods.
    without_victims: usize,
}

impl<'a> Diagnosis<'a> {
    pub(crate) fn new(snapshot: &'a Snapshot, pod: &'a Pod) -> Self {
        Self { snapshot, pod, refusals: Vec::new(), resolvable: Vec::new(), without_victims: 0 }
    }

    /// The nodes where removing pods of a lower priority could help.
    pub(crate) fn resolvable(&self) -> &[NodeIndex] {
        &self.resolvable
    }

    pub(crate) fn count(&mut self, node: NodeIndex, refusal: Refusal) {
        if refusal.is_resolvable() {
            if self.snapshot.has_pod_below(node, self.pod.priority) {
                self.resolvable.push(node);
            } else {
                self.without_victims += 1;
            }
        }
        match self.refusals.iter_mut().find(|(own, _)| *own == refusal) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((refusal, 1)),
        }
    }

    pub(crate) fn finish(self, outcome: Outcome) -> FitError {
        let mut error = self.empty(outcome);
        for (refusal, count) in &self.refusals {
            error.plugins.insert(refusal.plugin());
            for reason in refusal.reasons(&self.pod.requests) {
                *error.reasons.entry(reason.into_owned()).or_default() += count;
            }
        }
        error
    }

    pub(crate) fn contradictory_affinity(self) -> FitError {
        let outcome = if self.pod.preempts { Outcome::Nobody(BTreeMap::new()) } else { Outcome::Never };
        let mut error = self.empty(outcome);
        error.general = Some("pod affinity terms conflict");
        error.plugins.insert(Plugin::NodeAffinity);
        error
    }

    fn empty(&self, outcome: Outcome) -> FitError {
        let nodes = self.snapshot.node_count();
        let preemption = match outcome {
            Outcome::Never => Some("not eligible due to preemptionPolicy=Never.".to_owned()),
            Outcome::Waits => Some("not eligible due to a terminating pod on the nominated node.".to_owned()),
            Outcome::Made => None,
            Outcome::Nobody(mut reasons) => {
                let helpless = nodes - self.without_victims - self.resolvable.len();
                reasons.insert("No preemption victims found for incoming pod".to_owned(), self.without_victims);
                reasons.insert("Preemption is not helpful for scheduling".to_owned(), helpless);
                let counts = reasons.into_iter().filter(|(_, count)| *count > 0);
                Some(available(nodes, counts.map(|(reason, count)| format!("{count} {reason}")).collect()))
            }
        };
        FitError { nodes, preemption, ..FitError::default() }
    }
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = match self.general {
            Some(general) => vec![general.to_owned()],
            None => self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect(),
        };
        f.write_str(&available(self.nodes, lines))?;
        match &self.preemption {
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
