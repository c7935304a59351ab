//! Telling the API what runs of a pod, and that nothing is left of it.
//!
//! Invariant: a status is only ever written for the UID that it is about, only when it says something new, and one at a time;
//! nothing waits for it but the pod's deletion.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use tracing::{debug, warn};

use super::worker::{Done, Worker};
use crate::pod::status::{NodeFacts, status, status_patch};

/// The wait before a status that could not be written is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(1);

impl Worker {
    /// Has the pod's status written, if it says something else than the API has. True when there is nothing left to write:
    /// else a write is under way, whose end leads to the next round.
    pub(super) fn report(&mut self) -> bool {
        let now = Timestamp::now();
        let facts = NodeFacts { host_ips: self.node.addresses.clone() };
        let mut pod = (*self.pod).clone();
        if let Some(reported) = &self.reported {
            // Times of transitions go on from what was reported last, which the watch may not have brought back yet.
            pod.status = Some(merged(pod.status.take().unwrap_or_default(), reported.clone()));
        }
        let wanted = status(&pod, &self.seen, &facts, now);
        self.show(wanted.clone());
        // A pod that ended keeps its last word; only what is known of it here may say it again.
        let ended_elsewhere = crate::pod::plan::is_terminal(&self.pod) && self.seen.containers.is_empty();
        let known = self.pod.status.as_ref() == Some(&wanted) || self.reported.as_ref() == Some(&wanted);
        if self.gone || ended_elsewhere || (known && !self.reporting) {
            return true;
        }
        if self.report_at.is_some_and(|at| at > now) {
            self.wake_by(self.report_at);
        } else if !self.reporting {
            self.reporting = true;
            let (client, uid, (namespace, name)) = (self.node.client.clone(), self.uid.clone(), self.names());
            self.tasks.spawn(async move {
                let result = write(client, &namespace, &name, &uid, &wanted).await;
                Done::Report(Box::new(wanted), result)
            });
        }
        false
    }

    /// Takes the end of a write of the status.
    pub(super) fn reported(&mut self, status: PodStatus, result: Result<(), kube::Error>) {
        self.reporting = false;
        self.report_at = None;
        match result {
            Ok(()) => {
                debug!(pod = %self.shown(), phase = ?status.phase, "status reported");
                self.reported = Some(status);
            }
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => {
                debug!(pod = %self.shown(), code = answer.code, "the object is another or gone; its watch will tell");
                self.reported = Some(status);
            }
            Err(error) => {
                warn!(pod = %self.shown(), %error, "the status can't be reported and will be again");
                self.report_at = Timestamp::now().checked_add(AGAIN).ok();
            }
        }
    }

    /// Deletes the object, unless another of its name took its place.
    pub(super) async fn delete_object(&self) -> Result<(), kube::Error> {
        let (namespace, name) = self.names();
        let pods: Api<Pod> = Api::namespaced(self.node.client.clone(), &namespace);
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match pods.delete(&name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

async fn write(client: Client, namespace: &str, name: &str, uid: &str, status: &PodStatus) -> Result<(), kube::Error> {
    let pods: Api<Pod> = Api::namespaced(client, namespace);
    let patch = Patch::Strategic(status_patch(uid, status));
    pods.patch_status(name, &PatchParams::default(), &patch).await.map(drop)
}

/// What the API has, with what this node reported of its own last; conditions of others stay as the API has them.
fn merged(api: PodStatus, reported: PodStatus) -> PodStatus {
    let ours: Vec<_> = reported.conditions.unwrap_or_default();
    let mut conditions = api.conditions.unwrap_or_default();
    conditions.retain(|condition| ours.iter().all(|own| own.type_ != condition.type_));
    conditions.extend(ours);
    PodStatus { conditions: Some(conditions), start_time: reported.start_time.or(api.start_time), ..api }
}
