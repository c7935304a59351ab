use serde_json::json;

use super::testing::{Api as FakeApi, status};
use super::*;

const CONFIG_MAP: &str = "/api/v1/namespaces/n/configmaps/a";

fn config_map(value: &str) -> serde_json::Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "n"}, "data": {"k": value}})
}

fn service(name: &str, namespace: &str) -> serde_json::Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": namespace, "resourceVersion": "2"},
        "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}})
}

async fn value(objects: &Objects, freshness: Freshness) -> String {
    let found = objects.config_map("n", "a", freshness).await.unwrap().unwrap();
    found.data.as_ref().unwrap()["k"].clone()
}

#[tokio::test]
async fn a_fresh_read_sees_what_changed_before_it_and_an_older_answer_serves_others() {
    let api = FakeApi::new();
    let objects = Objects::new(api.client());
    api.put(CONFIG_MAP, config_map("1"));
    assert_eq!(value(&objects, Freshness::Now).await, "1");
    api.put(CONFIG_MAP, config_map("2"));
    assert_eq!(value(&objects, Freshness::Within(Duration::from_secs(60))).await, "1");
    assert_eq!(value(&objects, Freshness::Now).await, "2");
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn readers_at_the_same_time_share_requests() {
    let api = FakeApi::new();
    let objects = Objects::new(api.client());
    api.put(CONFIG_MAP, config_map("1"));
    futures::future::join_all((0..100).map(|_| value(&objects, Freshness::Now))).await;
    // The first one's, and one that began after all the others had asked.
    assert_eq!(api.requests().len(), 2);
}

#[tokio::test]
async fn what_is_not_there_is_none_and_a_refusal_is_told() {
    let api = FakeApi::new();
    let objects = Objects::new(api.client());
    assert!(objects.config_map("n", "a", Freshness::Now).await.unwrap().is_none());
    api.put("/api/v1/namespaces/n/secrets/s", status(403, "Forbidden", "secrets \"s\" is forbidden"));
    let refused = objects.secret("n", "s", Freshness::Now).await.unwrap_err();
    assert_eq!(refused.to_string(), "secrets \"s\" is forbidden");
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_holds_nobody_for_ever() {
    let api = FakeApi::new();
    let mut cache: Cache<Secret> = Cache::new(api.client(), "secret", Duration::ZERO);
    *api.is_silent.lock() = true;
    let failed = cache.get("n", "s", Freshness::Now).await.unwrap_err();
    assert_eq!(failed.to_string(), "failed to sync secret cache: timed out waiting for the condition");
    *api.is_silent.lock() = false;
    cache.timeout = REQUEST_TIMEOUT;
    assert!(cache.get("n", "s", Freshness::Now).await.unwrap().is_none());
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let api = FakeApi::new();
    let cache: Cache<ConfigMap> = Cache::new(api.client(), "configmap", REQUEST_TIMEOUT);
    let now = Instant::now();
    for index in 0..CACHE_LIMIT + 10 {
        cache.slot("n", &index.to_string(), now);
    }
    assert_eq!(cache.slots.lock().len(), CACHE_LIMIT);
}

#[tokio::test]
async fn a_token_is_kept_until_its_time_and_the_old_one_serves_if_none_can_be_had() {
    let api = FakeApi::new();
    let tokens = Tokens::new(api.client());
    let request = TokenRequest {
        namespace: "n".to_owned(),
        service_account: "sa".to_owned(),
        pod_name: "p".to_owned(),
        pod_uid: "u".to_owned(),
        audience: Some("aud".to_owned()),
        expiration_seconds: Some(3600),
    };
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let get = async |now: &str| tokens.get(&request, at(now)).await.map(|token| token.text).map_err(|e| e.to_string());
    assert_eq!(get("2099-12-31T23:00:00Z").await.as_deref(), Ok("token-0"));
    assert_eq!(get("2099-12-31T23:40:00Z").await.as_deref(), Ok("token-0"));
    *api.refuses_tokens.lock() = true;
    assert_eq!(get("2099-12-31T23:50:00Z").await.as_deref(), Ok("token-0"));
    assert_eq!(get("2100-01-01T00:00:01Z").await.unwrap_err(), "failed to fetch token: no token for you");
    *api.refuses_tokens.lock() = false;
    assert_eq!(get("2099-12-31T23:50:00Z").await.as_deref(), Ok("token-1"));
    let spec = &api.bodies()[0]["spec"];
    assert_eq!(spec["audiences"], json!(["aud"]));
    assert_eq!(spec["boundObjectRef"], json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}));
    assert_eq!(api.requests()[0], "POST /api/v1/namespaces/n/serviceaccounts/sa/token");
    tokens.forget("u");
    assert_eq!(get("2099-12-31T23:00:00Z").await.as_deref(), Ok("token-2"));
}

#[tokio::test]
async fn services_are_told_of_once_they_were_read_and_as_they_change() {
    let api = FakeApi::new();
    for (name, namespace) in [("kubernetes", "default"), ("a", "n"), ("b", "other")] {
        api.put(&format!("/api/v1/namespaces/{namespace}/services/{name}"), service(name, namespace));
    }
    let objects = Arc::new(Objects::new(api.client()));
    assert!(objects.services("n").unwrap_err().to_string().starts_with("services have not yet been read"));
    let stop = CancellationToken::new();
    let task = tokio::spawn({
        let (objects, stop) = (objects.clone(), stop.clone());
        async move { objects.run(stop).await }
    });
    let names = |namespace: &str| {
        let services = objects.services(namespace).unwrap_or_default();
        services.iter().map(|service| service.metadata.name.clone().unwrap()).collect::<Vec<_>>()
    };
    until(|| api.watchers() == 1).await;
    assert_eq!(names("n"), ["a", "kubernetes"]);
    assert_eq!(names("default"), ["kubernetes"]);
    api.event("ADDED", &service("c", "n"));
    api.event("DELETED", &service("a", "n"));
    until(|| names("n") == ["c", "kubernetes"]).await;
    stop.cancel();
    task.await.unwrap();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}
