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

#[test]
fn who_speaks_for_a_signer_holds_its_verb() {
    let authorizers = Authorizers::new();
    let rule = json!({
        "verbs": ["sign", "attest"], "apiGroups": ["certificates.k8s.io"], "resources": ["signers"],
        "resourceNames": ["example.com/*"],
    });
    authorizers.rbac().apply("clusterroles", "", "signer", Some(&json!({"rules": [rule]})));
    let binding =
        json!({"roleRef": {"kind": "ClusterRole", "name": "signer"}, "subjects": [{"kind": "User", "name": "jane"}]});
    authorizers.rbac().apply("clusterrolebindings", "", "signers", Some(&binding));
    let chain = Chain::default_plugins(authorizers);
    let user = User::authenticated("jane", Vec::new());
    let write = |plural: &str, subresource: Option<Subresource>, signer: &str| {
        let (kind, old) = (kind(plural), json!({"spec": {"signerName": signer}}));
        let new = json!({"spec": {"signerName": signer}, "status": {"conditions": [{"type": "Denied"}]}});
        let request = Request { subresource, ..request(&kind, Operation::Update, &user, "r", Some(&old)) };
        chain.validate(&request, &new, &world()).map_err(|status| status.message)
    };
    let status = Some(Subresource::Status);
    for (plural, subresource) in
        [("clustertrustbundles", None), ("podcertificaterequests", status), ("certificatesigningrequests", status)]
    {
        assert_eq!(write(plural, subresource, "example.com/s"), Ok(()));
        assert!(write(plural, subresource, "example.org/s").is_err(), "{plural}");
    }
    let refused = write("certificatesigningrequests", Some(Subresource::Approval), "example.com/s").unwrap_err();
    assert!(refused.ends_with("user not permitted to approve requests with signerName \"example.com/s\""), "{refused}");
}

fn kubelet() -> User {
    User::authenticated("system:node:n1", vec!["system:nodes".to_owned()])
}

#[test]
fn a_kubelet_gets_tokens_of_its_own_pods_only() {
    let pod = |node: &str| json!({"metadata": {"uid": "u"}, "spec": {"nodeName": node}});
    let world = World::default().with("pods", "a", "mine", pod("n1")).with("pods", "a", "other", pod("n2"));
    let ask = |reference: Value| {
        let token = json!({"spec": {"boundObjectRef": reference}});
        admit_token(&kubelet(), "a", "bot", &token, &world).map_err(|status| (status.code, status.message))
    };
    let pod = |name: &str, uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid});
    ask(pod("mine", "u")).unwrap();
    let said = |why: &str| Err((403, format!("serviceaccounts \"bot\" is forbidden: {why}")));
    assert_eq!(ask(Value::Null), said("node requested token not bound to a pod"));
    assert_eq!(ask(pod("mine", "")), said("node requested token with a pod binding without a uid"));
    assert_eq!(ask(pod("other", "u")), said("node requested token bound to a pod scheduled on a different node"));
    assert_eq!(ask(pod("mine", "v")).unwrap_err().0, 403);
    assert_eq!(ask(pod("gone", "u")).unwrap_err().0, 404);
    admit_token(&User::authenticated("jane", Vec::new()), "a", "bot", &json!({}), &world).unwrap();
}

#[test]
fn a_kubelet_takes_no_reserved_label_away() {
    let (kind, user) = (kind("nodes"), kubelet());
    let old = json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y", "example.com/x": "y"}}});
    let chain = Chain::default_plugins(Authorizers::new());
    let write =
        |new: Value| chain.validate(&request(&kind, Operation::Update, &user, "n1", Some(&old)), &new, &world());
    write(json!({"metadata": {"labels": {"node-restriction.kubernetes.io/x": "y"}}})).unwrap();
    assert!(write(json!({"metadata": {}})).is_err());
}

#[test]
fn a_kubelet_creates_its_own_lease_only() {
    let (kind, user) = (kind("leases"), kubelet());
    let chain = Chain::default_plugins(Authorizers::new());
    let write = |namespace: &str, name: &str| {
        let request = Request { namespace, ..request(&kind, Operation::Create, &user, name, None) };
        chain.validate(&request, &json!({"metadata": {"name": name}}), &world())
    };
    write("kube-node-lease", "n1").unwrap();
    assert!(write("kube-node-lease", "n2").is_err());
    assert!(write("kube-system", "n1").is_err());
}

#[test]
fn a_kubelet_asks_certificates_for_its_own_pods_only() {
    let (kind, user) = (kind("podcertificaterequests"), kubelet());
    let chain = Chain::default_plugins(Authorizers::new());
    let source = json!({"podCertificate": {"signerName": "example.com/s"}});
    let pod = |node: &str| {
        json!({"metadata": {"name": "p", "uid": "1"}, "spec": {
            "nodeName": node, "serviceAccountName": "default", "volumes": [{"projected": {"sources": [source]}}],
        }})
    };
    let world = world()
        .with("nodes", "", "n1", json!({"metadata": {"uid": "3"}}))
        .with("serviceaccounts", "a", "default", json!({"metadata": {"name": "default", "uid": "2"}}))
        .with("pods", "a", "p", pod("n1"))
        .with("pods", "a", "elsewhere", pod("n2"));
    let spec = json!({
        "signerName": "example.com/s", "podName": "p", "podUID": "1", "serviceAccountName": "default",
        "serviceAccountUID": "2", "nodeName": "n1", "nodeUID": "3",
    });
    let write = |field: &str, value: &str| {
        let mut object = json!({"spec": spec});
        object["spec"][field] = value.into();
        let answer = chain.validate(&request(&kind, Operation::Create, &user, "r", None), &object, &world);
        answer.map_or_else(|status| status.code, |()| 201)
    };
    assert_eq!(write("podName", "p"), 201);
    assert_eq!(write("podName", "elsewhere"), 403);
    assert_eq!(write("nodeName", "n2"), 403);
    assert_eq!(write("signerName", "example.com/t"), 403);
    assert_eq!(write("serviceAccountName", "other"), 403);
    // The server's view may be late.
    for field in ["podName", "podUID", "nodeUID", "serviceAccountUID"] {
        assert_eq!(write(field, "unknown"), 500, "{field}");
    }
}

#[test]
fn a_mirror_pod_refers_to_no_object() {
    let (kind, user) = (kind("pods"), kubelet());
    let chain = Chain::default_plugins(Authorizers::new());
    let write = |more: Value| {
        let mut spec = json!({"nodeName": "n1", "containers": [{"name": "c"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let pod = json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": spec});
        chain.validate(&request(&kind, Operation::Create, &user, "p", None), &pod, &world())
    };
    write(json!({"volumes": [{"name": "v", "emptyDir": {}}]})).unwrap();
    for spec in [
        json!({"imagePullSecrets": [{"name": "s"}]}),
        json!({"containers": [{"env": [{"name": "e", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}),
        json!({"containers": [{"envFrom": [{"configMapRef": {"name": "c"}}]}]}),
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [{"configMap": {"name": "c"}}]}}]}),
    ] {
        assert!(write(spec.clone()).is_err(), "{spec}");
    }
}
