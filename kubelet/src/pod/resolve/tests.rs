use super::*;
use serde_json::json;

use crate::runtime::spec::{BindMount, Propagation};

/// Everything that a context borrows.
struct World {
    pod: Pod,
    image: ImageInfo,
    ids: UserIds,
    pod_ips: Vec<IpAddr>,
    node: NodeContext,
    config_maps: BTreeMap<String, Arc<ConfigMap>>,
    secrets: BTreeMap<String, Arc<Secret>>,
    services: Vec<Arc<SlimService>>,
    volumes: BTreeMap<String, MountedVolume>,
    namespaces: PodNamespaces,
}

impl World {
    fn new(spec: Value) -> Self {
        let metadata = json!({"name": "p", "namespace": "n", "uid": "u"});
        let volume = |read_only: bool, path: &str| MountedVolume { path: path.into(), read_only, no_exec: false };
        let config: ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        let secret: Secret = serde_json::from_value(json!({"data": {"k": "czNjcmV0"}})).unwrap();
        let service = json!({"metadata": {"name": "db", "namespace": "n"},
            "spec": {"clusterIP": "10.0.0.5", "ports": [{"port": 80}]}});
        Self {
            pod: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
            image: ImageInfo {
                entrypoint: vec!["/entry".to_owned()],
                cmd: vec!["serve".to_owned()],
                env: vec!["PATH=/opt".to_owned(), "FROM=image".to_owned()],
                working_dir: "/srv".to_owned(),
                user: String::new(),
            },
            ids: UserIds { uid: 1, gid: 2, groups: vec![] },
            pod_ips: vec!["10.1.0.7".parse().unwrap()],
            node: NodeContext { hostname: "node-1".to_owned(), memory_capacity: 1 << 32, ..NodeContext::default() },
            config_maps: BTreeMap::from([("cm".to_owned(), Arc::new(config))]),
            secrets: BTreeMap::from([("s".to_owned(), Arc::new(secret))]),
            services: vec![Arc::new(serde_json::from_value(service).unwrap())],
            volumes: BTreeMap::from([
                ("v".to_owned(), volume(false, "/vol/v")),
                ("ro".to_owned(), volume(true, "/vol/ro")),
            ]),
            namespaces: PodNamespaces::default(),
        }
    }

    /// Of a pod with one container.
    fn of(container: Value) -> Self {
        let mut container = container;
        container["name"] = json!("c");
        Self::new(json!({"containers": [container]}))
    }

    fn context(&self) -> Context<'_> {
        Context {
            pod: &self.pod,
            container: &self.pod.spec.as_ref().unwrap().containers[0],
            attempt: 3,
            image: &self.image,
            ids: &self.ids,
            pod_ips: &self.pod_ips,
            node: &self.node,
            config_maps: &self.config_maps,
            secrets: &self.secrets,
            services: &self.services,
            volumes: &self.volumes,
            pod_dir: Path::new("/pods/u"),
            namespaces: &self.namespaces,
            shm: Some(Path::new("/run/shm")),
            cgroup: Path::new("/kubepods/podu/c"),
            seccomp: None,
        }
    }

    fn spec(&self) -> Result<ContainerSpec, String> {
        container_spec(&self.context(), &Made::default()).map_err(|error| error.to_string())
    }

    fn env(&self) -> Vec<String> {
        let environment = environment::environment(&self.context(), &EnvFiles::new()).unwrap();
        environment.iter().filter(|(name, _)| !name.starts_with("DB_")).map(|(n, v)| format!("{n}={v}")).collect()
    }
}

fn error(container: Value) -> String {
    World::of(container).spec().unwrap_err()
}

