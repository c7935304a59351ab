//! Service accounts' tokens: signed here, checked here (KEP-1205, bound service account tokens). Legacy tokens without expiry are refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use skep_api::gvk::{GroupKind, Name};
use skep_api::kinds::authentication;
use skep_api::{GroupResource, Status};

use super::{User, service_account_groups, service_account_name};
use crate::admission::Objects;

/// Who signs tokens, and for whom they are when nobody says: upstream's default issuer.
pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The key pair that signs tokens, as PEM.
pub struct SigningKey {
    /// PKCS#8.
    pub private_pem: String,
    /// SubjectPublicKeyInfo.
    pub public_pem: String,
    /// The uncompressed point of the P-256 public key: 4, x, y.
    pub point: Vec<u8>,
}

/// Signs and checks tokens.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
    key_id: String,
    jwks: Value,
}

/// Whom a token is bound to.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
struct Bound {
    name: String,
    uid: String,
}

/// The claims in `kubernetes.io`.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Private {
    namespace: String,
    serviceaccount: Bound,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<Bound>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Claims {
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    iss: String,
    jti: String,
    #[serde(rename = "kubernetes.io")]
    private: Private,
    nbf: i64,
    sub: String,
}

/// Who a token is from.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The service account.
    pub user: User,
    /// Those of the audiences asked for that the token is for.
    pub audiences: Vec<String>,
}

/// Why a token is no good.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not ours, altered, expired, or for others.
    #[error("token is invalid: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// What it is bound to has gone.
    #[error("{0}")]
    Gone(String),
    /// Its audiences are not those wanted.
    #[error("token audiences {given:?} is invalid for the target audiences {wanted:?}")]
    Audience {
        /// Of the token.
        given: Vec<String>,
        /// Asked for.
        wanted: Vec<String>,
    },
}

