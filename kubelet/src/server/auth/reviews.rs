//! Questions to the API server about users.

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;

use super::{Attributes, User};

/// How long the API server may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who a token is of, and what a user may do.
#[async_trait]
pub trait Reviews: Send + Sync + 'static {
    /// The user of a token; `None` when it is nobody's.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn token(&self, token: &str) -> Result<Option<User>, String>;

    /// Whether a user may do something to the node.
    ///
    /// # Errors
    /// When it can't be found out.
    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String>;
}

/// Asks by TokenReview and SubjectAccessReview.
pub struct ApiReviews {
    client: kube::Client,
}

impl ApiReviews {
    /// Asks through this client, whose user may create both kinds of review (ClusterRole `system:node` lets it).
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Reviews for ApiReviews {
    async fn token(&self, token: &str) -> Result<Option<User>, String> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let status = create(&self.client, &review).await?.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return match status.error {
                // An expired token is answered this way too: it is nobody's, and no failure.
                Some(error) => {
                    tracing::debug!(error, "a token was not accepted");
                    Ok(None)
                }
                None => Ok(None),
            };
        }
        Ok(status.user.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }

    async fn access(&self, user: &User, attributes: &Attributes) -> Result<bool, String> {
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: text(&user.name),
                uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
                groups: Some(user.groups.clone()),
                extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    verb: text(attributes.verb),
                    version: text("v1"),
                    resource: text("nodes"),
                    subresource: text(attributes.subresource),
                    name: text(&attributes.node),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let status = create(&self.client, &review).await?.status.unwrap_or_default();
        Ok(status.allowed && status.denied != Some(true))
    }
}

async fn create<K>(client: &kube::Client, review: &K) -> Result<K, String>
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync,
{
    let api: Api<K> = Api::all(client.clone());
    match tokio::time::timeout(TIMEOUT, api.create(&PostParams::default(), review)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the API server did not answer in time".to_owned()),
    }
}