#[test]
fn variables_come_from_every_source_in_order() {
    let world = World::of(json!({
        "envFrom": [{"prefix": "C_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}}],
        "env": [
            {"name": "PLAIN", "value": "x"},
            {"name": "C_b", "value": "over"},
            {"name": "REF", "value": "$(PLAIN)-$(C_a)-$(LATER)-$(DB_SERVICE_HOST)-$$(PLAIN)"},
            {"name": "LATER", "value": "y"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "NO", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "a", "optional": true}}},
            {"name": "NO", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none", "optional": true}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "EMPTY"},
        ],
    }));
    assert_eq!(
        world.env(),
        [
            "C_a=1",
            "C_b=over",
            "k=s3cret",
            "PLAIN=x",
            "REF=x-1-$(LATER)-10.0.0.5-$(PLAIN)",
            "LATER=y",
            "KEY=1",
            "SECRET=s3cret",
            "IP=10.1.0.7",
            "EMPTY=",
        ]
    );
}

#[test]
fn the_pods_variables_lie_over_the_images_and_the_runtimes() {
    let world = World::of(json!({"env": [{"name": "FROM", "value": "pod"}], "tty": true}));
    let env = world.spec().unwrap().env;
    assert_eq!(env[..4], ["PATH=/opt", "HOSTNAME=p", "TERM=xterm", "FROM=pod"]);
    assert!(env.contains(&"DB_SERVICE_HOST=10.0.0.5".to_owned()));
    let mut on_node = World::of(json!({}));
    on_node.pod.spec.as_mut().unwrap().host_network = Some(true);
    assert!(on_node.spec().unwrap().env.contains(&"HOSTNAME=node-1".to_owned()));
}

#[test]
fn references_that_lead_nowhere_are_told_in_upstreams_words() {
    let from = |source: Value| json!({"env": [{"name": "X", "valueFrom": source}]});
    for (container, message) in [
        (json!({"envFrom": [{"configMapRef": {"name": "x"}}]}), "configmap \"x\" not found"),
        (json!({"envFrom": [{"secretRef": {"name": "x"}}]}), "secret \"x\" not found"),
        (from(json!({"configMapKeyRef": {"name": "cm", "key": "z"}})), "couldn't find key z in ConfigMap n/cm"),
        (from(json!({"secretKeyRef": {"name": "s", "key": "z"}})), "couldn't find key z in Secret n/s"),
        (from(json!({"secretKeyRef": {"name": "x", "key": "z"}})), "secret \"x\" not found"),
        (
            json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
            "cannot find volume \"x\" to mount into container \"c\"",
        ),
    ] {
        assert_eq!(error(container.clone()), message, "{container}");
    }
    let optional = World::of(json!({"envFrom": [{"configMapRef": {"name": "x", "optional": true}}]}));
    assert!(optional.spec().is_ok());
}

#[test]
fn command_and_arguments_replace_the_images_parts() {
    for (container, args) in [
        (json!({}), vec!["/entry", "serve"]),
        (json!({"args": ["x"]}), vec!["/entry", "x"]),
        (json!({"command": ["/bin/sh"]}), vec!["/bin/sh"]),
        (
            json!({"command": ["a"], "args": ["$(V)", "$(W)"], "env": [{"name": "V", "value": "1"}]}),
            vec!["a", "1", "$(W)"],
        ),
    ] {
        assert_eq!(World::of(container.clone()).spec().unwrap().args, args, "{container}");
    }
    let mut world = World::of(json!({}));
    world.image = ImageInfo::default();
    assert_eq!(world.spec().unwrap_err(), "no command specified");
}

#[test]
fn the_security_context_becomes_the_processs() {
    let world = World::of(json!({"workingDir": "/w", "securityContext": {
        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "procMount": "Unmasked",
        "capabilities": {"drop": ["ALL"]},
    }}));
    let spec = world.spec().unwrap();
    assert_eq!((spec.cwd.as_path(), spec.user), (Path::new("/w"), (1, 2)));
    assert!(spec.no_new_privileges && spec.read_only_root && spec.unmasked_proc && !spec.privileged);
    assert!(spec.capabilities.is_empty());
    assert_eq!(World::of(json!({})).spec().unwrap().cwd, Path::new("/srv"));
    assert_eq!(spec.shm.as_deref(), Some(Path::new("/run/shm")));
}

#[test]
fn volumes_and_the_containers_own_files_are_mounted_parents_first() {
    let world = World::of(json!({"volumeMounts": [
        {"name": "v", "mountPath": "/data/deep/er", "mountPropagation": "HostToContainer"},
        {"name": "ro", "mountPath": "/data"},
        {"name": "v", "mountPath": "/etc/hostname", "readOnly": true},
    ]}));
    let mounts = world.spec().unwrap().mounts;
    let shown: Vec<_> = mounts
        .iter()
        .map(|mount| (mount.destination.to_str().unwrap(), mount.source.to_str().unwrap(), mount.read_only))
        .collect();
    assert_eq!(
        shown,
        [
            ("/data", "/vol/ro", true),
            ("/etc/hostname", "/vol/v", true),
            ("/etc/hosts", "/pods/u/etc-hosts", false),
            ("/etc/resolv.conf", "/pods/u/resolv.conf", false),
            ("/dev/termination-log", "/pods/u/containers/c/termination-log-3", false),
            ("/data/deep/er", "/vol/v", false),
        ]
    );
    assert_eq!(mounts[5].propagation, Propagation::FromNode);
}

#[test]
fn a_sub_path_is_named_and_then_mounted() {
    let world = World::of(json!({
        "env": [{"name": "POD", "value": "p1"}],
        "volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": "logs/$(POD)"}],
    }));
    let ctx = world.context();
    let parts = mounts::sub_paths(&ctx, &environment::environment(&ctx, &EnvFiles::new()).unwrap()).unwrap();
    assert_eq!((parts[0].root.as_path(), parts[0].path.as_path()), (Path::new("/vol/v"), Path::new("logs/p1")));
    let sub_paths = BTreeMap::from([(0, PathBuf::from("/pods/u/part"))]);
    let prepared = Made { sub_paths, ..Made::default() };
    let mount = container_spec(&ctx, &prepared).unwrap().mounts.remove(0);
    let wanted = BindMount {
        source: "/pods/u/part".into(),
        destination: "/a".into(),
        read_only: false,
        no_exec: false,
        propagation: Propagation::Private,
    };
    assert_eq!(mount, wanted);
    let sub_path = |path: &str| error(json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPathExpr": path}]}));
    assert_eq!(sub_path("$(NONE)/$(A)"), "missing value for A, NONE");
    assert_eq!(sub_path("/x"), "error SubPath `/x` must not be an absolute path");
    assert_eq!(sub_path("a/../b"), "unable to provision SubPath `a/../b`: must not contain '..'");
}

