//! What a PodCertificateRequest proves of its key, and what the chain that answers it must be.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use x509_parser::certificate::X509Certificate;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::GeneralName;
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_SIG_ED25519};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::pem_blocks::blocks;
use super::pod_request::bare;
use crate::field::{Error, ErrorList, Path};
use crate::kinds::tree::{integer, text};

/// The key of `spec.stubPKCS10Request` as its algorithm and its bits; with `judge`, only if it is of a kind that pods may have, and the request
/// is signed with it. P-521 signatures can't be checked, so such a request is refused then.
pub(super) fn key_of_request(spec: &Value, judge: bool) -> Result<(String, Vec<u8>), Error> {
    const LARGEST: usize = 10 * 1024;
    let path = Path::new("spec").child("stubPKCS10Request");
    let der = STANDARD.decode(text(&spec["stubPKCS10Request"])).unwrap_or_default();
    if der.len() > LARGEST {
        return Err(Error::too_long(&path, LARGEST));
    }
    let Ok(([], request)) = X509CertificationRequest::from_der(&der) else {
        return Err(bare(&path, "must be a valid PKCS#10 CSR"));
    };
    let key = &request.certification_request_info.subject_pki;
    if judge {
        validate_key(key, &path)?;
        request.verify_signature().map_err(|_| bare(&path, "invalid signature"))?;
    }
    Ok(identity(key))
}

/// What two equal keys have in common.
fn identity(key: &SubjectPublicKeyInfo<'_>) -> (String, Vec<u8>) {
    (key.algorithm.algorithm.to_id_string(), key.subject_public_key.data.to_vec())
}

fn validate_key(key: &SubjectPublicKeyInfo<'_>, path: &Path) -> Result<(), Error> {
    if key.algorithm.algorithm == OID_SIG_ED25519 {
        return Ok(());
    }
    match key.parsed() {
        Ok(PublicKey::EC(_)) => {
            let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
            let known = [OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521];
            match curve {
                Some(curve) if known.contains(&curve) => Ok(()),
                curve => {
                    let shown = curve.map_or_else(String::new, |curve| curve.to_id_string());
                    let detail = "elliptic public keys must use curve P256, P384, or P521";
                    Err(Error::invalid(path, format!("curve {shown}"), detail))
                }
            }
        }
        Ok(PublicKey::RSA(key)) => {
            let bits = key.modulus.iter().skip_while(|byte| **byte == 0).count() * 8;
            if matches!(bits, 3072 | 4096) {
                return Ok(());
            }
            let detail = "RSA keys must have modulus size 3072 or 4096";
            Err(Error::invalid(path, format!("{bits}-bit modulus"), detail))
        }
        _ => Err(bare(path, "unknown public key type; supported types are Ed25519, ECDSA, and RSA")),
    }
}

/// What is wrong with the chain, and the times beside it, of a request that is issued now. The times' nearness to the present is judged elsewhere.
pub(super) fn validate_chain(status: &Value, spec: &Value) -> ErrorList {
    const LARGEST: usize = 100 * 1024;
    let path = Path::new("status").child("certificateChain");
    let chain = text(&status["certificateChain"]);
    if chain.len() > LARGEST {
        return vec![Error::too_long(&path, LARGEST)];
    }
    let wrong = |detail: &str| Error::invalid(&path, chain, detail);
    let mut rest = blocks(chain);
    let Some(block) = rest.next() else {
        return vec![wrong("issued certificate chain must contain at least one certificate")];
    };
    if block.tag() != "CERTIFICATE" {
        return vec![wrong("issued certificate chain must consist entirely of CERTIFICATE PEM blocks")];
    }
    let Ok(([], leaf)) = X509Certificate::from_der(block.contents()) else {
        return vec![wrong("leaf certificate does not parse as valid X.509")];
    };
    let mut errors = validate_names(&leaf, &path);
    match key_of_request(spec, false) {
        Err(error) => errors.push(error),
        Ok(wanted) if wanted != identity(leaf.public_key()) => {
            errors.push(wrong("leaf certificate was not issued to the requested public key"));
        }
        Ok(_) => errors.extend(validate_times(status, &leaf, integer(&spec["maxExpirationSeconds"]))),
    }
    if !errors.is_empty() {
        return errors;
    }
    for block in rest {
        if block.tag() != "CERTIFICATE" {
            // The misspelling is upstream's.
            return vec![wrong("issued certificate chain must consist entirely of CERTFICATE PEM blocks")];
        }
        if !matches!(X509Certificate::from_der(block.contents()), Ok(([], _))) {
            return vec![wrong("intermediate certificate does not parse as valid X.509")];
        }
    }
    errors
}

