//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: asks the webhooks whose rules mean a request, the mutating ones one after the other in the order of
//! their configurations' names, the validating ones at once.
//!
//! Invariant: configurations are read from an index that the watch cache's observers keep; no lock is held while a webhook is asked.
//! Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook.

mod call;
mod configuration;
mod review;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::future::join_all;
use parking_lot::Mutex;
use serde_json::{Value, json};
use skep_api::cel::admission::Inputs;
use skep_api::{GroupResource, Status, cel};

pub(crate) use configuration::Hook;

use super::Objects;
use super::dynamic::{Attributes, Matched, Notes, Round, UserAuthority};
use crate::auth::authz::Authorizer;
use crate::registry::Table;
use crate::webhook_client::WebhookClient;
use call::Outcome;

/// The webhooks of all configurations, and the client that asks them.
pub(crate) struct Webhooks {
    mutating: Index,
    validating: Index,
    client: Arc<WebhookClient>,
}

/// What asking needs to know of the server.
pub(crate) struct Surroundings<'a> {
    pub(crate) objects: &'a dyn Objects,
    pub(crate) table: &'a Table,
    pub(crate) authorizer: &'a Arc<dyn Authorizer>,
}

/// Makes an object of what a patch has made: decoded and defaulted anew.
pub(crate) type Refine<'a> = dyn Fn(&Value) -> Result<Value, Status> + Send + Sync + 'a;

const MUTATING: GroupResource = GroupResource::new("admissionregistration.k8s.io", "mutatingwebhookconfigurations");
const VALIDATING: GroupResource = GroupResource::new("admissionregistration.k8s.io", "validatingwebhookconfigurations");

impl Webhooks {
    pub(crate) fn new(client: Arc<WebhookClient>) -> Arc<Self> {
        Arc::new(Self { mutating: Index::default(), validating: Index::default(), client })
    }

    /// The resources that [`Self::apply`] wants to see.
    pub(crate) fn observed() -> [GroupResource; 2] {
        [MUTATING, VALIDATING]
    }

    /// A configuration has changed, or gone.
    pub(crate) fn apply(&self, resource: &GroupResource, name: &str, configuration: Option<&Value>) {
        let mutating = *resource == MUTATING;
        let index = if mutating { &self.mutating } else { &self.validating };
        index.set(name, configuration.map(|configuration| configuration::hooks(name, configuration, mutating)));
    }

    /// Lets the mutating webhooks change an object (null for deletes).
    ///
    /// # Errors
    /// The first refusal, or failure of a webhook that fails closed.
    pub(crate) async fn admit(
        &self,
        attributes: &Attributes<'_>,
        object: &mut Value,
        surroundings: &Surroundings<'_>,
        refine: &Refine<'_>,
        round: &mut Round,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        for (index, hook) in self.mutating.hooks().iter().enumerate() {
            if !round.asks(&hook.id) {
                continue;
            }
            let Some(matched) = means(hook, attributes, object, surroundings)? else { continue };
            let version = format!("round_{}_index_{index}", u8::from(round.is_again()));
            let outcome = call::ask(&self.client, hook, attributes, object, &matched, true).await;
            let answer = match outcome {
                Outcome::Allowed(answer) => answer,
                Outcome::Refused(status) => return Err(*status),
                Outcome::FailedOpen => {
                    let key = format!("failed-open.mutation.webhook.admission.k8s.io/{version}");
                    notes.annotate(key, hook.name.clone());
                    continue;
                }
            };
            answer.note(&hook.name, notes);
            let changed = match &answer.patch {
                None => false,
                Some(patch) => call::apply(hook, attributes, object, &matched, patch, refine)?,
            };
            let mutation = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
            notes.annotate(format!("mutation.webhook.admission.k8s.io/{version}"), mutation.to_string());
            round.done(&hook.id, changed, hook.reinvoked);
        }
        Ok(())
    }

    /// Lets the validating webhooks judge an object (null for deletes).
    ///
    /// # Errors
    /// One refusal, or failure of a webhook that fails closed; that of the first in order.
    pub(crate) async fn validate(
        &self,
        attributes: &Attributes<'_>,
        object: &Value,
        surroundings: &Surroundings<'_>,
        notes: &mut Notes,
    ) -> Result<(), Status> {
        let hooks = self.validating.hooks();
        let mut wanted = Vec::new();
        for hook in hooks.iter() {
            if let Some(matched) = means(hook, attributes, object, surroundings)? {
                wanted.push((hook, matched));
            }
        }
        let asked =
            wanted.iter().map(|(hook, matched)| call::ask(&self.client, hook, attributes, object, matched, false));
        let outcomes = join_all(asked).await;
        let mut refusal = None;
        for (index, (outcome, (hook, _))) in outcomes.into_iter().zip(&wanted).enumerate() {
            match outcome {
                Outcome::Allowed(answer) => answer.note(&hook.name, notes),
                Outcome::FailedOpen => {
                    let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                    notes.annotate(key, hook.name.clone());
                }
                Outcome::Refused(status) => refusal = refusal.or(Some(*status)),
            }
        }
        refusal.map_or(Ok(()), Err)
    }
}

/// Whether a webhook is to be asked, and in which version (upstream's `ShouldCallHook`).
fn means(
    hook: &Hook,
    attributes: &Attributes<'_>,
    object: &Value,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Matched>, Status> {
    let matched = hook.criteria.matches(attributes, object, surroundings.objects, surroundings.table)?;
    let Some(matched) = matched else { return Ok(None) };
    if hook.conditions.is_empty() {
        return Ok(Some(matched));
    }
    let tree = |object: &Value| cel::from_json(&attributes.converted(object, &matched.kind));
    let authority = UserAuthority::new(surroundings.authorizer.clone(), attributes.user);
    let inputs = Inputs {
        object: tree(object),
        old_object: attributes.old.map_or(cel::Value::Null, tree),
        request: cel::from_json(&Value::Object(attributes.to_request(&matched.kind))),
        namespace_object: cel::Value::Null,
        params: None,
        authorizer: Some((Arc::new(authority), UserAuthority::request_resource(attributes))),
    };
    match hook.judge(&inputs) {
        Ok(holds) => Ok(holds.then_some(matched)),
        Err(_) if hook.fails_open => Ok(None),
        Err(why) => Err(Status::forbidden(&attributes.kind.group_resource(), attributes.name, &why)),
    }
}

/// The webhooks of one kind, in order.
#[derive(Default)]
struct Index {
    by_name: Mutex<BTreeMap<String, Vec<Arc<Hook>>>>,
    in_order: ArcSwap<Vec<Arc<Hook>>>,
}

impl Index {
    fn set(&self, name: &str, hooks: Option<Vec<Arc<Hook>>>) {
        let mut by_name = self.by_name.lock();
        match hooks {
            Some(hooks) => by_name.insert(name.to_owned(), hooks),
            None => by_name.remove(name),
        };
        self.in_order.store(Arc::new(by_name.values().flatten().cloned().collect()));
    }

    fn hooks(&self) -> Arc<Vec<Arc<Hook>>> {
        self.in_order.load_full()
    }
}
