use super::*;
use crate::node::machine::HugePages;
use crate::node::pressure::Thresholds;

const GIB: u64 = 1 << 30;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("time")
}

fn config() -> NodeConfig {
    let mut config = NodeConfig::new("n1", "/var/lib/kubelet".into());
    config.eviction = Thresholds::parse("memory.available<1Gi,nodefs.available<10%").expect("thresholds");
    config
}

fn seen() -> Observation {
    let machine = Machine { cpus: 4, memory_bytes: 8 * GIB, storage_bytes: 100 * GIB, ..Machine::default() };
    Observation { addresses: vec!["10.0.0.1".parse().expect("address")], machine, ..Observation::default() }
}

fn fresh(config: &NodeConfig, seen: &Observation) -> NodeStatus {
    node_status(config, &NodeStatus::default(), seen, at(1000))
}

fn amount(list: &Option<BTreeMap<String, ApiQuantity>>, name: &str) -> String {
    list.as_ref().and_then(|list| list.get(name)).map(|quantity| quantity.0.clone()).unwrap_or_default()
}

fn condition<'a>(status: &'a NodeStatus, kind: &str) -> &'a NodeCondition {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind).expect("condition")
}

#[test]
fn capacity_is_the_machines() {
    let status = fresh(&config(), &seen());
    assert_eq!(amount(&status.capacity, "cpu"), "4");
    assert_eq!(amount(&status.capacity, "memory"), "8Gi");
    assert_eq!(amount(&status.capacity, "ephemeral-storage"), "100Gi");
    assert_eq!(amount(&status.capacity, "pods"), "110");
}

#[test]
fn allocatable_leaves_out_what_is_reserved_and_what_eviction_keeps_free() {
    let mut config = config();
    config.reserved.insert("cpu".to_owned(), Quantity::from_milli(500));
    config.reserved.insert("memory".to_owned(), Quantity::from_bytes(1 << 30));
    let status = fresh(&config, &seen());
    assert_eq!(amount(&status.allocatable, "cpu"), "3500m");
    assert_eq!(amount(&status.allocatable, "memory"), "6Gi");
    assert_eq!(amount(&status.allocatable, "ephemeral-storage"), "90Gi");
}

#[test]
fn huge_pages_are_a_resource_of_their_own_and_are_taken_off_memory() {
    let mut seen = seen();
    seen.machine.huge_pages = vec![HugePages { page_bytes: 2 << 20, pages: 512 }];
    let status = fresh(&config(), &seen);
    assert_eq!(amount(&status.capacity, "hugepages-2Mi"), "1Gi");
    assert_eq!(amount(&status.allocatable, "hugepages-2Mi"), "1Gi");
    assert_eq!(amount(&status.allocatable, "memory"), "6Gi");
}

#[test]
fn pods_per_core_lowers_the_number_of_pods() {
    let mut config = config();
    config.pods_per_core = 10;
    assert_eq!(amount(&fresh(&config, &seen()).capacity, "pods"), "40");
}

#[test]
fn a_node_that_can_run_pods_is_ready() {
    let status = fresh(&config(), &seen());
    let ready = condition(&status, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("True", Some("KubeletReady")));
    assert_eq!(status.conditions.iter().flatten().next_back().map(|last| last.type_.as_str()), Some("Ready"));
}

#[test]
fn a_node_without_network_says_why_it_is_not_ready() {
    let mut seen = seen();
    seen.readiness.network = Some("cni config uninitialized".to_owned());
    let status = fresh(&config(), &seen);
    let ready = condition(&status, "Ready");
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("KubeletNotReady")));
    assert_eq!(ready.message.as_deref(), Some("container runtime network not ready: cni config uninitialized"));
}

#[test]
fn a_condition_keeps_its_transition_time_until_it_turns() {
    let before = fresh(&config(), &seen());
    let same = node_status(&config(), &before, &seen(), at(1010));
    let ready = condition(&same, "Ready");
    assert_eq!(ready.last_transition_time, Some(Time(at(1000))));
    assert_eq!(ready.last_heartbeat_time, Some(Time(at(1010))));
    let mut broken = seen();
    broken.readiness.runtime = Some("container runtime is down".to_owned());
    let turned = node_status(&config(), &same, &broken, at(1020));
    assert_eq!(condition(&turned, "Ready").last_transition_time, Some(Time(at(1020))));
    assert_eq!(transitions(&same, &turned), ["NodeNotReady"]);
}

#[test]
fn only_heartbeats_are_no_change() {
    let before = fresh(&config(), &seen());
    assert!(!changed(&before, &node_status(&config(), &before, &seen(), at(1010))));
    let mut pressed = seen();
    pressed.pressure.disk = true;
    assert!(changed(&before, &node_status(&config(), &before, &pressed, at(1010))));
}

#[test]
fn what_others_reported_stays() {
    let mut old = fresh(&config(), &seen());
    let network = NodeCondition {
        type_: "NetworkUnavailable".to_owned(),
        status: "False".to_owned(),
        ..NodeCondition::default()
    };
    old.conditions.get_or_insert_default().push(network);
    old.capacity.get_or_insert_default().insert("example.com/widgets".to_owned(), ApiQuantity("3".to_owned()));
    let new = node_status(&config(), &old, &seen(), at(1010));
    assert_eq!(condition(&new, "NetworkUnavailable").status, "False");
    assert_eq!(amount(&new.allocatable, "example.com/widgets"), "3");
}

#[test]
fn the_patch_carries_what_differs_and_nothing_else() {
    let old = fresh(&config(), &seen());
    let mut other = seen();
    other.addresses = vec!["10.0.0.2".parse().expect("address")];
    let patch = status_patch(&old, &node_status(&config(), &old, &other, at(1000)));
    let status = patch["status"].as_object().expect("status");
    assert_eq!(status.keys().collect::<Vec<_>>(), ["addresses"]);
    assert_eq!(status["addresses"][0], json!({"type": "InternalIP", "address": "10.0.0.2"}));
    assert_eq!(status["addresses"][2], json!({"$patch": "replace"}));
}

#[test]
fn a_size_of_huge_pages_that_is_gone_is_taken_out_of_the_api() {
    let mut before = seen();
    before.machine.huge_pages = vec![HugePages { page_bytes: 2 << 20, pages: 0 }];
    let old = fresh(&config(), &before);
    let patch = status_patch(&old, &node_status(&config(), &old, &seen(), at(1000)));
    assert_eq!(patch["status"]["capacity"], json!({"hugepages-2Mi": null}));
}

#[test]
fn the_largest_images_are_listed_with_at_most_five_names() {
    let image = |size_bytes, count: u32| NodeImage {
        names: (0..count).map(|n| format!("i{size_bytes}:{n}")).collect(),
        size_bytes,
    };
    let mut config = config();
    config.max_images = Some(2);
    let seen = Observation { images: Some(vec![image(1, 1), image(3, 9), image(2, 1)]), ..seen() };
    let images = fresh(&config, &seen).images.expect("images");
    assert_eq!(images.iter().map(|image| image.size_bytes).collect::<Vec<_>>(), [Some(3), Some(2)]);
    assert_eq!(images[0].names.as_ref().map(Vec::len), Some(5));
}
