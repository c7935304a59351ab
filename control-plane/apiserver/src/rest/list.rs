//! `list`: from the cache when it is about now, from the store's history when it is about a revision in the past.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use skep_api::Status;
use skep_store::{At, Error as StoreError, Range, Revision};

use super::{Answer, Call, Engine, Payload, selection, store_error};
use crate::cache::Filter;
use crate::object::{Object, Shared};

/// A page of a list.
pub struct ListPage {
    /// In key order.
    pub objects: Vec<Shared>,
    /// `metadata.resourceVersion`
    pub revision: Revision,
    /// `metadata.continue`; empty on the last page.
    pub continue_token: String,
    /// `metadata.remainingItemCount`, where it is known.
    pub remaining: Option<usize>,
}

/// A continue token: upstream's form, opaque to clients.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

impl Token {
    fn encode(revision: Revision, after: &[u8]) -> String {
        let token = Self {
            v: "meta.k8s.io/v1".to_owned(),
            rv: i64::try_from(revision.0).unwrap_or(i64::MAX),
            start: String::from_utf8_lossy(after).into_owned(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("strings and a number always encode"))
    }

    fn decode(text: &str, prefix: &[u8]) -> Result<(Option<Revision>, Bytes), Status> {
        let fail = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| fail(&e.to_string()))?;
        let token: Self = serde_json::from_slice(&bytes).map_err(|e| fail(&e.to_string()))?;
        if token.v != "meta.k8s.io/v1" {
            return Err(fail("server does not recognize this encoded version"));
        }
        if !token.start.as_bytes().starts_with(prefix) {
            return Err(fail("it belongs to another list"));
        }
        // A negative revision is the inconsistent continuation that an expired token is answered with.
        let revision = u64::try_from(token.rv).ok().map(Revision);
        Ok((revision, token.start.into()))
    }
}

impl Engine {
    /// `list`.
    ///
    /// # Errors
    /// 400 for parameters that contradict each other, 410 for a revision whose history is gone.
    pub async fn list(&self, call: &Call<'_>) -> Result<Answer, Status> {
        let query = call.query;
        let filter = selection::filter(call.kind, call.namespace, call.name, query)?;
        check(query)?;
        if !query.continue_token.is_empty() {
            let (revision, after) = Token::decode(&query.continue_token, &filter.prefix)?;
            let page = match revision {
                Some(revision) => self.list_at(&filter, revision, Some(after), query.limit).await,
                None => {
                    let revision = self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
                    Ok(self.list_now(call, &filter, revision, Some(&after), query.limit))
                }
            };
            return page.map(|page| Answer::ok(Payload::List(page)));
        }
        let page = match query.resource_version {
            Some(revision) if query.version_match == "Exact" => {
                self.list_at(&filter, revision, None, query.limit).await?
            }
            Some(Revision(0)) => {
                let revision = self.cache.revision();
                // Any state will do, and a limit with "any" is ignored, as upstream's watch cache does.
                self.list_now(call, &filter, revision, None, 0)
            }
            Some(revision) => {
                self.cache.wait_for(revision).await?;
                self.list_now(call, &filter, self.cache.revision(), None, query.limit)
            }
            None => {
                let revision = self.cache.wait_for_latest(&call.kind.storage_resource()).await?;
                self.list_now(call, &filter, revision, None, query.limit)
            }
        };
        Ok(Answer::ok(Payload::List(page)))
    }

    fn list_now(
        &self,
        call: &Call<'_>,
        filter: &Filter,
        revision: Revision,
        after: Option<&Bytes>,
        limit: usize,
    ) -> ListPage {
        let Some(resource) = self.cache.resource(&call.kind.storage_resource()) else {
            return ListPage { objects: Vec::new(), revision, continue_token: String::new(), remaining: None };
        };
        let snapshot = resource.list(filter, after, limit);
        // The cache may have moved on since the revision was read: the list is at least as new as the newest object in it.
        let newest = snapshot.objects.iter().map(|object| object.revision).max().unwrap_or_default();
        let revision = revision.max(newest);
        page(snapshot.objects, revision, snapshot.remaining, filter.matches.is_none())
    }

    async fn list_at(
        &self,
        filter: &Filter,
        revision: Revision,
        after: Option<Bytes>,
        limit: usize,
    ) -> Result<ListPage, Status> {
        let range = Range::prefix(filter.prefix.clone());
        let mut objects = Vec::new();
        let mut after = after;
        // With a selector, pages of the store are read until a page of matches is full.
        loop {
            let chunk = if limit == 0 { 0 } else { limit.max(500) };
            let listed = self.store().list(&range, At::Exactly(revision), chunk, after.as_deref()).await;
            let listed = listed.map_err(|error| expired(&error, after.as_ref()))?;
            let remaining = usize::try_from(listed.remaining).unwrap_or(usize::MAX);
            let total = listed.entries.len();
            for (at, entry) in listed.entries.into_iter().enumerate() {
                after = Some(entry.key.clone());
                let object = Object::from_entry(entry).map_err(Status::internal)?;
                if filter.selects(&object) {
                    objects.push(Arc::new(object));
                    if limit > 0 && objects.len() == limit {
                        let left = remaining + (total - at - 1);
                        return Ok(page(objects, revision, left, filter.matches.is_none()));
                    }
                }
            }
            if remaining == 0 {
                return Ok(page(objects, revision, 0, true));
            }
        }
    }
}

fn page(objects: Vec<Shared>, revision: Revision, remaining: usize, counted: bool) -> ListPage {
    let continue_token = match objects.last() {
        Some(last) if remaining > 0 => Token::encode(revision, &last.key),
        _ => String::new(),
    };
    let remaining = (remaining > 0 && counted).then_some(remaining);
    ListPage { objects, revision, continue_token, remaining }
}

fn check(query: &super::Query) -> Result<(), Status> {
    match query.version_match.as_str() {
        "" => {}
        "Exact" | "NotOlderThan" if query.resource_version.is_none() && query.continue_token.is_empty() => {
            return Err(Status::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        "Exact" if query.resource_version == Some(Revision(0)) => {
            return Err(Status::bad_request(
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        "Exact" | "NotOlderThan" => {}
        other => {
            return Err(Status::bad_request(format!(
                "resourceVersionMatch: Unsupported value: \"{other}\": supported values: \"Exact\", \"NotOlderThan\", \"\""
            )));
        }
    }
    if !query.continue_token.is_empty() && !query.version_match.is_empty() {
        return Err(Status::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    if !query.continue_token.is_empty() && query.resource_version.is_some_and(|revision| revision.0 != 0) {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

/// A list whose snapshot is gone is offered to go on inconsistently, as upstream does.
fn expired(error: &StoreError, after: Option<&Bytes>) -> Status {
    let StoreError::Compacted { .. } = error else { return store_error(error) };
    let Some(after) = after else {
        return Status::expired("The provided resource version is too old to display a consistent list.");
    };
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv: -1, start: String::from_utf8_lossy(after).into_owned() };
    let token = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).expect("strings and a number always encode"));
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = token;
    status
}
