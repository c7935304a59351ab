use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;

/// Knows one token, lets its user read metrics, and counts questions.
#[derive(Default)]
struct Fake {
    asked: Mutex<Vec<String>>,
    broken: bool,
}

#[async_trait]
impl Reviews for Fake {
    async fn token(&self, token: &str) -> Result<Option<User>, String> {
        self.asked.lock().push(format!("token {token}"));
        if self.broken {
            return Err("no answer".to_owned());
        }
        Ok((token == "good").then(|| User { name: "prometheus".to_owned(), ..User::default() }))
    }

    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String> {
        self.asked.lock().push(format!("{} {} {}", user.name, attributes.verb, attributes.subresource));
        if self.broken {
            return Err("no answer".to_owned());
        }
        Ok(user.name == "prometheus" && attributes.subresource == "metrics")
    }
}

fn auth(fake: Fake, anonymous: bool) -> (Auth, Arc<Fake>) {
    let fake = Arc::new(fake);
    let settings = AuthSettings { anonymous, ..AuthSettings::default() };
    (Auth::new("node-1", fake.clone(), settings), fake)
}

fn headers(authorization: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
    headers
}

#[tokio::test]
async fn a_known_token_reaches_what_its_user_may_and_is_asked_about_once() {
    let (auth, fake) = auth(Fake::default(), false);
    for _ in 0..2 {
        auth.check(None, &Method::GET, "/metrics", &headers("Bearer good")).await.unwrap();
    }
    assert_eq!(*fake.asked.lock(), ["token good", "prometheus get metrics"]);
}

#[tokio::test]
async fn what_a_user_may_not_is_forbidden_in_upstreams_words() {
    let (auth, _) = auth(Fake::default(), false);
    let denial = auth.check(None, &Method::GET, "/pods", &headers("bearer good")).await.unwrap_err();
    let message = "Forbidden (user=prometheus, verb=get, resource=nodes, subresource(s)=[pods proxy])\n";
    assert_eq!(denial, Denial::Forbidden(message.to_owned()));
}

#[tokio::test]
async fn nobody_known_is_unauthenticated_even_where_anonymous_is_welcome() {
    let (auth, _) = auth(Fake::default(), true);
    for authorization in ["Bearer bad", "Basic good", "Bearer "] {
        let denial = auth.check(None, &Method::GET, "/metrics", &headers(authorization)).await.unwrap_err();
        assert_eq!(denial, Denial::Unauthenticated, "{authorization}");
    }
}

#[tokio::test]
async fn a_client_without_credentials_is_anonymous_only_where_that_is_welcome() {
    let (strict, _) = auth(Fake::default(), false);
    let denial = strict.check(None, &Method::GET, "/metrics", &HeaderMap::new()).await.unwrap_err();
    assert_eq!(denial, Denial::Unauthenticated);
    let (open, fake) = auth(Fake::default(), true);
    let denial = open.check(None, &Method::GET, "/metrics", &HeaderMap::new()).await.unwrap_err();
    assert!(matches!(denial, Denial::Forbidden(_)));
    assert_eq!(*fake.asked.lock(), ["system:anonymous get metrics"]);
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_permits_nothing() {
    let (auth, _) = auth(Fake { broken: true, ..Fake::default() }, true);
    let denial = auth.check(None, &Method::GET, "/metrics", &headers("Bearer good")).await.unwrap_err();
    assert_eq!(denial, Denial::Unauthenticated);
    let user = User { name: "prometheus".to_owned(), ..User::default() };
    let denial = auth.check(Some(user), &Method::GET, "/metrics", &HeaderMap::new()).await.unwrap_err();
    assert!(matches!(denial, Denial::Failed(_)));
}

#[test]
fn a_certificate_names_its_user_and_groups() {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "ann");
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "ops");
    let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
    let user = user_of_certificate(certificate.der()).unwrap();
    assert_eq!((user.name.as_str(), user.groups), ("ann", vec!["ops".to_owned(), "system:authenticated".to_owned()]));
}
