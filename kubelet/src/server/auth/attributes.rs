//! What a request does, as an authorizer sees it: a verb on a subresource of this node (pkg/kubelet/server/auth.go). Pure.

use http::Method;

/// One question to the authorizer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// The node's name.
    pub node: String,
    /// `get`, `create` …; empty for a method that has none.
    pub verb: &'static str,
    /// `proxy`, `metrics`, `pods` …
    pub subresource: &'static str,
}

/// The verb of a method.
pub(super) fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// The subresources any of which suffices for a path, in the order of asking.
pub(super) fn subresources(path: &str) -> Vec<&'static str> {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let fine = [
        ("/allocatedPods", "pods"),
        ("/pods", "pods"),
        ("/healthz", "healthz"),
        ("/configz", "configz"),
        ("/runningpods", "pods"),
    ];
    let whole = [
        ("/stats", "stats"),
        ("/metrics", "metrics"),
        ("/logs", "log"),
        ("/checkpoint", "checkpoint"),
        ("/statusz", "statusz"),
        ("/flagz", "configz"),
    ];
    if let Some((_, subresource)) = whole.iter().find(|(root, _)| below(root)) {
        return vec![subresource];
    }
    let mut out: Vec<&'static str> =
        fine.iter().find(|(root, _)| below(root)).map(|(_, subresource)| *subresource).into_iter().collect();
    out.push("proxy");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_the_subresource_that_upstream_gives_it() {
        for (path, expected) in [
            ("/exec/a/b/c", vec!["proxy"]),
            ("/pods", vec!["pods", "proxy"]),
            ("/podsome", vec!["proxy"]),
            ("/runningpods/", vec!["pods", "proxy"]),
            ("/healthz/ping", vec!["healthz", "proxy"]),
            ("/metrics/resource", vec!["metrics"]),
            ("/stats/summary", vec!["stats"]),
            ("/logs/", vec!["log"]),
            ("/", vec!["proxy"]),
        ] {
            assert_eq!(subresources(path), expected, "{path}");
        }
    }
}
