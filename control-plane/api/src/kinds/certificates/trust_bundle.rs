//! ClusterTrustBundle (KEP-3257): trust anchors of one signer, or of nobody in particular, for pods to mount.

use std::collections::BTreeMap;

use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::field::{Error, ErrorList, Path};
use crate::kinds::cells::{name_cell, or_none};
use crate::kinds::certificates::V1;
use crate::kinds::certificates::pem_blocks::blocks;
use crate::kinds::declaration::{Column, Kind, Scope, Strategy};
use crate::kinds::fields::signer_name;
use crate::kinds::names;
use crate::kinds::tree::{immutable, text};
use crate::names::name_is_dns_subdomain;

/// `certificates.k8s.io/v1 ClusterTrustBundle`
#[must_use]
pub fn cluster_trust_bundle() -> Kind {
    Kind {
        scope: Scope::Cluster,
        unconditional_update: false,
        selectable: names(&["spec.signerName"]),
        columns: vec![Column::name(), Column::new("SignerName", "string", "Whose trust anchors they are.")],
        ..Kind::new(
            V1,
            "ClusterTrustBundle",
            "clustertrustbundles",
            "io.k8s.api.certificates.v1.ClusterTrustBundle",
            TrustBundle,
        )
    }
}

/// `ValidateClusterTrustBundleName`: a signer's bundle is named `<signer, with a colon for its slash>:<name>`.
#[must_use]
pub fn name_of_signer(signer: &str, name: &str, prefix: bool) -> Vec<String> {
    if signer.is_empty() {
        if name.contains(':') {
            return vec!["ClusterTrustBundle without signer name must not have \":\" in its name".to_owned()];
        }
        return name_is_dns_subdomain(name, prefix);
    }
    let wanted = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&wanted) {
        Some(own) => name_is_dns_subdomain(own, prefix),
        None => vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {wanted}")],
    }
}

struct TrustBundle;

impl Strategy for TrustBundle {
    fn validate_create(&self, object: &Value) -> ErrorList {
        let mut errors = validate(object);
        let bundle = text(&object["spec"]["trustBundle"]);
        errors.extend(validate_anchors(bundle, &Path::new("spec").child("trustBundle")));
        errors
    }

    /// A bundle that stays what it was is not parsed again.
    fn validate_update(&self, object: &Value, old: &Value) -> ErrorList {
        let [new, was] = [object, old].map(|object| text(&object["spec"]["trustBundle"]));
        let mut errors = if new == was { validate(object) } else { self.validate_create(object) };
        let path = Path::new("spec").child("signerName");
        errors.extend(immutable(&object["spec"]["signerName"], &old["spec"]["signerName"], &path));
        errors
    }

    fn row(&self, object: &Value, _: i64) -> Vec<Value> {
        vec![name_cell(object), or_none(text(&object["spec"]["signerName"]).to_owned())]
    }

    fn selectable(&self, object: &Value) -> Vec<String> {
        vec![text(&object["spec"]["signerName"]).to_owned()]
    }

    /// The form depends on the signer: `validate_create` knows it.
    fn validate_name(&self, _: &str, _: bool) -> Vec<String> {
        Vec::new()
    }
}

fn validate(object: &Value) -> ErrorList {
    let (metadata, signer) = (&object["metadata"], text(&object["spec"]["signerName"]));
    let mut errors = ErrorList::new();
    for (field, prefix) in [("generateName", true), ("name", false)] {
        let (name, path) = (text(&metadata[field]), Path::new("metadata").child(field));
        if !name.is_empty() {
            let wrong = name_of_signer(signer, name, prefix);
            errors.extend(wrong.into_iter().map(|message| Error::invalid(&path, name, message)));
        }
    }
    if !signer.is_empty() {
        errors.extend(signer_name(signer, &Path::new("spec").child("signerName")));
    }
    errors
}

