//! Trust anchors of ClusterTrustBundles (KEP-3257), for volumes that project them.
//!
//! Invariant: each anchor is told once, and the same bundles always make the same text, so that a volume is written anew
//! only when an anchor comes or goes. Few pods use them: they are read when a volume is set up or refreshed, not watched.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::ClusterTrustBundle;
use k8s_openapi::api::core::v1::ClusterTrustBundleProjection;
use skep_client::kube::api::ListParams;
use skep_client::kube::core::Selector;
use skep_client::kube::{self, Api, Client};
use x509_parser::pem::Pem;

use super::{ObjectError, REQUEST_TIMEOUT};

/// The columns of a line of PEM (RFC 7468, section 2).
const LINE: usize = 64;

/// The anchors that a projection selects, as PEM.
pub(super) async fn anchors(client: &Client, source: &ClusterTrustBundleProjection) -> Result<Vec<u8>, ObjectError> {
    let bundles = match tokio::time::timeout(REQUEST_TIMEOUT, selected(client, source)).await {
        Ok(bundles) => bundles?,
        Err(_) => return Err(ObjectError::TimedOut { kind: "clustertrustbundle" }),
    };
    Ok(normalize(&bundles))
}

async fn selected(
    client: &Client,
    source: &ClusterTrustBundleProjection,
) -> Result<Vec<ClusterTrustBundle>, ObjectError> {
    let api: Api<ClusterTrustBundle> = Api::all(client.clone());
    let optional = source.optional == Some(true);
    if let Some(name) = &source.name {
        let found = api.get_opt(name).await.map_err(|error| failed(error, &format!("ClusterTrustBundle {name:?}")))?;
        return match found {
            None if !optional => Err(ObjectError::Refused(format!(
                "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found"
            ))),
            found => Ok(found.into_iter().collect()),
        };
    }
    let signer = source.signer_name.as_deref().ok_or_else(|| {
        ObjectError::Refused("ClusterTrustBundle projection requires either name or signerName to be set".to_owned())
    })?;
    // No selector matches nothing, an empty one everything.
    let mut found = Vec::new();
    if let Some(selector) = source.label_selector.clone() {
        let selector = Selector::try_from(selector)
            .map_err(|error| ObjectError::Refused(format!("while parsing label selector: {error}")))?;
        let list = ListParams::default().labels_from(&selector).fields(&format!("spec.signerName={signer}"));
        let what = format!("ClusterTrustBundles of signer {signer:?}");
        found = api.list(&list).await.map_err(|error| failed(error, &what))?.items;
    }
    if found.is_empty() && !optional {
        let message = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
        return Err(ObjectError::Refused(message.to_owned()));
    }
    Ok(found)
}

fn failed(error: kube::Error, what: &str) -> ObjectError {
    match error {
        kube::Error::Api(status) => ObjectError::Refused(status.message.clone()),
        error => ObjectError::Failed { what: what.to_owned(), cause: error.to_string() },
    }
}

/// Each anchor of all bundles once, without what stands between them.
fn normalize(bundles: &[ClusterTrustBundle]) -> Vec<u8> {
    let blocks = bundles.iter().flat_map(|bundle| Pem::iter_from_buffer(bundle.spec.trust_bundle.as_bytes()));
    // The API server admits certificates only; what can't be read is left out, as by Go's decoder.
    let anchors: BTreeSet<Vec<u8>> = blocks.filter_map(|block| Some(block.ok()?.contents)).collect();
    let mut text = String::new();
    for anchor in anchors {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = STANDARD.encode(anchor);
        // Base64 is ASCII: every cut is between characters.
        for at in (0..encoded.len()).step_by(LINE) {
            text.push_str(&encoded[at..encoded.len().min(at + LINE)]);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing;
    use serde_json::json;

    fn pem(content: &str) -> String {
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(content))
    }

    fn bundle(text: &str) -> ClusterTrustBundle {
        serde_json::from_value(json!({"metadata": {"name": "b"}, "spec": {"trustBundle": text}})).expect("a bundle")
    }

    #[test]
    fn each_anchor_is_told_once_whatever_stands_between() {
        let first = bundle(&format!("{}# a remark\n{}", pem("two"), pem("one")));
        let text = String::from_utf8(normalize(&[first, bundle(&pem("one"))])).expect("text");
        assert_eq!(text, format!("{}{}", pem("one"), pem("two")));
    }

    #[test]
    fn lines_are_as_long_as_pem_allows() {
        let text = String::from_utf8(normalize(&[bundle(&pem(&"x".repeat(300)))])).expect("text");
        assert!(text.lines().all(|line| line.len() <= LINE) && text.lines().count() > 3, "{text}");
    }

    #[tokio::test]
    async fn a_bundle_that_is_not_there_is_an_error_unless_it_is_optional() {
        let api = testing::Api::new();
        let mut source =
            ClusterTrustBundleProjection { name: Some("none".to_owned()), ..ClusterTrustBundleProjection::default() };
        let error = anchors(&api.client(), &source).await.expect_err("missing");
        assert!(error.to_string().contains("\"none\" not found"), "{error}");
        source.optional = Some(true);
        assert!(anchors(&api.client(), &source).await.expect("nothing").is_empty());
    }

    #[tokio::test]
    async fn no_selector_matches_nothing() {
        let api = testing::Api::new();
        let signer = Some("example.com/a".to_owned());
        let source = ClusterTrustBundleProjection { signer_name: signer, ..ClusterTrustBundleProjection::default() };
        let error = anchors(&api.client(), &source).await.expect_err("nothing");
        assert!(error.to_string().contains("matched zero"), "{error}");
        assert!(api.requests().is_empty());
    }
}