fn validate_names(leaf: &X509Certificate<'_>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let names = leaf.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|extension| &extension.value.general_names) {
        match name {
            GeneralName::DNSName(name) => {
                if name.is_empty() {
                    errors.push(Error::invalid(path, *name, "leaf certificate should not contain empty DNSName"));
                }
                if name.contains("..") {
                    errors.push(Error::invalid(path, *name, "leaf certificate's DNSName should not contain '..'"));
                }
                if name.starts_with('.') || name.ends_with('.') {
                    let detail = "leaf certificate's DNSName should not start or end with '.'";
                    errors.push(Error::invalid(path, *name, detail));
                }
            }
            GeneralName::RFC822Name(address) => {
                let whole = |part: &str| !part.is_empty() && !part.contains(char::is_whitespace);
                if !address.rsplit_once('@').is_some_and(|(local, domain)| whole(local) && whole(domain)) {
                    let detail = "leaf certificate should not contain invalid EmailAddress";
                    errors.push(Error::invalid(path, *address, detail));
                }
            }
            _ => {}
        }
    }
    errors
}

/// The status says what the leaf says, the leaf lives as long as was asked for at most, and it is renewed before it ends.
fn validate_times(status: &Value, leaf: &X509Certificate<'_>, longest: i64) -> ErrorList {
    const HOUR: i64 = 60 * 60;
    const MARGIN: i64 = 10 * 60;
    let at = |field: &str| Path::new("status").child(field);
    let given = |field: &str| text(&status[field]).parse::<Timestamp>().ok();
    let (Some(from), Some(to), Some(refresh)) = (given("notBefore"), given("notAfter"), given("beginRefreshAt")) else {
        let consistent = "must be present and consistent with the issued certificate";
        let needed = [
            ("notBefore", consistent),
            ("notAfter", consistent),
            ("beginRefreshAt", "must be present and in the range [notbefore+10min, notafter-10min]"),
        ];
        let missing = needed.into_iter().filter(|(field, _)| given(field).is_none());
        return missing.map(|(field, detail)| Error::required(&at(field), detail)).collect();
    };
    let [begins, ends] = [&leaf.validity().not_before, &leaf.validity().not_after].map(|time| time.timestamp());
    let lifetime = ends.saturating_sub(begins);
    let wrong = |field: &str, value: &Value, detail: &str| vec![Error::invalid(&at(field), value.clone(), detail)];
    let of_chain = |detail: String| {
        vec![Error {
            value: Some(go_duration(lifetime)),
            ..Error::invalid(&at("certificateChain"), Value::Null, detail)
        }]
    };
    if from.as_second() != begins {
        let detail = "must be set to the NotBefore time encoded in the leaf certificate";
        return wrong("notBefore", &status["notBefore"], detail);
    }
    if to.as_second() != ends {
        let detail = "must be set to the NotAfter time encoded in the leaf certificate";
        return wrong("notAfter", &status["notAfter"], detail);
    }
    if lifetime < HOUR {
        return of_chain("leaf certificate lifetime must be >= 1 hour".to_owned());
    }
    if lifetime > longest {
        return of_chain(format!("leaf certificate lifetime must be <= spec.maxExpirationSeconds ({longest})"));
    }
    if refresh.as_second() < begins.saturating_add(MARGIN) {
        let detail = "must be at least 10 minutes after status.notBefore";
        return wrong("beginRefreshAt", &status["beginRefreshAt"], detail);
    }
    if refresh.as_second() > ends.saturating_sub(MARGIN) {
        let detail = "must be at least 10 minutes before status.notAfter";
        return wrong("beginRefreshAt", &status["beginRefreshAt"], detail);
    }
    ErrorList::new()
}

/// Whole seconds as Go prints a `time.Duration`.
fn go_duration(seconds: i64) -> String {
    let (sign, all) = (if seconds < 0 { "-" } else { "" }, seconds.unsigned_abs());
    let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, _) => format!("{sign}{minutes}m{seconds}s"),
        _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
    }
}