/// `validateTrustBundle`: PEM blocks, each a certificate of an authority, each once, and at least one.
fn validate_anchors(bundle: &str, path: &Path) -> ErrorList {
    const LARGEST: usize = 1024 * 1024;
    if bundle.len() > LARGEST {
        return vec![Error::too_long(path, LARGEST)];
    }
    let wrong = |detail: String| Error::invalid(path, "<value omitted>", detail);
    let mut errors = ErrorList::new();
    let mut places: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for (index, block) in blocks(bundle).enumerate() {
        if block.tag() != "CERTIFICATE" {
            errors.push(wrong(format!("entry {index} has bad block type: {}", block.tag())));
        } else if block.headers().iter().next().is_some() {
            errors.push(wrong(format!("entry {index} has PEM block headers")));
        } else {
            match X509Certificate::from_der(block.contents()) {
                Ok(([], certificate)) if certificate.is_ca() => {
                    places.entry(block.contents().to_vec()).or_default().push(index);
                }
                Ok(([], _)) => errors.push(wrong(format!("entry {index} does not have the CA bit set"))),
                Ok(_) | Err(_) => errors.push(wrong(format!("entry {index} does not parse as X.509"))),
            }
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if places.is_empty() {
        errors.push(wrong("at least one trust anchor must be provided".to_owned()));
    }
    for indices in places.values().filter(|indices| indices.len() > 1) {
        let shown = indices.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        errors.push(wrong(format!("duplicate trust anchor (indices [{shown}])")));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{NOW, messages, mutated};
    use serde_json::json;

    fn authority(ca: bool) -> String {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn base() -> Value {
        json!({"metadata": {"name": "example.com:s:anchors"}, "spec": {
            "signerName": "example.com/s", "trustBundle": format!("# anchors\n{}{}", authority(true), authority(true)),
        }})
    }

    #[test]
    fn a_signers_bundle_begins_with_the_signer() {
        assert_eq!(messages(&TrustBundle.validate_create(&base())), Vec::<String>::new());
        assert_eq!(TrustBundle.selectable(&base()), ["example.com/s"]);
        assert_eq!(TrustBundle.row(&base(), NOW)[1], "example.com/s");
        let other = mutated(&base(), &json!({"metadata": {"name": "anchors"}}));
        assert_eq!(
            messages(&TrustBundle.validate_create(&other)),
            [
                "metadata.name: Invalid value: \"anchors\": ClusterTrustBundle for signerName example.com/s must be named with prefix example.com:s:"
            ]
        );
        let nobody = mutated(&base(), &json!({"spec": {"signerName": null}}));
        assert_eq!(
            messages(&TrustBundle.validate_create(&nobody)),
            [
                "metadata.name: Invalid value: \"example.com:s:anchors\": ClusterTrustBundle without signer name must not have \":\" in its name"
            ]
        );
    }

    #[test]
    fn anchors_are_certificates_of_authorities() {
        let wrong = |bundle: &str| {
            let object = mutated(&base(), &json!({"spec": {"trustBundle": bundle}}));
            messages(&TrustBundle.validate_create(&object))
                .join("\n")
                .replace("spec.trustBundle: Invalid value: \"<value omitted>\": ", "")
        };
        let anchor = authority(true);
        let table = [
            (String::new(), "at least one trust anchor must be provided"),
            (authority(false), "entry 0 does not have the CA bit set"),
            (format!("{anchor}{anchor}"), "duplicate trust anchor (indices [0 1])"),
            (anchor.replace("CERTIFICATE", "KEY"), "entry 0 has bad block type: KEY"),
            (anchor.replacen("-----\n", "-----\na: b\n\n", 1), "entry 0 has PEM block headers"),
            (
                "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n".to_owned(),
                "entry 0 does not parse as X.509",
            ),
        ];
        for (bundle, message) in table {
            assert_eq!(wrong(&bundle.replace("\r\n", "\n")), message);
        }
    }

    #[test]
    fn a_bundle_keeps_its_signer_and_is_parsed_only_when_it_changes() {
        let old = mutated(&base(), &json!({"spec": {"trustBundle": "of an older parser"}}));
        assert_eq!(messages(&TrustBundle.validate_update(&old, &old)), Vec::<String>::new());
        let moved = json!({"metadata": {"name": "example.com:t:anchors"}, "spec": {"signerName": "example.com/t"}});
        assert_eq!(
            messages(&TrustBundle.validate_update(&mutated(&base(), &moved), &base())),
            ["spec.signerName: Invalid value: \"example.com/t\": field is immutable"]
        );
    }
}
