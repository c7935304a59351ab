use std::collections::HashMap;

use super::*;
use serde_json::json;

#[derive(Default)]
struct World(HashMap<(String, String, String), Arc<Value>>);

impl World {
    fn with(mut self, resource: &str, namespace: &str, name: &str, object: Value) -> Self {
        self.0.insert((resource.to_owned(), namespace.to_owned(), name.to_owned()), Arc::new(object));
        self
    }
}

impl Objects for World {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.0.get(&(resource.resource.to_string(), namespace.to_owned(), name.to_owned())).cloned()
    }
    fn list(&self, resource: &GroupResource, _: Option<&str>) -> Vec<Arc<Value>> {
        self.0
            .iter()
            .filter(|((there, _, _), _)| *there == resource.resource)
            .map(|(_, object)| object.clone())
            .collect()
    }
}

fn kind(plural: &str) -> Kind {
    skep_api::kinds::builtin().into_iter().find(|kind| kind.plural == plural).expect("built in")
}

fn request<'a>(
    kind: &'a Kind,
    operation: Operation,
    user: &'a User,
    name: &'a str,
    old: Option<&'a Value>,
) -> Request<'a> {
    Request { kind, subresource: None, operation, namespace: "a", name, user, old, dry_run: false }
}

fn world() -> World {
    World::default().with("namespaces", "", "a", json!({"status": {"phase": "Active"}})).with(
        "serviceaccounts",
        "a",
        "default",
        json!({"metadata": {"name": "default"}}),
    )
}

fn admitted(pod: Value, world: &World) -> Result<Value, Status> {
    let (kind, user) = (kind("pods"), User::authenticated("jane", Vec::new()));
    let mut pod = pod;
    Chain::default_plugins(Authorizers::new()).admit(
        &request(&kind, Operation::Create, &user, "p", None),
        &mut pod,
        world,
    )?;
    Ok(pod)
}

#[test]
fn a_pod_gets_account_token_tolerations_and_priority() {
    let pod = admitted(json!({"metadata": {}, "spec": {"containers": [{"name": "c"}]}}), &world()).unwrap();
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    assert_eq!(
        pod["spec"]["containers"][0]["volumeMounts"][0]["mountPath"],
        "/var/run/secrets/kubernetes.io/serviceaccount"
    );
    assert_eq!(pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 2);
    assert_eq!(pod["spec"]["priority"], 0);
}

#[test]
fn a_pod_that_wants_no_token_gets_none() {
    let pod = json!({"metadata": {}, "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c"}]}});
    assert!(admitted(pod, &world()).unwrap()["spec"]["volumes"].is_null());
}

#[test]
fn a_pod_without_its_account_is_refused() {
    let pod = json!({"metadata": {}, "spec": {"serviceAccountName": "x", "containers": []}});
    let status = admitted(pod, &world()).unwrap_err();
    assert_eq!(
        status.message,
        "pods \"p\" is forbidden: error looking up service account a/x: serviceaccounts \"x\" not found"
    );
}

#[test]
fn nothing_is_created_where_there_is_no_namespace_or_a_dying_one() {
    let status = admitted(json!({"spec": {}}), &World::default()).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (404, "namespaces \"a\" not found"));
    let dying = World::default().with("namespaces", "", "a", json!({"status": {"phase": "Terminating"}}));
    let status = admitted(json!({"spec": {}}), &dying).unwrap_err();
    assert_eq!(status.code, 403);
    assert!(status.message.ends_with("unable to create new content in namespace a because it is being terminated"));
}

#[test]
fn the_system_namespaces_stay() {
    let (kind, user) = (kind("namespaces"), User::system("admin"));
    let chain = Chain::default_plugins(Authorizers::new());
    let status = chain
        .validate(&request(&kind, Operation::Delete, &user, "kube-system", None), &json!({}), &world())
        .unwrap_err();
    assert_eq!(status.message, "namespaces \"kube-system\" is forbidden: this namespace may not be deleted");
}

#[test]
fn a_kubelet_writes_its_own_node_only() {
    let kind = kind("nodes");
    let user = User::authenticated("system:node:n1", vec!["system:nodes".to_owned()]);
    let chain = Chain::default_plugins(Authorizers::new());
    let write = |name: &str, node: Value| {
        chain.validate(&request(&kind, Operation::Create, &user, name, None), &node, &world())
    };
    write("n1", json!({"metadata": {"labels": {"kubernetes.io/os": "linux", "example.com/x": "y"}}})).unwrap();
    assert!(write("n2", json!({})).is_err());
    assert!(write("n1", json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})).is_err());
    assert!(write("n1", json!({"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""}}})).is_err());
}

#[test]
fn nobody_grants_what_they_do_not_have() {
    let authorizers = Authorizers::new();
    let role = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    authorizers.rbac().apply("clusterroles", "", "reader", Some(&role));
    let binding =
        json!({"roleRef": {"kind": "ClusterRole", "name": "reader"}, "subjects": [{"kind": "User", "name": "jane"}]});
    authorizers.rbac().apply("clusterrolebindings", "", "readers", Some(&binding));
    let (kind, user) = (kind("roles"), User::authenticated("jane", Vec::new()));
    let chain = Chain::default_plugins(authorizers);
    let write = |role: Value| chain.validate(&request(&kind, Operation::Create, &user, "r", None), &role, &world());
    write(role).unwrap();
    let status =
        write(json!({"rules": [{"verbs": ["delete"], "apiGroups": [""], "resources": ["pods"]}]})).unwrap_err();
    assert!(status.message.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"), "{status}");
}