impl Tokens {
    /// With the cluster's key pair.
    ///
    /// # Errors
    /// When the key can't be read.
    pub fn new(key: &SigningKey) -> Result<Self, jsonwebtoken::errors::Error> {
        let encoding = EncodingKey::from_ec_pem(key.private_pem.as_bytes())?;
        let decoding = DecodingKey::from_ec_pem(key.public_pem.as_bytes())?;
        let (x, y) = key.point.get(1..).unwrap_or_default().split_at(key.point.len().saturating_sub(1) / 2);
        let key_id = URL_SAFE_NO_PAD.encode(Sha256::digest(key.public_pem.as_bytes()));
        let jwks = json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }] });
        Ok(Self { encoding, decoding, key_id, jwks })
    }

    /// `/openid/v1/jwks`
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.jwks.clone()
    }

    /// `/.well-known/openid-configuration`
    #[must_use]
    pub fn openid_configuration(&self) -> Value {
        json!({
            "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/openid/v1/jwks"),
            "response_types_supported": ["id_token"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// Answers a TokenRequest for a service account.
    ///
    /// # Errors
    /// 422 for a lifetime out of bounds, 404 and 409 for a bound object that is not there.
    pub fn request(
        &self,
        account: &Value,
        mut request: Value,
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<Value, Status> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (namespace, name) = (text(&account["metadata"]["namespace"]), text(&account["metadata"]["name"]));
        let given = text(&request["metadata"]["name"]);
        if !given.is_empty() && given != name {
            return Err(Status::bad_request("metadata.name does not match the name of the service account"));
        }
        authentication::default_token_request(&mut request);
        let errors = authentication::validate_token_request(&request);
        if !errors.is_empty() {
            let kind =
                GroupKind { group: Name::Borrowed("authentication.k8s.io"), kind: Name::Borrowed("TokenRequest") };
            return Err(Status::invalid(&kind, "", &errors));
        }
        let lifetime = request["spec"]["expirationSeconds"].as_i64().unwrap_or_default();
        let audiences: Vec<String> = request["spec"]["audiences"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
        let mut private = Private {
            namespace: namespace.clone(),
            serviceaccount: Bound { name: name.clone(), uid: text(&account["metadata"]["uid"]) },
            pod: None,
            secret: None,
            node: None,
        };
        bind(&mut private, &request["spec"]["boundObjectRef"], &namespace, &name, objects)?;
        let issued = now.as_second();
        let claims = Claims {
            aud: audiences.clone(),
            exp: issued + lifetime,
            iat: issued,
            iss: ISSUER.to_owned(),
            jti: uuid::Uuid::new_v4().to_string(),
            private,
            nbf: issued,
            sub: service_account_name(&namespace, &name),
        };
        let header = Header { kid: Some(self.key_id.clone()), typ: None, ..Header::new(Algorithm::ES256) };
        let token = jsonwebtoken::encode(&header, &claims, &self.encoding).map_err(Status::internal)?;
        let expires = Timestamp::from_second(claims.exp).unwrap_or(now);
        request["apiVersion"] = "authentication.k8s.io/v1".into();
        request["kind"] = "TokenRequest".into();
        request["metadata"] =
            json!({ "name": name, "namespace": namespace, "creationTimestamp": crate::rest::rfc3339(now) });
        request["spec"]["audiences"] = audiences.into();
        request["spec"]["expirationSeconds"] = lifetime.into();
        request["status"] = json!({ "token": token, "expirationTimestamp": crate::rest::rfc3339(expires) });
        Ok(request)
    }

    /// Checks a token: signature, issuer, time, audience, and that everything it is bound to is still there.
    ///
    /// # Errors
    /// Says why it is no good; clients only hear that it is not.
    pub fn authenticate(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<Authenticated, TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "iss", "sub", "aud"]);
        validation.validate_aud = false;
        // Time is checked here, against the request's own clock and without leeway.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        let now = now.as_second();
        if now >= claims.exp {
            return Err(TokenError::Gone("service account token has expired".to_owned()));
        }
        if now < claims.nbf {
            return Err(TokenError::Gone("service account token is not valid yet".to_owned()));
        }
        let own = [ISSUER.to_owned()];
        let wanted = if audiences.is_empty() { &own[..] } else { audiences };
        let matching: Vec<String> = wanted.iter().filter(|wanted| claims.aud.contains(wanted)).cloned().collect();
        if matching.is_empty() {
            return Err(TokenError::Audience { given: claims.aud, wanted: wanted.to_vec() });
        }
        let private = claims.private;
        if claims.sub != service_account_name(&private.namespace, &private.serviceaccount.name) {
            return Err(TokenError::Gone("subject and service account differ".to_owned()));
        }
        check_there(objects, "serviceaccounts", &private.namespace, &private.serviceaccount, now)?;
        let mut user = User::authenticated(claims.sub, service_account_groups(&private.namespace));
        user.uid.clone_from(&private.serviceaccount.uid);
        user.extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={}", claims.jti)]);
        for (resource, namespace, bound) in [
            ("pods", private.namespace.as_str(), &private.pod),
            ("secrets", private.namespace.as_str(), &private.secret),
            ("nodes", "", &private.node),
        ] {
            let Some(bound) = bound else { continue };
            // The node of a pod is told, not demanded: it may be gone before its pods are.
            let demanded = resource != "nodes" || private.pod.is_none();
            if demanded {
                check_there(objects, resource, namespace, bound, now)?;
            }
            if resource != "secrets" {
                let key =
                    |what: &str| format!("authentication.kubernetes.io/{}-{what}", resource.trim_end_matches('s'));
                user.extra.insert(key("name"), vec![bound.name.clone()]);
                user.extra.insert(key("uid"), vec![bound.uid.clone()]);
            }
        }
        Ok(Authenticated { user, audiences: matching })
    }
}

fn bind(
    private: &mut Private,
    reference: &Value,
    namespace: &str,
    account: &str,
    objects: &dyn Objects,
) -> Result<(), Status> {
    if reference.is_null() {
        return Ok(());
    }
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (plural, within) = match (text("apiVersion"), text("kind")) {
        ("v1", "Pod") => ("pods", namespace),
        ("v1", "Secret") => ("secrets", namespace),
        ("v1", "Node") => ("nodes", ""),
        (version, kind) => {
            return Err(Status::bad_request(format!("cannot bind token to object of type {version}, Kind={kind}")));
        }
    };
    let resource = GroupResource::new("", plural);
    let name = text("name");
    let there = objects.get(&resource, within, name).ok_or_else(|| Status::not_found(&resource, name))?;
    let uid = there["metadata"]["uid"].as_str().unwrap_or_default();
    if !text("uid").is_empty() && text("uid") != uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(&resource, name, &why));
    }
    let bound = Bound { name: name.to_owned(), uid: uid.to_owned() };
    match plural {
        "pods" => {
            if there["spec"]["serviceAccountName"] != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount \"{account}\" to pod running with different serviceaccount name."
                )));
            }
            if let Some(node) = there["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
                let uid = objects.get(&GroupResource::new("", "nodes"), "", node);
                let uid = uid.and_then(|node| node["metadata"]["uid"].as_str().map(str::to_owned)).unwrap_or_default();
                private.node = Some(Bound { name: node.to_owned(), uid });
            }
            private.pod = Some(bound);
        }
        "secrets" => private.secret = Some(bound),
        _ => private.node = Some(bound),
    }
    Ok(())
}

/// A bound object must be there, be the same one, and not be past its end.
fn check_there(
    objects: &dyn Objects,
    resource: &'static str,
    namespace: &str,
    bound: &Bound,
    now: i64,
) -> Result<(), TokenError> {
    let gone = |why: &str| Err(TokenError::Gone(format!("{resource} {namespace}/{}: {why}", bound.name)));
    let Some(there) = objects.get(&GroupResource::new("", resource), namespace, &bound.name) else {
        return gone("it has been deleted");
    };
    if there["metadata"]["uid"] != bound.uid.as_str() {
        return gone("its uid does not match the claim");
    }
    let deleted = there["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    // Upstream's leeway: a pod may finish its work after its end was announced.
    if deleted.is_some_and(|deleted| deleted.as_second() + 60 < now) {
        return gone("it is being deleted");
    }
    Ok(())
}
