//! Who a request is from: a client certificate, a service account's token, or nobody; and on whose behalf (impersonation).

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, header};
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use skep_api::Status;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::authz::{Authorizer, Decision, forbidden};
use super::token::Tokens;
use super::{
    ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, Attributes, Target, User, service_account_groups,
    split_service_account,
};
use crate::admission::Objects;

/// Finds out who makes a request.
pub struct Authenticator {
    tokens: Arc<Tokens>,
}

impl Authenticator {
    /// With the tokens of this cluster.
    #[must_use]
    pub fn new(tokens: Arc<Tokens>) -> Self {
        Self { tokens }
    }

    /// The user of a request; one that shows neither a certificate nor a token is anonymous.
    ///
    /// # Errors
    /// 401 for credentials that are no good, 403 for an impersonation that is not allowed.
    pub fn authenticate(
        &self,
        certificates: &ClientCertificates,
        headers: &HeaderMap,
        now: Timestamp,
        objects: &dyn Objects,
        authorizer: &dyn Authorizer,
    ) -> Result<Arc<User>, Status> {
        let user = self.user(certificates, headers, now, objects)?;
        impersonated(user, headers, authorizer).map(Arc::new)
    }

    fn user(
        &self,
        certificates: &ClientCertificates,
        headers: &HeaderMap,
        now: Timestamp,
        objects: &dyn Objects,
    ) -> Result<User, Status> {
        let nobody = match certificates {
            ClientCertificates::Trusted(chain) => {
                let user = chain.first().and_then(|certificate| of_certificate(certificate, now));
                return user.ok_or_else(Status::unauthorized);
            }
            // A token may still say who it is, as upstream has it; but it is not nobody.
            ClientCertificates::Untrusted => Err(Status::unauthorized()),
            ClientCertificates::None => Ok(User::anonymous()),
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else { return nobody };
        let token = value.to_str().ok().and_then(|value| {
            let (scheme, token) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        match token {
            Some(token) if !token.is_empty() => self
                .tokens
                .authenticate(token, &[], objects, now)
                .map(|found| found.user)
                .map_err(|_| Status::unauthorized()),
            // A scheme that nothing here reads (Basic) is as good as none, as upstream has it.
            _ => nobody,
        }
    }
}

/// What a connection showed of who is at its other end.
#[derive(Debug, Default)]
pub enum ClientCertificates {
    /// None.
    #[default]
    None,
    /// A chain that the cluster's authority signed, the client's own certificate first.
    Trusted(Vec<CertificateDer<'static>>),
    /// One that it did not sign, not for clients, or whose time is over.
    Untrusted,
}

/// Common name and organisations of a certificate that is valid now and meant for clients.
fn of_certificate(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<User> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    // A connection may outlive the certificate that opened it.
    let validity = parsed.validity();
    let now = now.as_second();
    if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
        return None;
    }
    let name = parsed.subject().iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let groups = parsed.subject().iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned);
    Some(User::authenticated(name, groups.collect()))
}

/// The user that `Impersonate-*` headers name, if the one who asks may be them (k8s.io/apiserver/pkg/endpoints/filters/impersonation.go).
fn impersonated(user: User, headers: &HeaderMap, authorizer: &dyn Authorizer) -> Result<User, Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let all = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let (name, uid, mut groups) = (text("impersonate-user"), text("impersonate-uid"), all("impersonate-group"));
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        if let Some(key) = header.as_str().strip_prefix("impersonate-extra-") {
            let key = percent_encoding::percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().extend(all(header.as_str()));
        }
    }
    if name.is_empty() {
        if uid.is_empty() && groups.is_empty() && extra.is_empty() {
            return Ok(user);
        }
        return Err(Status::internal(format!(
            "requested [{}] without impersonating a user",
            groups.iter().map(|group| format!("{{Group  {group}}}")).collect::<Vec<_>>().join(" ")
        )));
    }
    let allowed = |wanted: Attributes| match authorizer.authorize(&wanted) {
        Decision::Allow { .. } => Ok(()),
        Decision::Deny { reason } | Decision::NoOpinion { reason } => Err(forbidden(&wanted, &reason)),
    };
    let check = |group: &str, resource: &str, namespace: &str, name: &str| {
        allowed(Attributes::resource(&user, "impersonate", group, resource, namespace, name))
    };
    // Every group that was asked for is checked; those that a service account implies are not, and are there only when none was asked for.
    let implied = match split_service_account(&name) {
        Some((namespace, account)) => {
            check("", "serviceaccounts", namespace, account)?;
            service_account_groups(namespace)
        }
        None => {
            check("", "users", "", &name)?;
            Vec::new()
        }
    };
    for group in &groups {
        check("", "groups", "", group)?;
    }
    if groups.is_empty() {
        groups = implied;
    }
    if !uid.is_empty() {
        check("authentication.k8s.io", "uids", "", &uid)?;
    }
    for (key, values) in &extra {
        for value in values {
            let mut wanted =
                Attributes::resource(&user, "impersonate", "authentication.k8s.io", "userextras", "", value);
            if let Target::Resource { subresource, .. } = &mut wanted.target {
                subresource.clone_from(key);
            }
            allowed(wanted)?;
        }
    }
    if name == ANONYMOUS {
        if !groups.iter().any(|group| group == ALL_UNAUTHENTICATED) {
            groups.push(ALL_UNAUTHENTICATED.to_owned());
        }
    } else if !groups.iter().any(|group| group == ALL_AUTHENTICATED || group == ALL_UNAUTHENTICATED) {
        groups.push(ALL_AUTHENTICATED.to_owned());
    }
    Ok(User { name, uid, groups, extra })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::authz::Rule;

