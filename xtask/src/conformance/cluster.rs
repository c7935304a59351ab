//! The cluster that is judged: one of ours of two nodes, or upstream's own.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::deploy::{self, Profile};
use crate::{rival, upstream};

/// Where our cluster for the suite is. Always the same: a run that was stopped finds it again.
const DATA_DIR: &str = "/var/lib/skep-conformance";
const UPSTREAM_DATA_DIR: &str = "/var/lib/skep-conformance-upstream";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Whose cluster is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Whose {
    /// Ours.
    Skep,
    /// Upstream's, for what this machine lets pass at all.
    Upstream,
}

impl Whose {
    /// In files' names and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Skep => "skep",
            Self::Upstream => "upstream",
        }
    }
}

/// A cluster that runs, with the suite's images.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) nodes: u8,
    /// What its API server tells.
    pub(crate) version: String,
    /// What the suite's clients ask it for.
    pub(crate) content_type: String,
    /// Its processes' logs.
    pub(crate) logs: Vec<PathBuf>,
}

/// How a cluster of ours is brought up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) profile: Profile,
    pub(crate) no_build: bool,
    /// Whether one that is there is taken, and brought up to date, instead of a fresh one.
    pub(crate) reuse: bool,
}

/// Brings the cluster up.
///
/// # Errors
/// When a step of its deployment fails.
pub(crate) fn up(whose: Whose, how: How) -> Result<Cluster> {
    if !how.reuse {
        down(whose)?;
    }
    match whose {
        Whose::Skep => {
            let args = deploy::Args::for_suite(Path::new(DATA_DIR), how.profile, how.no_build);
            let layout = deploy::up(&args)?;
            let api = deploy::Api::new(&layout);
            // Clients of the suite prefer protobuf, and can be told not to.
            let content_type = if api.answers_in(PROTOBUF)? { PROTOBUF } else { JSON };
            Ok(Cluster {
                kubeconfig: layout.kubeconfig(),
                nodes: layout.settings.nodes,
                version: api.version()?,
                content_type: content_type.to_owned(),
                logs: deploy::logs(&layout),
            })
        }
        Whose::Upstream => {
            let layout = rival::up(Path::new(UPSTREAM_DATA_DIR))?;
            Ok(Cluster {
                kubeconfig: layout.kubeconfig(),
                nodes: 1,
                version: upstream::KUBERNETES.to_owned(),
                content_type: PROTOBUF.to_owned(),
                logs: Vec::new(),
            })
        }
    }
}

/// Takes the cluster away; where there is none, nothing happens.
///
/// # Errors
/// When something can't be ended or removed.
pub(crate) fn down(whose: Whose) -> Result<()> {
    match whose {
        Whose::Skep => deploy::down(Path::new(DATA_DIR)),
        Whose::Upstream => rival::down(Path::new(UPSTREAM_DATA_DIR)),
    }
}
