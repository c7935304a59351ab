//! A pod's names: its hostname, and the texts of `/etc/hosts` and `/etc/resolv.conf`.
//!
//! Invariant: pure; the node's own files come in as text.

use std::fmt::Write as _;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{HostAlias, Pod};
use skep_api::names;

use super::{ConfigError, NodeContext};

/// The longest hostname that the kernel takes.
const HOSTNAME_LIMIT: usize = 63;
/// Limits of resolvers (upstream: `MaxDNSNameservers`, `MaxDNSSearchPaths`, `MaxDNSSearchListChars`).
const SERVERS_LIMIT: usize = 3;
const SEARCHES_LIMIT: usize = 32;
const SEARCH_CHARS_LIMIT: usize = 2048;
const DOMAIN_LIMIT: usize = 253;

/// What a pod is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodHostname {
    /// Without a domain.
    pub name: String,
    /// Empty, or `<subdomain>.<namespace>.svc.<cluster domain>`.
    pub domain: String,
    /// What `gethostname` says: the name, or with `setHostnameAsFQDN` both together.
    pub kernel: String,
}

/// A pod's names (upstream: `GeneratePodHostNameAndDomain` and `GetNodenameForKernel`).
///
/// # Errors
/// When a name is none, or the whole is longer than the kernel takes.
pub fn pod_hostname(pod: &Pod, cluster_domain: &str) -> Result<PodHostname, ConfigError> {
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|spec| spec.hostname_override.as_deref()) {
        check("HostnameOverride", "subdomain", name, names::is_dns1123_subdomain(name))?;
        let name = truncated(pod_name, name)?;
        return Ok(PodHostname { kernel: name.clone(), name, domain: String::new() });
    }
    let own = spec.and_then(|spec| spec.hostname.as_deref()).filter(|name| !name.is_empty());
    if let Some(name) = own {
        check("Hostname", "label", name, names::is_dns1123_label(name))?;
    }
    let name = truncated(pod_name, own.unwrap_or(pod_name))?;
    let subdomain = spec.and_then(|spec| spec.subdomain.as_deref()).filter(|name| !name.is_empty());
    let domain = match subdomain {
        Some(subdomain) => {
            check("Subdomain", "label", subdomain, names::is_dns1123_label(subdomain))?;
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            format!("{subdomain}.{namespace}.svc.{cluster_domain}")
        }
        None => String::new(),
    };
    let as_fqdn = spec.and_then(|spec| spec.set_hostname_as_fqdn).unwrap_or(false) && !domain.is_empty();
    let kernel = if as_fqdn { format!("{name}.{domain}") } else { name.clone() };
    if kernel.len() > HOSTNAME_LIMIT + 1 {
        return Err(ConfigError::new(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {kernel} is too long ({} characters is the \
             max, {} characters requested)",
            HOSTNAME_LIMIT + 1,
            kernel.len()
        )));
    }
    Ok(PodHostname { name, domain, kernel })
}

/// `/etc/hosts` of a pod (upstream: `managedHostsFileContent`, `nodeHostsFileContent`); `of_node` is the node's own, which
/// the file begins with for `hostNetwork`.
///
/// # Errors
/// As [`pod_hostname`].
pub fn hosts(pod: &Pod, pod_ips: &[IpAddr], cluster_domain: &str, of_node: &str) -> Result<String, ConfigError> {
    let spec = pod.spec.as_ref();
    let aliases = spec.and_then(|spec| spec.host_aliases.as_deref()).unwrap_or_default();
    if spec.and_then(|spec| spec.host_network).unwrap_or(false) {
        return Ok(format!("# Kubernetes-managed hosts file (host network).\n{of_node}{}", of_aliases(aliases)));
    }
    let PodHostname { name, domain, .. } = pod_hostname(pod, cluster_domain)?;
    let mut text = "# Kubernetes-managed hosts file.\n\
        127.0.0.1\tlocalhost\n\
        ::1\tlocalhost ip6-localhost ip6-loopback\n\
        fe00::0\tip6-localnet\n\
        fe00::0\tip6-mcastprefix\n\
        fe00::1\tip6-allnodes\n\
        fe00::2\tip6-allrouters\n"
        .to_owned();
    for ip in pod_ips {
        // Writing to a String can't fail.
        let _ = match domain.as_str() {
            "" => writeln!(text, "{ip}\t{name}"),
            domain => writeln!(text, "{ip}\t{name}.{domain}\t{name}"),
        };
    }
    Ok(text + &of_aliases(aliases))
}

/// What `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolverConfig {
    /// Servers.
    pub servers: Vec<String>,
    /// Domains to try.
    pub searches: Vec<String>,
    /// `name[:value]`.
    pub options: Vec<String>,
}