#[test]
fn what_cannot_be_given_is_refused() {
    for (mount, why) in [
        (json!({"readOnly": true}), "it is not supported by the runtime"),
        (json!({}), "it is not read-only"),
        (
            json!({"readOnly": true, "mountPropagation": "HostToContainer"}),
            "it is not compatible with propagation \"HostToContainer\"",
        ),
    ] {
        let mut mount = mount;
        mount["name"] = json!("v");
        mount["mountPath"] = json!("/a");
        mount["recursiveReadOnly"] = json!("Enabled");
        let refused = error(json!({"volumeMounts": [mount]}));
        assert!(refused.ends_with(&format!("volume \"v\" requested recursive read-only mode, but {why}")), "{refused}");
    }
    let devices = json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]});
    assert_eq!(error(devices), "volumeDevices is not supported by this node");
    for (field, value) in [("hostUsers", false), ("shareProcessNamespace", true)] {
        let world = World::new(json!({"containers": [{"name": "c"}], field: value}));
        assert!(world.spec().unwrap_err().ends_with("is not supported by this node"), "{field}");
    }
    let nul = json!({"env": [{"name": "X", "value": "a\u{0}b"}]});
    assert_eq!(error(nul), "environment variable \"X\" can't be given to a process");
}

#[test]
fn variables_come_from_files_that_were_read() {
    let reference = |key: &str, optional: bool| {
        let source = json!({"volumeName": "v", "path": "env", "key": key, "optional": optional});
        World::of(json!({"env": [{"name": "X", "valueFrom": {"fileKeyRef": source}}]}))
    };
    let spec = |world: &World, text: Result<&str, &str>| {
        let text = text.map(str::to_owned).map_err(str::to_owned);
        let env_files = EnvFiles::from([(("v".to_owned(), "env".to_owned()), text)]);
        let spec = container_spec(&world.context(), &Made { env_files, ..Made::default() });
        spec.map(|spec| spec.env.contains(&"X=1".to_owned())).map_err(|error| error.to_string())
    };
    assert_eq!(spec(&reference("A", false), Ok("A='1'")), Ok(true));
    assert_eq!(spec(&reference("B", true), Ok("A='1'")), Ok(false));
    let missing = spec(&reference("B", false), Ok("A='1'"));
    assert_eq!(missing.unwrap_err(), "environment variable key \"B\" not found in file \"env\"");
    assert_eq!(spec(&reference("A", false), Ok("A=1")).unwrap_err(), "couldn't parse env file");
    assert_eq!(spec(&reference("A", false), Err("why")).unwrap_err(), "why");
}

#[test]
fn an_ephemeral_container_resolves_like_any_other() {
    let debugger =
        json!({"name": "debug", "image": "busybox", "command": ["sh"], "tty": true, "targetContainerName": "c"});
    let container = of_ephemeral(&serde_json::from_value(debugger).unwrap()).unwrap();
    let world = World::of(json!({}));
    let spec = container_spec(&Context { container: &container, ..world.context() }, &Made::default()).unwrap();
    assert_eq!((spec.args, spec.terminal), (vec!["sh".to_owned()], true));
}
