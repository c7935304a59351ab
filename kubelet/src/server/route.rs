//! Paths and queries of the kubelet's API. Pure.

use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::backend::{ContainerRef, LogQuery, LogStream, Metrics, PodRef};
use crate::streaming::Wants;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/healthz` and one of its checks.
    Healthz(Check),
    /// `/pods`.
    Pods,
    /// `/runningpods/`.
    RunningPods,
    /// `/stats/summary`.
    StatsSummary,
    /// `/metrics` and below.
    Metrics(Metrics),
    /// `/containerLogs/<namespace>/<pod>/<container>`.
    ContainerLogs(ContainerRef),
    /// `/exec/<namespace>/<pod>/[<uid>/]<container>`.
    Exec(ContainerRef),
    /// `/attach/<namespace>/<pod>/[<uid>/]<container>`.
    Attach(ContainerRef),
    /// `/portForward/<namespace>/<pod>[/<uid>]`.
    PortForward(PodRef),
    /// What upstream has and this kubelet has not, with the reason.
    Refused(&'static str),
    /// Nothing.
    Unknown,
}

/// Which health is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Everything.
    All,
    /// Only that the server answers (`ping`, `log`).
    Ping,
    /// Only the kubelet's own work (`syncloop`).
    SyncLoop,
}

impl Route {
    /// Reads a path.
    pub(crate) fn of(path: &str) -> Self {
        let Some(segments) = segments(path) else { return Self::Unknown };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments.as_slice() {
            ["healthz"] => Self::Healthz(Check::All),
            ["healthz", "ping" | "log"] => Self::Healthz(Check::Ping),
            ["healthz", "syncloop"] => Self::Healthz(Check::SyncLoop),
            ["pods"] => Self::Pods,
            ["runningpods"] => Self::RunningPods,
            ["stats", "summary"] => Self::StatsSummary,
            ["metrics"] => Self::Metrics(Metrics::Kubelet),
            ["metrics", "resource"] => Self::Metrics(Metrics::Resource),
            ["metrics", "cadvisor"] => Self::Metrics(Metrics::Cadvisor),
            ["metrics", "probes"] => Self::Metrics(Metrics::Probes),
            ["containerLogs", namespace, pod, container] => {
                Self::ContainerLogs(container_ref(namespace, pod, None, container))
            }
            ["exec", namespace, pod, container] => Self::Exec(container_ref(namespace, pod, None, container)),
            ["exec", namespace, pod, uid, container] => Self::Exec(container_ref(namespace, pod, Some(uid), container)),
            ["attach", namespace, pod, container] => Self::Attach(container_ref(namespace, pod, None, container)),
            ["attach", namespace, pod, uid, container] => {
                Self::Attach(container_ref(namespace, pod, Some(uid), container))
            }
            ["portForward", namespace, pod] => Self::PortForward(pod_ref(namespace, pod, None)),
            ["portForward", namespace, pod, uid] => Self::PortForward(pod_ref(namespace, pod, Some(uid))),
            ["run", ..] => Self::Refused("commands are run by exec; run is not served by this kubelet"),
            ["logs", ..] => Self::Refused("logs endpoint is disabled."),
            ["debug", ..] => Self::Refused("profiling endpoint is disabled."),
            ["checkpoint", ..] => Self::Refused("checkpointing of containers is not supported by this kubelet"),
            ["configz" | "flagz" | "statusz"] => Self::Refused("this page is not served by this kubelet"),
            ["allocatedPods", ..] => Self::Refused("allocated pods are not served by this kubelet"),
            _ => Self::Unknown,
        }
    }

    /// The methods that suit, as a header `Allow` has them.
    pub(crate) fn allowed(&self) -> &'static str {
        match self {
            Self::Exec(_) | Self::Attach(_) | Self::PortForward(_) => "GET, POST",
            // Refused and unknown whatever the method.
            Self::Refused(_) | Self::Unknown => "*",
            Self::Healthz(_)
            | Self::Pods
            | Self::RunningPods
            | Self::StatsSummary
            | Self::Metrics(_)
            | Self::ContainerLogs(_) => "GET, HEAD",
        }
    }

    /// Whether a method suits.
    pub(crate) fn allows(&self, method: &http::Method) -> bool {
        self.allowed() == "*" || self.allowed().split(", ").any(|allowed| allowed == method.as_str())
    }
}

/// The path's parts, decoded; `None` when one is empty or no UTF-8. One slash at the end is nothing.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/')
        .map(|part| {
            let part = percent_decode_str(part).decode_utf8().ok()?;
            (!part.is_empty()).then(|| part.into_owned())
        })
        .collect()
}

fn pod_ref(namespace: &str, pod: &str, uid: Option<&str>) -> PodRef {
    PodRef { namespace: namespace.to_owned(), pod: pod.to_owned(), uid: uid.map(str::to_owned) }
}

fn container_ref(namespace: &str, pod: &str, uid: Option<&str>, container: &str) -> ContainerRef {
    ContainerRef {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        uid: uid.map(str::to_owned),
        container: container.to_owned(),
    }
}

/// Why a query is no good: the status and upstream's text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BadQuery(pub(crate) u16, pub(crate) String);

/// PodLogOptions out of a query (ValidatePodLogOptions).
pub(crate) fn log_query(query: &str, now: Timestamp) -> Result<LogQuery, BadQuery> {
    let undecodable = || BadQuery(400, r#"{"message": "Unable to decode query."}"#.to_owned());
    let invalid = || BadQuery(422, r#"{"message": "Invalid request."}"#.to_owned());
    let mut out = LogQuery::default();
    let (mut since_seconds, mut since_time) = (None, None);
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || value.parse::<i64>().map_err(|_| undecodable());
        match key.as_ref() {
            "follow" => out.follow = flag(&value),
            "previous" => out.previous = flag(&value),
            "timestamps" => out.timestamps = flag(&value),
            "tail" if value == "all" => out.tail_lines = None,
            "tail" | "tailLines" => out.tail_lines = Some(u64::try_from(number()?).map_err(|_| invalid())?),
            "limitBytes" => {
                out.limit_bytes = Some(u64::try_from(number()?).ok().filter(|bytes| *bytes > 0).ok_or_else(invalid)?);
            }
            "sinceSeconds" => since_seconds = Some(number().ok().filter(|seconds| *seconds > 0).ok_or_else(invalid)?),
            "sinceTime" => since_time = Some(value.parse::<Timestamp>().map_err(|_| undecodable())?),
            "stream" => {
                out.stream = match value.as_ref() {
                    "" | "All" => LogStream::All,
                    "Stdout" => LogStream::Stdout,
                    "Stderr" => LogStream::Stderr,
                    _ => return Err(invalid()),
                }
            }
            _ => {}
        }
    }
    if since_seconds.is_some() && since_time.is_some() || out.stream != LogStream::All && out.tail_lines.is_some() {
        return Err(invalid());
    }
    // A time before the year -9999 is before every line.
    out.since = since_time
        .or(since_seconds.map(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN)));
    Ok(out)
}

/// As apimachinery's conversion: absent, "false" and "0" are false, all else is true.
fn flag(value: &str) -> bool {
    !matches!(value, "false" | "0")
}

/// Which streams a query asks for, and the command (remotecommand.NewOptions).
pub(crate) fn wants(query: &str) -> Result<(Wants, Vec<String>), BadQuery> {
    let mut wants = Wants::default();
    let mut command = Vec::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match key.as_ref() {
            "input" => wants.stdin = value == "1",
            "output" => wants.stdout = value == "1",
            "error" => wants.stderr = value == "1",
            "tty" => wants.tty = value == "1",
            "command" => command.push(value.into_owned()),
            _ => {}
        }
    }
    // A terminal has one output.
    wants.stderr &= !wants.tty;
    if !wants.stdin && !wants.stdout && !wants.stderr {
        return Err(BadQuery(400, "you must specify at least 1 of stdin, stdout, stderr".to_owned()));
    }
    Ok((wants, command))
}

/// The ports that a WebSocket asks for (portforward.NewV4Options).
pub(crate) fn ports(query: &str) -> Result<Vec<u16>, BadQuery> {
    let bad = |message: String| BadQuery(400, message);
    let mut ports = Vec::new();
    for (_, values) in form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == "port") {
        if values.is_empty() {
            return Err(bad("query parameter \"port\" cannot be empty".to_owned()));
        }
        for value in values.split(',') {
            match value.parse::<u16>() {
                Ok(0) => return Err(bad(format!("port \"{values}\" must be > 0"))),
                Ok(port) => ports.push(port),
                Err(error) => return Err(bad(format!("unable to parse \"{values}\" as a port: {error}"))),
            }
        }
    }
    match ports.len() {
        0 => Err(bad("query parameter \"port\" is required".to_owned())),
        // Two channels a port, and channels are numbered by one byte of which the last is taken.
        1..=127 => Ok(ports),
        _ => Err(bad("too many ports".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_uid_names_that_pod_only() {
        let expected = ContainerRef {
            namespace: "a".to_owned(),
            pod: "b".to_owned(),
            uid: Some("u".to_owned()),
            container: "c".to_owned(),
        };
        assert_eq!(Route::of("/exec/a/b/u/c"), Route::Exec(expected));
    }

    #[test]
    fn a_path_without_a_part_leads_nowhere() {
        assert_eq!(Route::of("/exec/a//c"), Route::Unknown);
        assert_eq!(Route::of("/portForward/a"), Route::Unknown);
        assert_eq!(Route::of(""), Route::Unknown);
    }

    #[test]
    fn seconds_count_back_from_now() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let query = log_query("sinceSeconds=60&tailLines=0&follow=true&timestamps=false", now).unwrap();
        assert_eq!(query.since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
        assert_eq!((query.tail_lines, query.follow, query.timestamps), (Some(0), true, false));
    }

    #[test]
    fn contradictions_and_negative_amounts_are_unprocessable() {
        let now = Timestamp::UNIX_EPOCH;
        for query in [
            "tailLines=-1",
            "limitBytes=0",
            "sinceSeconds=0",
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            "stream=Stdout&tailLines=1",
        ] {
            assert_eq!(log_query(query, now).unwrap_err().0, 422, "{query}");
        }
        assert_eq!(log_query("tailLines=x", now).unwrap_err().0, 400);
    }

    #[test]
    fn a_terminal_has_no_error_output() {
        let (wants, command) = wants("input=1&output=1&error=1&tty=1&command=sh&command=-c").unwrap();
        assert!(wants.stdin && wants.stdout && wants.tty && !wants.stderr);
        assert_eq!(command, ["sh", "-c"]);
    }

    #[test]
    fn a_command_without_streams_is_refused() {
        assert_eq!(wants("command=sh&tty=1").unwrap_err().0, 400);
    }

    #[test]
    fn ports_come_one_by_one_or_in_lists() {
        assert_eq!(ports("port=80,81&port=82").unwrap(), [80, 81, 82]);
        for query in ["", "port=", "port=0", "port=70000", "port=80,x"] {
            assert_eq!(ports(query).unwrap_err().0, 400, "{query}");
        }
    }
}
