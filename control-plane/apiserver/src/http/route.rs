//! What a request's path and method mean: upstream's `RequestInfo` (k8s.io/apiserver/pkg/endpoints/request).

use http::Method;

/// A request for something that is, or is not, a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api/v1/…` or `/apis/group/version/…` with a resource in it.
    Resource(ResourcePath),
    /// Everything else: discovery, health, metrics.
    Other,
}

/// The parts of a resource's path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// Empty for core.
    pub group: String,
    /// `v1`
    pub version: String,
    /// Empty when the path has none.
    pub namespace: String,
    /// Plural name.
    pub resource: String,
    /// Empty for a collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// What follows a subresource (`/proxy/some/path`), without the leading slash.
    pub rest: String,
    /// The old `/watch/` prefix.
    pub watch_prefix: bool,
}

impl Route {
    /// Reads a path. Segments are percent-decoded; a path that is no resource's is [`Route::Other`].
    #[must_use]
    pub fn parse(path: &str) -> Self {
        let mut segments = path.trim_start_matches('/').split('/').map(decode);
        let (group, version) = match segments.next().as_deref() {
            Some("api") => (String::new(), segments.next()),
            Some("apis") => match segments.next() {
                Some(group) => (group, segments.next()),
                None => return Self::Other,
            },
            _ => return Self::Other,
        };
        let Some(version) = version.filter(|version| !version.is_empty()) else { return Self::Other };
        let mut parts: Vec<String> = segments.collect();
        if parts.last().is_some_and(String::is_empty) {
            parts.pop();
        }
        let mut path = ResourcePath { group, version, ..ResourcePath::default() };
        let mut parts = parts.into_iter().peekable();
        if parts.next_if(|first| first == "watch").is_some() {
            path.watch_prefix = true;
        }
        let Some(first) = parts.next() else { return Self::Other };
        if first == "namespaces" {
            let Some(namespace) = parts.next() else {
                path.resource = first;
                return Self::Resource(path);
            };
            match parts.next() {
                // The namespace itself; upstream's info has it as name and as namespace.
                None => {
                    path.resource = first;
                    path.name.clone_from(&namespace);
                    path.namespace = namespace;
                    return Self::Resource(path);
                }
                Some(sub) if sub == "status" || sub == "finalize" => {
                    path.resource = first;
                    path.name.clone_from(&namespace);
                    path.namespace = namespace;
                    path.subresource = sub;
                }
                Some(resource) => {
                    path.namespace = namespace;
                    path.resource = resource;
                    path.name = parts.next().unwrap_or_default();
                    path.subresource = parts.next().unwrap_or_default();
                }
            }
        } else {
            path.resource = first;
            path.name = parts.next().unwrap_or_default();
            path.subresource = parts.next().unwrap_or_default();
        }
        path.rest = parts.collect::<Vec<_>>().join("/");
        Self::Resource(path)
    }
}

impl ResourcePath {
    /// The verb as authorization sees it.
    #[must_use]
    pub fn verb(&self, method: &Method, watch: bool) -> &'static str {
        let collection = self.name.is_empty();
        match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD if self.watch_prefix => "watch",
            Method::GET | Method::HEAD if collection => {
                if watch {
                    "watch"
                } else {
                    "list"
                }
            }
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if collection => "deletecollection",
            Method::DELETE => "delete",
            _ => "",
        }
    }
}

/// Percent-decoding of one segment; malformed escapes stay as they are.
fn decode(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

/// The verb of a path that is no resource: its method in lower case.
#[must_use]
pub(crate) fn other_verb(method: &Method) -> String {
    method.as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(path: &str) -> ResourcePath {
        match Route::parse(path) {
            Route::Resource(path) => path,
            Route::Other => panic!("{path} is no resource"),
        }
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        let cases = [
            ("/api/v1/pods", "", "v1", "", "pods", "", ""),
            ("/api/v1/namespaces", "", "v1", "", "namespaces", "", ""),
            ("/api/v1/namespaces/a", "", "v1", "a", "namespaces", "a", ""),
            ("/api/v1/namespaces/a/finalize", "", "v1", "a", "namespaces", "a", "finalize"),
            ("/api/v1/namespaces/a/pods/b/log", "", "v1", "a", "pods", "b", "log"),
            ("/apis/apps/v1/namespaces/a/deployments/b", "apps", "v1", "a", "deployments", "b", ""),
            ("/apis/apps/v1/deployments/", "apps", "v1", "", "deployments", "", ""),
            ("/api/v1/nodes/n%2Ex/status", "", "v1", "", "nodes", "n.x", "status"),
        ];
        for (path, group, version, namespace, name_of, name, sub) in cases {
            let got = resource(path);
            let got = (&*got.group, &*got.version, &*got.namespace, &*got.resource, &*got.name, &*got.subresource);
            assert_eq!(got, (group, version, namespace, name_of, name, sub), "{path}");
        }
        assert_eq!(resource("/api/v1/namespaces/a/services/b/proxy/x/y").rest, "x/y");
    }

    #[test]
    fn what_is_no_resource_is_other() {
        for path in [
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/apps",
            "/apis/apps/v1",
            "/livez",
            "/openapi/v3/apis/apps/v1",
            "/api/v1/",
        ] {
            assert_eq!(Route::parse(path), Route::Other, "{path}");
        }
    }
}
