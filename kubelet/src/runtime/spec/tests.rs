use super::*;

fn spec() -> ContainerSpec {
    ContainerSpec {
        args: vec!["sh".to_owned()],
        env: vec![],
        cwd: PathBuf::from("/"),
        user: (0, 0),
        groups: vec![],
        capabilities: vec!["CAP_KILL".to_owned()],
        no_new_privileges: false,
        read_only_root: false,
        terminal: false,
        oom_score_adj: 0,
        mounts: vec![],
        namespaces: PodNamespaces {
            network: Some("/run/net".into()),
            ipc: Some("/run/ipc".into()),
            uts: Some("/run/uts".into()),
            host_pid: false,
            target_pid: None,
        },
        shm: Some("/run/shm".into()),
        privileged: false,
        unmasked_proc: false,
        seccomp: None,
        cgroup: PathBuf::from("/pod/c"),
        cpu_shares: 2,
        cpu_quota: None,
        memory_bytes: None,
        shim_group: "pod".to_owned(),
    }
}

fn bind(destination: &str, propagation: Propagation) -> BindMount {
    BindMount {
        source: "/volume".into(),
        destination: destination.into(),
        read_only: false,
        no_exec: false,
        propagation,
    }
}

fn machine() -> HostFacts {
    let null = Device { path: "/dev/null".into(), block: false, number: (1, 3), mode: 0o666, owner: (0, 0) };
    HostFacts { cgroup_v2: true, capabilities: vec!["CAP_KILL", "CAP_SYS_ADMIN"], devices: vec![null] }
}

fn mount<'a>(oci: &'a Value, destination: &str) -> Vec<&'a Value> {
    let all = oci["mounts"].as_array().unwrap();
    all.iter().filter(|mount| mount["destination"] == destination).collect()
}

fn has_option(mount: &Value, option: &str) -> bool {
    mount["options"].as_array().unwrap().iter().any(|own| own == option)
}

fn kinds(oci: &Value) -> Vec<&str> {
    oci["linux"]["namespaces"].as_array().unwrap().iter().filter_map(|one| one["type"].as_str()).collect()
}

#[test]
fn a_privileged_container_has_the_machine() {
    let oci = ContainerSpec { privileged: true, ..spec() }.to_oci_on(&machine());
    assert_eq!(oci["process"]["capabilities"]["bounding"], json!(["CAP_KILL", "CAP_SYS_ADMIN"]));
    assert_eq!(oci["linux"]["devices"][0]["path"], "/dev/null");
    assert_eq!(oci["linux"]["resources"]["devices"], json!([{"allow": true, "access": "rwm"}]));
    assert!(oci["linux"]["maskedPaths"].is_null() && oci["linux"]["readonlyPaths"].is_null());
    assert!(has_option(mount(&oci, "/sys")[0], "rw") && has_option(mount(&oci, "/sys/fs/cgroup")[0], "rw"));
    assert!(!kinds(&oci).contains(&"cgroup"));
}

#[test]
fn another_container_sees_neither_devices_nor_what_is_masked() {
    let oci = spec().to_oci_on(&machine());
    assert!(oci["linux"]["devices"].is_null());
    assert!(oci["linux"]["maskedPaths"].as_array().unwrap().contains(&json!("/proc/kcore")));
    assert!(has_option(mount(&oci, "/sys/fs/cgroup")[0], "ro"));
    assert!(kinds(&oci).contains(&"cgroup"));
}

#[test]
fn unmasked_proc_still_masks_sys() {
    let oci = ContainerSpec { unmasked_proc: true, ..spec() }.to_oci();
    assert_eq!(oci["linux"]["maskedPaths"], json!(["/sys/firmware", "/sys/devices/virtual/powercap"]));
    assert_eq!(oci["linux"]["readonlyPaths"], json!([]));
}

#[test]
fn the_nodes_processes_are_no_namespace() {
    let namespaces = PodNamespaces { host_pid: true, ..spec().namespaces };
    assert!(!kinds(&ContainerSpec { namespaces, ..spec() }.to_oci()).contains(&"pid"));
    assert!(kinds(&spec().to_oci()).contains(&"pid"));
}

#[test]
fn shared_memory_is_the_pods_or_the_nodes() {
    assert_eq!(mount(&spec().to_oci(), "/dev/shm")[0]["source"], "/run/shm");
    let node = ContainerSpec { shm: None, namespaces: PodNamespaces::default(), ..spec() };
    assert_eq!(mount(&node.to_oci(), "/dev/shm")[0]["source"], "/dev/shm");
}

#[test]
fn a_volume_takes_the_place_of_a_standard_mount() {
    let oci = ContainerSpec { mounts: vec![bind("/dev/shm", Propagation::Private)], ..spec() }.to_oci();
    let found = mount(&oci, "/dev/shm");
    assert_eq!((found.len(), &found[0]["source"]), (1, &json!("/volume")));
}

#[test]
fn volumes_are_mounted_from_the_root_down() {
    let mounts = ["/data/deep", "/data"].map(|path| bind(path, Propagation::Private)).to_vec();
    let oci = ContainerSpec { mounts, ..spec() }.to_oci();
    let order: Vec<&str> = oci["mounts"].as_array().unwrap().iter().filter_map(|m| m["destination"].as_str()).collect();
    assert!(order.ends_with(&["/data", "/data/deep"]), "{order:?}");
}

#[test]
fn the_root_spreads_as_far_as_its_volumes() {
    let with = |propagation| ContainerSpec { mounts: vec![bind("/a", propagation)], ..spec() }.to_oci();
    assert!(with(Propagation::Private)["linux"]["rootfsPropagation"].is_null());
    assert_eq!(with(Propagation::FromNode)["linux"]["rootfsPropagation"], "rslave");
    assert_eq!(with(Propagation::Both)["linux"]["rootfsPropagation"], "rshared");
}

#[test]
fn a_seccomp_profile_is_handed_on() {
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO"});
    let oci = ContainerSpec { seccomp: Some(profile.clone()), ..spec() }.to_oci();
    assert_eq!(oci["linux"]["seccomp"], profile);
    assert!(spec().to_oci()["linux"]["seccomp"].is_null());
}

#[test]
fn a_container_that_targets_another_joins_its_processes() {
    let namespaces = PodNamespaces { target_pid: Some("/proc/7/ns/pid".into()), ..spec().namespaces };
    let oci = ContainerSpec { namespaces, ..spec() }.to_oci_on(&HostFacts::default());
    let all = oci["linux"]["namespaces"].as_array().expect("namespaces");
    let pid: Vec<_> = all.iter().filter(|own| own["type"] == "pid").collect();
    assert_eq!(pid, [&json!({"type": "pid", "path": "/proc/7/ns/pid"})]);
}
