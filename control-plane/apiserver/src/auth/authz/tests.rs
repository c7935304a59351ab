use super::*;
use serde_json::json;

fn wish(user: &User, verb: &'static str, resource: &str, namespace: &str, name: &str) -> Attributes {
    let (resource, sub) = resource.split_once('/').unwrap_or((resource, ""));
    let mut attributes = Attributes::resource(user, verb, "", resource, namespace, name);
    if let Target::Resource { subresource, .. } = &mut attributes.target {
        sub.clone_into(subresource);
    }
    attributes
}

fn rbac() -> Rbac {
    let rbac = Rbac::default();
    let role = json!({"rules": [
        {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"]},
        {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]},
        {"verbs": ["get"], "nonResourceURLs": ["/healthz/*"]},
    ]});
    rbac.apply("clusterroles", "", "reader", Some(&role));
    let binding =
        json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "User", "name": "jane"}]});
    rbac.apply("rolebindings", "a", "readers", Some(&binding));
    rbac
}

fn jane() -> User {
    User::authenticated("jane", Vec::new())
}

#[test]
fn a_binding_counts_in_its_own_namespace_only() {
    let rbac = rbac();
    assert!(rbac.authorize(&wish(&jane(), "get", "pods", "a", "x")).is_allowed());
    assert!(rbac.authorize(&wish(&jane(), "get", "pods/log", "a", "x")).is_allowed());
    assert!(rbac.authorize(&wish(&jane(), "get", "secrets", "a", "one")).is_allowed());
    for refused in [
        wish(&jane(), "get", "pods", "b", "x"),
        wish(&jane(), "get", "pods", "", ""),
        wish(&jane(), "delete", "pods", "a", "x"),
        wish(&jane(), "get", "pods/exec", "a", "x"),
        wish(&jane(), "get", "secrets", "a", "two"),
        wish(&User::authenticated("joe", Vec::new()), "get", "pods", "a", "x"),
    ] {
        assert!(!rbac.authorize(&refused).is_allowed(), "{refused:?}");
    }
}

#[test]
fn a_binding_that_goes_takes_its_rights_along() {
    let rbac = rbac();
    rbac.apply("rolebindings", "a", "readers", None);
    assert!(!rbac.authorize(&wish(&jane(), "get", "pods", "a", "x")).is_allowed());
}

#[test]
fn a_service_account_is_a_subject_by_namespace_and_name() {
    let rbac = rbac();
    let binding = json!({
        "roleRef": {"kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "a", "name": "bot"}],
    });
    rbac.apply("clusterrolebindings", "", "bots", Some(&binding));
    let bot = User::authenticated("system:serviceaccount:a:bot", Vec::new());
    let decision = rbac.authorize(&wish(&bot, "list", "pods", "b", ""));
    let Decision::Allow { reason } = decision else { panic!("{decision:?}") };
    assert_eq!(
        reason,
        "RBAC: allowed by ClusterRoleBinding \"bots\" of ClusterRole \"reader\" to ServiceAccount \"bot/a\""
    );
    let path = Attributes { user: Arc::new(bot), verb: "get".into(), target: Target::Path("/healthz/ping".to_owned()) };
    assert!(rbac.authorize(&path).is_allowed());
}

#[test]
fn aggregated_roles_have_the_rules_of_those_they_select() {
    let authorizers = Authorizers::new();
    for write in super::super::bootstrap::objects() {
        let name = write.object["metadata"]["name"].as_str().unwrap().to_owned();
        authorizers.apply(
            &GroupResource { group: rbac::GROUP.into(), resource: write.resource.into() },
            &write.namespace,
            &name,
            Some(&write.object),
        );
    }
    let binding =
        json!({"roleRef": {"kind": "ClusterRole", "name": "edit"}, "subjects": [{"kind": "User", "name": "jane"}]});
    authorizers.rbac().apply("rolebindings", "a", "editors", Some(&binding));
    let may = |verb, resource| authorizers.authorize(&wish(&jane(), verb, resource, "a", "")).is_allowed();
    assert!(may("create", "pods") && may("list", "configmaps") && may("get", "secrets"));
    assert!(!may("create", "resourcequotas"));
    assert!(!authorizers.rbac().aggregated("admin").unwrap().is_empty());
}

#[test]
fn rights_that_a_user_lacks_are_found() {
    let rbac = rbac();
    let wanted = Rule::list(&json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]));
    let missing = rbac.missing(&jane(), "a", &wanted);
    assert_eq!(missing, Rule::list(&json!([{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}])));
    assert!(
        rbac.missing(
            &jane(),
            "a",
            &Rule::list(&json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}]))
        )
        .is_empty()
    );
}

#[test]
fn a_kubelet_reads_what_its_pods_refer_to() {
    let authorizers = Authorizers::new();
    let pods = GroupResource::new("", "pods");
    let pod = json!({"spec": {"nodeName": "n1", "volumes": [{"secret": {"secretName": "s"}}], "containers": []}});
    authorizers.apply(&pods, "a", "p", Some(&pod));
    let node = |name: &str| User::authenticated(format!("system:node:{name}"), vec!["system:nodes".to_owned()]);
    let may = |node: &User, name: &str| authorizers.authorize(&wish(node, "get", "secrets", "a", name)).is_allowed();
    assert!(may(&node("n1"), "s"));
    assert!(!may(&node("n2"), "s"));
    assert!(!may(&node("n1"), "other"));
    assert!(authorizers.authorize(&wish(&node("n1"), "list", "pods", "", "")).is_allowed());
    authorizers.apply(&pods, "a", "p", None);
    assert!(!may(&node("n1"), "s"));
}

#[test]
fn a_refusal_is_told_in_upstream_words() {
    let status = forbidden(&wish(&jane(), "list", "pods", "default", ""), "");
    assert_eq!(
        status.message,
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let path = Attributes { user: Arc::new(jane()), verb: "get".into(), target: Target::Path("/metrics".to_owned()) };
    assert_eq!(forbidden(&path, "").message, "forbidden: User \"jane\" cannot get path \"/metrics\"");
}