impl ResolverConfig {
    /// Reads a `resolv.conf`; what it doesn't know is skipped.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("nameserver") => config.servers.extend(fields.next().map(str::to_owned)),
                Some("search") => {
                    let domains = fields.map(|domain| domain.trim_end_matches('.'));
                    config.searches = domains.filter(|domain| !domain.is_empty()).map(str::to_owned).collect();
                }
                Some("options") => fields.for_each(|option| set_option(&mut config.options, option.to_owned())),
                Some(_) | None => {}
            }
        }
        config
    }
}

/// A pod's `/etc/resolv.conf`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodResolver {
    /// The file.
    pub text: String,
    /// What was left out or replaced: messages of Warning events, `DNSConfigForming` or `MissingClusterDNS`, by reason.
    pub warnings: Vec<(&'static str, String)>,
}

/// `/etc/resolv.conf` of a pod (upstream: `GetPodDNS`).
pub fn resolver(pod: &Pod, node: &NodeContext) -> PodResolver {
    let spec = pod.spec.as_ref();
    let host_network = spec.and_then(|spec| spec.host_network).unwrap_or(false);
    let policy = spec.and_then(|spec| spec.dns_policy.as_deref());
    let mut warnings = vec![];
    let cluster = match policy {
        Some("None" | "Default") => false,
        Some("ClusterFirst") if host_network => false,
        // ClusterFirst, ClusterFirstWithHostNet, and what upstream takes for ClusterFirst.
        Some(_) | None => true,
    };
    let mut config = if policy == Some("None") { ResolverConfig::default() } else { node.resolver.clone() };
    if cluster && node.cluster_dns.is_empty() {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let of = &pod.metadata;
        warnings.push((
            "MissingClusterDNS",
            format!(
                "pod: \"{}_{}({})\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \
                 \"ClusterFirst\" policy. Falling back to \"Default\" policy.",
                text(&of.name),
                text(&of.namespace),
                text(&of.uid)
            ),
        ));
    } else if cluster {
        config.servers = node.cluster_dns.iter().map(ToString::to_string).collect();
        if !node.cluster_domain.is_empty() {
            let (namespace, domain) = (pod.metadata.namespace.as_deref().unwrap_or_default(), &node.cluster_domain);
            let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.clone()];
            searches.append(&mut config.searches);
            config.searches = unique(searches);
        }
        config.options = vec!["ndots:5".to_owned()];
    }
    if let Some(asked) = spec.and_then(|spec| spec.dns_config.as_ref()) {
        config.servers.extend(asked.nameservers.iter().flatten().cloned());
        config.servers = unique(config.servers);
        config.searches.extend(asked.searches.iter().flatten().cloned());
        config.searches = unique(config.searches);
        for option in asked.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            let value = option.value.as_deref().filter(|value| !value.is_empty());
            set_option(&mut config.options, value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
        }
    }
    limit(&mut config, &mut warnings);
    PodResolver { text: text_of(&config), warnings }
}

fn text_of(config: &ResolverConfig) -> String {
    let mut text = String::new();
    if !config.searches.is_empty() {
        text += &format!("search {}\n", config.searches.join(" "));
    }
    config.servers.iter().for_each(|server| text += &format!("nameserver {server}\n"));
    if !config.options.is_empty() {
        text += &format!("options {}\n", config.options.join(" "));
    }
    text
}

