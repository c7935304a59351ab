//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest, and the check of who signs PodCertificateRequests: what is said in a signer's name
//! is said by those who hold the verb on that signer (pkg/certauthorization).

use std::sync::Arc;

use serde_json::Value;
use skep_api::Status;
use skep_api::field::{Error, Path};
use skep_api::kinds::Subresource;

use super::{Objects, Operation, Plugin, Request};
use crate::auth::Attributes;
use crate::auth::authz::{Authorizer as _, Authorizers};

const GROUP: &str = "certificates.k8s.io";

pub(super) struct Signers(pub(super) Arc<Authorizers>);

impl Plugin for Signers {
    fn validate(&self, request: &Request<'_>, object: &Value, _: &dyn Objects) -> Result<(), Status> {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        if request.kind.group_version.group != GROUP || !writes {
            return Ok(());
        }
        // The signer of what was there: a write can't choose whose rights it is judged by.
        let judged = request.old.unwrap_or(object);
        let signer = judged["spec"]["signerName"].as_str().unwrap_or_default();
        let changed = |field: &str| request.old.is_some_and(|old| old["status"][field] != object["status"][field]);
        match (&*request.kind.plural, request.subresource) {
            ("certificatesigningrequests", Some(Subresource::Approval)) if !self.may(request, "approve", signer) => {
                Err(request.forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
            }
            ("certificatesigningrequests", Some(Subresource::Status))
                if (changed("certificate") || changed("conditions")) && !self.may(request, "sign", signer) =>
            {
                Err(request.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
            }
            ("podcertificaterequests", Some(Subresource::Status))
                if request.old.is_some_and(|old| old["status"] != object["status"])
                    && !self.may(request, "sign", signer) =>
            {
                let user = &request.user.name;
                let why = format!("User {user:?} is not permitted to \"sign\" for signer {signer:?}");
                let error = Error::forbidden(&Path::new("spec").child("signerName"), why);
                Err(Status::invalid(&request.kind.group_kind(), request.name, &vec![error]))
            }
            ("clustertrustbundles", None)
                if !signer.is_empty() && !only_collected(request, object) && !self.may(request, "attest", signer) =>
            {
                Err(request.forbidden(&format!("user not permitted to attest for signerName {signer:?}")))
            }
            _ => Ok(()),
        }
    }
}

impl Signers {
    /// `IsAuthorizedForSignerName`: the verb on the signer itself, or on all signers of its domain.
    fn may(&self, request: &Request<'_>, verb: &'static str, signer: &str) -> bool {
        let allowed = |name: &str| {
            let attributes = Attributes::resource(request.user, verb, GROUP, "signers", "", name);
            self.0.authorize(&attributes).is_allowed()
        };
        let domain = signer.split('/').next().unwrap_or_default();
        allowed(signer) || allowed(&format!("{domain}/*"))
    }
}

/// Whether an update changes nothing but what garbage collection writes (`IsOnlyMutatingGCFields`).
fn only_collected(request: &Request<'_>, object: &Value) -> bool {
    let Some(old) = request.old else { return false };
    let stripped = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["ownerReferences", "finalizers", "managedFields"] {
                metadata.remove(field);
            }
        }
        object
    };
    stripped(old) == stripped(object)
}
