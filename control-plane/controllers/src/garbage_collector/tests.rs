use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::ApiResource;

use super::discovery::Resource;
use super::graph::{Action, FOREGROUND, Graph, Node, ORPHAN, Owner, Uid, Verdict};

fn resource() -> Arc<Resource> {
    let api = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
    Arc::new(Resource { api, namespaced: true })
}

fn meta(name: &str, owners: &[&str]) -> ObjectMeta {
    let owner = |owner: &&str| OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: (*owner).to_owned(),
        uid: (*owner).to_owned(),
        block_owner_deletion: Some(true),
        controller: None,
    };
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("n".to_owned()),
        uid: Some(name.to_owned()),
        owner_references: Some(owners.iter().map(owner).collect()),
        ..ObjectMeta::default()
    }
}

fn deleting(mut meta: ObjectMeta, finalizer: &str) -> ObjectMeta {
    meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
    meta.finalizers = Some(vec![finalizer.to_owned()]);
    meta
}

fn observe(graph: &mut Graph, meta: &ObjectMeta) -> Vec<Uid> {
    let (uid, node) = Node::new(&resource(), meta).expect("a uid");
    graph.observe(&uid, node)
}

fn keys(names: &[&str]) -> Vec<Uid> {
    names.iter().map(|name| Uid::from(*name)).collect()
}

#[test]
fn an_owner_that_goes_brings_its_dependents_up_and_they_are_deleted_when_it_is_known_absent() {
    let mut graph = Graph::default();
    observe(&mut graph, &meta("owner", &[]));
    observe(&mut graph, &meta("child", &["owner"]));
    assert_eq!(graph.decide("child"), Action::Judge(vec![Owner::Solid]));
    assert_eq!(graph.remove("owner"), keys(&["child"]));
    assert_eq!(graph.decide("child"), Action::Judge(vec![Owner::Unknown]));
    assert_eq!(graph.decide_by_owners("child", &[Owner::Unknown]), Verdict::Keep);
    assert_eq!(graph.decide_by_owners("child", &[Owner::Absent]), Verdict::Delete);
}

#[test]
fn with_one_owner_left_only_the_references_to_the_others_go() {
    let graph = Graph::default();
    let owners = [Owner::Absent, Owner::Solid, Owner::Waiting];
    assert_eq!(graph.decide_by_owners("child", &owners), Verdict::DropReferences(vec![0, 2]));
    assert_eq!(graph.decide_by_owners("child", &[Owner::Solid]), Verdict::Keep);
}

#[test]
fn an_owner_in_the_foreground_waits_until_its_last_blocking_dependent_is_gone() {
    let mut graph = Graph::default();
    observe(&mut graph, &meta("owner", &[]));
    observe(&mut graph, &meta("child", &["owner"]));
    let mut looked_at = observe(&mut graph, &deleting(meta("owner", &[]), FOREGROUND));
    looked_at.sort_unstable();
    assert_eq!(looked_at, keys(&["child", "owner"]));
    assert_eq!(graph.decide("owner"), Action::Keep);
    assert_eq!(graph.decide("child"), Action::Judge(vec![Owner::Waiting]));
    assert_eq!(graph.decide_by_owners("child", &[Owner::Waiting]), Verdict::Delete);
    assert_eq!(graph.remove("child"), keys(&["owner"]));
    assert_eq!(graph.decide("owner"), Action::FinishForeground);
}

#[test]
fn a_dependent_with_dependents_goes_in_the_foreground_and_a_circle_is_opened() {
    let mut graph = Graph::default();
    observe(&mut graph, &deleting(meta("a", &["c"]), FOREGROUND));
    observe(&mut graph, &meta("b", &["a"]));
    observe(&mut graph, &meta("c", &["b"]));
    assert_eq!(graph.decide_by_owners("b", &[Owner::Waiting]), Verdict::DeleteForeground { unblock: false });
    assert_eq!(graph.decide_by_owners("c", &[Owner::Waiting]), Verdict::DeleteForeground { unblock: true });
}

#[test]
fn an_orphaning_owner_lets_its_dependents_go_before_it() {
    let mut graph = Graph::default();
    observe(&mut graph, &meta("child", &["owner"]));
    observe(&mut graph, &deleting(meta("owner", &[]), ORPHAN));
    assert_eq!(graph.decide("owner"), Action::Orphan(keys(&["child"])));
    observe(&mut graph, &meta("child", &[]));
    assert_eq!(graph.decide("owner"), Action::Orphan(Vec::new()));
}

#[test]
fn an_owner_of_another_namespace_is_no_owner() {
    let mut graph = Graph::default();
    observe(&mut graph, &meta("owner", &[]));
    observe(&mut graph, &ObjectMeta { namespace: Some("other".to_owned()), ..meta("child", &["owner"]) });
    assert_eq!(graph.decide("child"), Action::Judge(vec![Owner::Unknown]));
}

#[test]
fn a_state_that_was_seen_brings_nothing_up() {
    let mut graph = Graph::default();
    assert_eq!(observe(&mut graph, &meta("child", &["owner"])), keys(&["child"]));
    assert_eq!(observe(&mut graph, &meta("child", &["owner"])), keys(&[]));
}
