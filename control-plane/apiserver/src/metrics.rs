//! Figures of this server, with upstream's names (k8s.io/apiserver/pkg/endpoints/metrics), as Prometheus text.

use std::time::Duration;

use http::StatusCode;
use http::request::Parts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::http::Route;

/// What a request is counted under.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Labels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

/// The registry and its metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<CodeLabels, Counter>,
    durations: Family<Labels, Histogram>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let requests = Family::<CodeLabels, Counter>::default();
        let durations = Family::<Labels, Histogram>::new_with_constructor(|| {
            Histogram::new([
                0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0,
            ])
        });
        registry.register(
            "apiserver_request",
            "Counter of apiserver requests broken out for each verb, group, version, resource, subresource and HTTP response code",
            requests.clone(),
        );
        registry.register(
            "apiserver_request_duration_seconds",
            "Response latency distribution in seconds for each verb, group, version, resource and subresource",
            durations.clone(),
        );
        Self { registry, requests, durations }
    }
}

impl Metrics {
    /// What a request will be counted under. Names that a client chose (paths, unknown resources) never become labels.
    #[must_use]
    pub fn labels(&self, route: &Route, parts: &Parts) -> Labels {
        match route {
            Route::Resource(path) => {
                let watch =
                    parts.uri.query().is_some_and(|query| query.contains("watch=true") || query.contains("watch=1"));
                Labels {
                    verb: path.verb(&parts.method, watch).to_ascii_uppercase(),
                    group: path.group.clone(),
                    version: path.version.clone(),
                    resource: path.resource.clone(),
                    subresource: path.subresource.clone(),
                }
            }
            Route::Other => Labels {
                verb: parts.method.as_str().to_owned(),
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: String::new(),
            },
        }
    }

    /// Counts a request that has been answered. Paths that led nowhere are counted under no resource.
    pub fn observe(&self, mut labels: Labels, status: StatusCode, took: Duration) {
        if status == StatusCode::NOT_FOUND || status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            labels.group.clear();
            labels.version.clear();
            labels.resource.clear();
            labels.subresource.clear();
        }
        self.durations.get_or_create(&labels).observe(took.as_secs_f64());
        let Labels { verb, group, version, resource, subresource } = labels;
        let labels = CodeLabels { verb, group, version, resource, subresource, code: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    /// All figures as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        prometheus_client::encoding::text::encode(&mut out, &self.registry).expect("a String takes everything");
        out
    }
}