    struct Only(&'static str);
    impl Authorizer for Only {
        fn authorize(&self, attributes: &Attributes) -> Decision {
            if attributes.user.name == self.0 {
                Decision::Allow { reason: String::new() }
            } else {
                Decision::NoOpinion { reason: String::new() }
            }
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn who_may_impersonate_becomes_the_other() {
        let admin = User::authenticated("admin", Vec::new());
        let wanted =
            headers(&[("impersonate-user", "jane"), ("impersonate-group", "dev"), ("impersonate-extra-scopes", "a")]);
        let user = impersonated(admin, &wanted, &Only("admin")).unwrap();
        assert_eq!((user.name.as_str(), user.groups), ("jane", vec!["dev".to_owned(), ALL_AUTHENTICATED.to_owned()]));
        assert_eq!(user.extra["scopes"], ["a"]);
    }

    #[test]
    fn who_may_not_is_told_so() {
        let user = User::authenticated("eve", Vec::new());
        let status = impersonated(user, &headers(&[("impersonate-user", "jane")]), &Only("admin")).unwrap_err();
        assert_eq!(status.code, 403);
        assert_eq!(
            status.message,
            "users \"jane\" is forbidden: User \"eve\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope"
        );
    }

    #[test]
    fn a_group_without_a_user_is_refused() {
        assert!(impersonated(User::anonymous(), &headers(&[("impersonate-group", "dev")]), &Only("x")).is_err());
    }

    /// Lets everyone impersonate one resource and subresource.
    struct Granted(&'static str, &'static str);
    impl Authorizer for Granted {
        fn authorize(&self, attributes: &Attributes) -> Decision {
            match &attributes.target {
                Target::Resource { resource, subresource, .. }
                    if resource == "users" || (resource == self.0 && subresource == self.1) =>
                {
                    Decision::Allow { reason: String::new() }
                }
                _ => Decision::NoOpinion { reason: String::new() },
            }
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    #[test]
    fn every_group_asked_for_is_checked_even_for_a_service_account() {
        let eve = || User::authenticated("eve", Vec::new());
        let only = Granted("serviceaccounts", "");
        let account = ("impersonate-user", "system:serviceaccount:a:bot");
        let user = impersonated(eve(), &headers(&[account]), &only).unwrap();
        assert!(user.is_in("system:serviceaccounts:a"));
        for group in ["system:serviceaccounts:kube-system", "system:serviceaccounts", "dev"] {
            let wanted = headers(&[account, ("impersonate-group", group)]);
            assert_eq!(impersonated(eve(), &wanted, &only).unwrap_err().code, 403, "{group}");
        }
    }

    #[test]
    fn an_extra_is_a_subresource_of_userextras() {
        let eve = || User::authenticated("eve", Vec::new());
        let wanted = headers(&[("impersonate-user", "jane"), ("impersonate-extra-scopes", "a")]);
        assert!(impersonated(eve(), &wanted, &Granted("userextras", "scopes")).is_ok());
        assert!(impersonated(eve(), &wanted, &Granted("userextras", "other")).is_err());
    }
}
