//! `/livez`, `/readyz` and `/healthz`, with upstream's `?verbose`, `?exclude=` and single checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Response, StatusCode};
use parking_lot::RwLock;

use super::body::{Body, full};

/// A named check; `Err` says what is wrong.
pub(crate) type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The checks of this server.
#[derive(Default)]
pub struct Health {
    live: RwLock<Vec<(&'static str, Check)>>,
    ready: RwLock<Vec<(&'static str, Check)>>,
    shutting_down: AtomicBool,
}

impl Health {
    /// Adds a check to both `/livez` and `/readyz`.
    pub fn live(&self, name: &'static str, check: Check) {
        self.live.write().push((name, check.clone()));
        self.ready.write().push((name, check));
    }

    /// Adds a check to `/readyz` only.
    pub fn ready(&self, name: &'static str, check: Check) {
        self.ready.write().push((name, check));
    }

    /// From now on the server is not ready: load balancers send elsewhere while requests in flight end.
    pub fn shut_down(&self) {
        self.shutting_down.store(true, Ordering::Release);
    }

    /// Answers a health path, or `None` for a check that does not exist.
    #[must_use]
    pub fn answer(&self, path: &str, query: Option<&str>) -> Option<Response<Body>> {
        let mut parts = path.trim_matches('/').splitn(2, '/');
        let endpoint = parts.next()?;
        let single = parts.next();
        let checks: Vec<(&'static str, Check)> = match endpoint {
            "livez" => self.live.read().clone(),
            "readyz" | "healthz" => {
                let mut checks = self.ready.read().clone();
                if endpoint == "readyz" {
                    let down = self.shutting_down.load(Ordering::Acquire);
                    let check = move || if down { Err("process is shutting down".to_owned()) } else { Ok(()) };
                    checks.push(("shutdown", Arc::new(check)));
                }
                checks
            }
            _ => return None,
        };
        let parameters: Vec<(String, String)> =
            form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
        let verbose = parameters.iter().any(|(key, _)| key == "verbose");
        let excluded = |name: &str| parameters.iter().any(|(key, value)| key == "exclude" && value == name);
        if let Some(single) = single {
            let (_, check) = checks.iter().find(|(name, _)| *name == single)?;
            return Some(match check() {
                Ok(()) => text(StatusCode::OK, "ok".to_owned()),
                Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n")),
            });
        }
        let mut report = String::new();
        let mut healthy = true;
        for (name, check) in &checks {
            let line = if excluded(name) {
                format!("[+]{name} excluded: ok\n")
            } else if check().is_ok() {
                format!("[+]{name} ok\n")
            } else {
                healthy = false;
                format!("[-]{name} failed: reason withheld\n")
            };
            report.push_str(&line);
        }
        Some(if !healthy {
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{endpoint} check failed\n"))
        } else if verbose {
            text(StatusCode::OK, format!("{report}{endpoint} check passed\n"))
        } else {
            text(StatusCode::OK, "ok".to_owned())
        })
    }
}

/// A plain-text response.
#[must_use]
pub(crate) fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(full(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        let health = Health::default();
        health.live("ping", Arc::new(|| Ok(())));
        health.ready("etcd", Arc::new(|| Err("gone".to_owned())));
        health
    }

    #[test]
    fn a_failed_check_fails_readiness_but_not_liveness() {
        assert_eq!(health().answer("/livez", None).unwrap().status(), 200);
        assert_eq!(health().answer("/readyz", None).unwrap().status(), 500);
        assert_eq!(health().answer("/readyz", Some("exclude=etcd")).unwrap().status(), 200);
        assert_eq!(health().answer("/readyz/ping", None).unwrap().status(), 200);
        assert!(health().answer("/readyz/nothing", None).is_none());
    }
}