/// Old resolvers fail on more than this.
fn limit(config: &mut ResolverConfig, warnings: &mut Vec<(&'static str, String)>) {
    if config.servers.len() > SERVERS_LIMIT {
        config.servers.truncate(SERVERS_LIMIT);
        let applied = config.servers.join(" ");
        warnings.push((
            "DNSConfigForming",
            format!("Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {applied}"),
        ));
    }
    let asked = config.searches.len();
    config.searches.truncate(SEARCHES_LIMIT);
    config.searches.retain(|domain| domain.len() <= DOMAIN_LIMIT);
    while config.searches.join(" ").len() > SEARCH_CHARS_LIMIT {
        config.searches.pop();
    }
    if config.searches.len() < asked {
        let applied = config.searches.join(" ");
        warnings.push((
            "DNSConfigForming",
            format!("Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {applied}"),
        ));
    }
}

fn set_option(options: &mut Vec<String>, option: String) {
    let name = |option: &str| option.split(':').next().unwrap_or_default().to_owned();
    match options.iter_mut().find(|other| name(other) == name(&option)) {
        Some(other) => *other = option,
        None => options.push(option),
    }
}

fn unique(mut list: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::BTreeSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
    list
}

fn of_aliases(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases
        .iter()
        .map(|alias| format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

fn check(field: &str, kind: &str, name: &str, problems: Vec<String>) -> Result<(), ConfigError> {
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems.join(";");
    Err(ConfigError::new(format!("pod {field} {name:?} is not a valid DNS {kind}: {problems}")))
}

fn truncated(pod_name: &str, name: &str) -> Result<String, ConfigError> {
    if name.len() <= HOSTNAME_LIMIT {
        return Ok(name.to_owned());
    }
    let short = name.get(..HOSTNAME_LIMIT).unwrap_or_default().trim_end_matches(['-', '.']);
    if short.is_empty() {
        return Err(ConfigError::new(format!("hostname for pod {pod_name:?} was invalid: {name:?}")));
    }
    Ok(short.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        let mut spec = spec;
        spec["containers"] = json!([]);
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})).unwrap()
    }

    fn node() -> NodeContext {
        NodeContext {
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: vec!["10.0.0.10".parse().unwrap()],
            resolver: ResolverConfig::parse(
                "nameserver 1.1.1.1\nsearch corp. .\n# x\noptions timeout:2 timeout:3 rotate\n",
            ),
            ..NodeContext::default()
        }
    }

    #[test]
    fn names_follow_hostname_and_subdomain() {
        let names = |spec: Value| pod_hostname(&pod(spec), "cluster.local").map(|names| (names.kernel, names.domain));
        let pair = |kernel: &str, domain: &str| Ok((kernel.to_owned(), domain.to_owned()));
        assert_eq!(names(json!({})), pair("p", ""));
        assert_eq!(names(json!({"hostname": "h", "subdomain": "s"})), pair("h", "s.n.svc.cluster.local"));
        assert_eq!(
            names(json!({"subdomain": "s", "setHostnameAsFQDN": true})),
            pair("p.s.n.svc.cluster.local", "s.n.svc.cluster.local")
        );
        assert_eq!(names(json!({"hostnameOverride": "a.b"})), pair("a.b", ""));
        let long = names(json!({"subdomain": "s".repeat(60), "setHostnameAsFQDN": true}));
        assert!(long.unwrap_err().to_string().contains("(64 characters is the max, 82 characters requested)"));
    }

    #[test]
    fn the_hosts_file_names_the_pod_and_its_aliases() {
        let alias = json!([{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]);
        let ips = ["10.1.0.7".parse().unwrap()];
        let text = hosts(&pod(json!({"subdomain": "s", "hostAliases": alias})), &ips, "d", "").unwrap();
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\t"), "{text}");
        assert!(
            text.ends_with("10.1.0.7\tp.s.n.svc.d\tp\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"),
            "{text}"
        );
        let text = hosts(&pod(json!({"hostNetwork": true})), &ips, "d", "127.0.0.1 node\n").unwrap();
        assert_eq!(text, "# Kubernetes-managed hosts file (host network).\n127.0.0.1 node\n");
    }

    #[test]
    fn the_resolver_follows_the_policy() {
        let of = |spec: Value| resolver(&pod(spec), &node()).text;
        let cluster =
            "search n.svc.cluster.local svc.cluster.local cluster.local corp\nnameserver 10.0.0.10\noptions ndots:5\n";
        let own = "search corp\nnameserver 1.1.1.1\noptions timeout:3 rotate\n";
        assert_eq!(of(json!({})), cluster);
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true})), cluster);
        assert_eq!(of(json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true})), own);
        assert_eq!(of(json!({"dnsPolicy": "Default"})), own);
        let asked = json!({"nameservers": ["9.9.9.9"], "searches": ["x"], "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]});
        assert_eq!(
            of(json!({"dnsPolicy": "None", "dnsConfig": asked})),
            "search x\nnameserver 9.9.9.9\noptions ndots:2 edns0\n"
        );
        assert!(
            of(json!({"dnsConfig": asked}))
                .ends_with("nameserver 10.0.0.10\nnameserver 9.9.9.9\noptions ndots:2 edns0\n")
        );
    }

    #[test]
    fn more_than_resolvers_take_is_left_out_with_a_warning() {
        let servers: Vec<_> = (1..=4).map(|n| format!("9.9.9.{n}")).collect();
        let found = resolver(&pod(json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": servers}})), &node());
        assert_eq!(found.text.lines().count(), 3);
        assert_eq!(found.warnings[0].0, "DNSConfigForming");
        let found = resolver(&pod(json!({})), &NodeContext { cluster_dns: vec![], ..node() });
        assert_eq!(found.warnings[0].0, "MissingClusterDNS");
        assert!(found.text.contains("nameserver 1.1.1.1"));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(text in "(nameserver|search|options|#| |\n|\t|[a-c.:]{1,3}){0,30}") {
            let once = ResolverConfig::parse(&text);
            proptest::prop_assert_eq!(ResolverConfig::parse(&text_of(&once)), once);
        }
    }
}
