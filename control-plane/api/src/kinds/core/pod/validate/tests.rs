//! Tables of mutations of the smallest valid pod and what is said of each. The messages are upstream's.

mod statuses;
mod updates;

use serde_json::json;

use super::super::testing::{messages, mutated, pod, pod_with, pod_with_container};
use super::*;

type Table<'a> = Vec<(Value, Vec<&'a str>)>;

fn expect(table: Table<'_>, pod_of: fn(Value) -> Value) {
    for (mutation, expected) in table {
        let pod = pod_of(mutation.clone());
        assert_eq!(messages(&validate_create(&pod)), expected, "{mutation}");
    }
}

#[test]
fn the_smallest_pod_is_valid() {
    assert_eq!(messages(&validate_create(&pod())), [""; 0]);
}

#[test]
fn a_pod_without_defaults_is_told_of_each() {
    let bare = json!({"spec": {"containers": [{"name": "a", "image": "b"}]}});
    assert_eq!(
        messages(&validate_create(&bare)),
        [
            "spec.terminationGracePeriodSeconds: Required value",
            "spec.containers[0].terminationMessagePolicy: Required value",
            "spec.containers[0].imagePullPolicy: Required value",
            "spec.restartPolicy: Required value",
            "spec.dnsPolicy: Required value",
        ]
    );
}

#[test]
fn containers_are_told_what_is_wrong() {
    expect(
        vec![
            (json!({"name": ""}), vec!["spec.containers[0].name: Required value"]),
            (json!({"image": ""}), vec!["spec.containers[0].image: Required value"]),
            (
                json!({"image": " nginx"}),
                vec![
                    "spec.containers[0].image: Invalid value: \" nginx\": must not have leading or trailing whitespace",
                ],
            ),
            (
                json!({"imagePullPolicy": "Sometimes"}),
                vec![
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                json!({"terminationMessagePolicy": "Shout"}),
                vec![
                    "spec.containers[0].terminationMessagePolicy: Unsupported value: \"Shout\": supported values: \"File\", \"FallbackToLogsOnError\"",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 0}, {"containerPort": 70000, "name": "a"}, {"containerPort": 1, "name": "a"}]}),
                vec![
                    "spec.containers[0].ports[0].containerPort: Required value",
                    "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
                    "spec.containers[0].ports[2].name: Duplicate value: \"a\"",
                ],
            ),
            (
                json!({"ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 80}]}),
                vec!["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//80\""],
            ),
            (
                json!({"ports": [{"containerPort": 1, "protocol": "ICMP"}]}),
                vec![
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                json!({"resizePolicy": [{"resourceName": "gpu", "restartPolicy": "NotRequired"}]}),
                vec![
                    "spec.containers[0].resizePolicy: Unsupported value: \"gpu\": supported values: \"cpu\", \"memory\"",
                ],
            ),
            (
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
                vec![
                    "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
                ],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn container_names_are_unique_over_all_lists() {
    let container = |name: &str| json!({"name": name, "image": "a:1"});
    expect(
        vec![
            (json!({"containers": []}), vec!["spec.containers: Required value"]),
            (
                json!({"containers": [container("a"), container("a")]}),
                vec!["spec.containers[1].name: Duplicate value: \"a\""],
            ),
            (
                json!({"initContainers": [container("main")]}),
                vec!["spec.initContainers[0].name: Duplicate value: \"main\""],
            ),
            (
                json!({"initContainers": [mutated(&container("i"), &json!({"livenessProbe": {"exec": {"command": ["a"]}}}))]}),
                vec![
                    "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                json!({"ephemeralContainers": [mutated(&container("main"), &json!({"ports": [{"containerPort": 1}]}))]}),
                vec![
                    "spec.ephemeralContainers[0].name: Duplicate value: \"main\"",
                    "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
                    "spec.ephemeralContainers: Forbidden: cannot be set on create",
                ],
            ),
        ],
        pod_with,
    );
}

#[test]
fn the_environment_is_told_what_is_wrong() {
    let from = |source: Value| json!({"env": [{"name": "A", "valueFrom": source}]});
    expect(
        vec![
            (json!({"env": [{"name": ""}]}), vec!["spec.containers[0].env[0].name: Required value"]),
            (
                json!({"env": [{"name": "A=B"}]}),
                vec![
                    "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable ASCII characters other than '='",
                ],
            ),
            (
                from(json!({})),
                vec![
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "metadata.labels"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"metadata.labels\": supported values: \"metadata.name\", \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
                ],
            ),
            (
                from(json!({"fieldRef": {"fieldPath": "spec.color"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.color\": error converting fieldPath: field label not supported: spec.color",
                ],
            ),
            (from(json!({"fieldRef": {"fieldPath": "metadata.labels['a.b/c']"}})), vec![]),
            (
                from(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
                vec![
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
                ],
            ),
            (
                from(json!({"secretKeyRef": {"name": "s"}})),
                vec!["spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value"],
            ),
            (
                json!({"env": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
                vec![
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                ],
            ),
            (
                json!({"envFrom": [{"prefix": "A"}]}),
                vec![
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                json!({"envFrom": [{"configMapRef": {}}]}),
                vec!["spec.containers[0].envFrom[0].configMapRef.name: Required value"],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn probes_and_hooks_are_told_what_is_wrong() {
    expect(
        vec![
            (
                json!({"livenessProbe": {}}),
                vec!["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
            ),
            (
                json!({"livenessProbe": {"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}}}),
                vec!["spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type"],
            ),
            (
                json!({"startupProbe": {"exec": {}, "successThreshold": 2}}),
                vec![
                    "spec.containers[0].startupProbe.exec.command: Required value",
                    "spec.containers[0].startupProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                json!({"readinessProbe": {"httpGet": {"port": "-"}, "terminationGracePeriodSeconds": 1}}),
                vec![
                    "spec.containers[0].readinessProbe.httpGet.port: Invalid value: \"-\": must contain at least one letter (a-z)",
                    "spec.containers[0].readinessProbe.httpGet.port: Invalid value: \"-\": must not begin or end with a hyphen",
                    "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
                ],
            ),
            (
                json!({"readinessProbe": {"grpc": {"port": 0}, "periodSeconds": -1}}),
                vec![
                    "spec.containers[0].readinessProbe.grpc.port: Invalid value: 0: must be between 1 and 65535, inclusive",
                    "spec.containers[0].readinessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                ],
            ),
            (
                json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
                vec![
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn volumes_are_told_what_is_wrong() {
    let volumes = |source: Value| json!({"volumes": [mutated(&json!({"name": "v"}), &source)]});
    expect(
        vec![
            (
                volumes(json!({"name": "V"})),
                vec![
                    "spec.volumes[0].name: Invalid value: \"V\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (json!({"volumes": [{"name": "v"}, {"name": "v"}]}), vec!["spec.volumes[1].name: Duplicate value: \"v\""]),
            (
                volumes(json!({"emptyDir": {}, "hostPath": {"path": "/"}})),
                vec!["spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type"],
            ),
            (volumes(json!({"hostPath": {"path": ""}})), vec!["spec.volumes[0].hostPath.path: Required value"]),
            (
                volumes(json!({"hostPath": {"path": "/a/../b", "type": "Door"}})),
                vec![
                    "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
                    "spec.volumes[0].hostPath.type: Unsupported value: \"Door\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
                ],
            ),
            (volumes(json!({"secret": {}})), vec!["spec.volumes[0].secret.secretName: Required value"]),
            (
                volumes(json!({"configMap": {"name": "c", "defaultMode": 512, "items": [{"key": "k", "path": "/p"}]}})),
                vec![
                    "spec.volumes[0].configMap.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                    "spec.volumes[0].configMap.items[0].path: Invalid value: \"/p\": must be a relative path",
                ],
            ),
            (
                volumes(json!({"emptyDir": {"sizeLimit": "-1"}})),
                vec![
                    "spec.volumes[0].emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
                ],
            ),
            (
                volumes(json!({"persistentVolumeClaim": {}})),
                vec!["spec.volumes[0].persistentVolumeClaim.claimName: Required value"],
            ),
            (
                volumes(json!({"nfs": {"server": "s", "path": "a"}})),
                vec!["spec.volumes[0].nfs.path: Invalid value: \"a\": must be an absolute path"],
            ),
            (
                volumes(
                    json!({"iscsi": {"targetPortal": "1.1.1.1", "iqn": "iqn.2001-04.com.example:disk", "lun": 300}}),
                ),
                vec!["spec.volumes[0].iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive"],
            ),
            (
                volumes(json!({"iscsi": {"targetPortal": "1.1.1.1", "iqn": "abc.2001"}})),
                vec![
                    "spec.volumes[0].iscsi.iqn: Invalid value: \"abc.2001\": must be valid format starting with iqn, eui, or naa",
                ],
            ),
            (volumes(json!({"csi": {}})), vec!["spec.volumes[0].csi.driver: Required value"]),
            (
                volumes(json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}})),
                vec![
                    "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required",
                    "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
                ],
            ),
            (volumes(json!({"image": {}})), vec!["spec.volumes[0].image.reference: Required value"]),
            (
                volumes(json!({"downwardAPI": {"items": [{"path": "p"}]}})),
                vec!["spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required"],
            ),
            (
                volumes(json!({"projected": {"sources": [
                    {"secret": {"name": "a", "items": [{"key": "k", "path": "p"}]}},
                    {"configMap": {"name": "b", "items": [{"key": "k", "path": "p"}]}}]}})),
                vec!["spec.volumes[0].projected: Invalid value: \"b\": conflicting duplicate paths"],
            ),
            (
                volumes(
                    json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}),
                ),
                vec![
                    "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
                    "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
                ],
            ),
        ],
        pod_with,
    );
}

#[test]
fn mounts_are_told_what_is_wrong() {
    fn with_volume(container: Value) -> Value {
        let mut pod = pod_with_container(container);
        pod["spec"]["volumes"] = json!([{"name": "v", "emptyDir": {}}]);
        pod
    }
    let mount = |change: Value| json!({"volumeMounts": [mutated(&json!({"name": "v", "mountPath": "/v"}), &change)]});
    expect(
        vec![
            (mount(json!({})), vec![]),
            (mount(json!({"name": "w"})), vec!["spec.containers[0].volumeMounts[0].name: Not found: \"w\""]),
            (mount(json!({"mountPath": ""})), vec!["spec.containers[0].volumeMounts[0].mountPath: Required value"]),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v"}]}),
                vec!["spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique"],
            ),
            (
                mount(json!({"subPath": "../a"})),
                vec!["spec.containers[0].volumeMounts.subPath: Invalid value: \"../a\": must not contain '..'"],
            ),
            (
                mount(json!({"subPath": "a", "subPathExpr": "b"})),
                vec![
                    "spec.containers[0].volumeMounts[0].subPathExpr: Invalid value: \"b\": subPathExpr and subPath are mutually exclusive",
                ],
            ),
            (
                mount(json!({"mountPropagation": "Bidirectional"})),
                vec![
                    "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
                ],
            ),
            (
                mount(json!({"recursiveReadOnly": "Enabled"})),
                vec![
                    "spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
                ],
            ),
            (
                json!({"volumeDevices": [{"name": "v", "devicePath": "/dev/a"}]}),
                vec![
                    "spec.containers[0].volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode",
                ],
            ),
        ],
        with_volume,
    );
}

#[test]
fn the_spec_is_told_what_is_wrong() {
    expect(
        vec![
            (
                json!({"restartPolicy": "Maybe"}),
                vec![
                    "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
                ],
            ),
            (
                json!({"dnsPolicy": "Cluster"}),
                vec![
                    "spec.dnsPolicy: Unsupported value: \"Cluster\": supported values: \"ClusterFirstWithHostNet\", \"ClusterFirst\", \"Default\", \"None\"",
                ],
            ),
            (
                json!({"dnsPolicy": "None"}),
                vec!["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
            ),
            (
                json!({"dnsConfig": {"nameservers": ["a"]}}),
                vec![
                    "spec.dnsConfig.nameservers[0]: Invalid value: \"a\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"activeDeadlineSeconds": 0}),
                vec!["spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"],
            ),
            (
                json!({"hostAliases": [{"ip": "1.2.3"}]}),
                vec![
                    "spec.hostAliases[0].ip: Invalid value: \"1.2.3\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                ],
            ),
            (
                json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
                vec!["spec.schedulingGates[1]: Duplicate value: \"a\""],
            ),
            (
                json!({"schedulingGates": [{"name": "a"}], "nodeName": "n"}),
                vec!["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"],
            ),
            (
                json!({"preemptionPolicy": "Always"}),
                vec![
                    "spec.preemptionPolicy: Unsupported value: \"Always\": supported values: \"PreemptLowerPriority\", \"Never\"",
                ],
            ),
            (
                json!({"os": {"name": "plan9"}}),
                vec!["spec.os: Unsupported value: \"plan9\": supported values: \"linux\", \"windows\""],
            ),
            (
                json!({"os": {"name": "windows"}, "hostPID": true}),
                vec!["spec.hostPID: Forbidden: cannot be set for a windows pod"],
            ),
            (
                json!({"hostUsers": false, "hostNetwork": true, "hostPID": true}),
                vec![
                    "spec.hostNetwork: Forbidden: when `hostUsers` is false",
                    "spec.HostPID: Forbidden: when `hostUsers` is false",
                ],
            ),
            (
                json!({"shareProcessNamespace": true, "hostPID": true}),
                vec![
                    "spec.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ],
            ),
            (
                json!({"overhead": {"cpu": "-1"}}),
                vec!["spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0"],
            ),
            (
                json!({"resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "a", "image": "b:1", "resources": {"requests": {"cpu": "2"}}}]}),
                vec![
                    "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
                ],
            ),
            (
                json!({"resourceClaims": [{"name": "c"}]}),
                vec![
                    "spec.resourceClaims[0]: Invalid value: {\"name\":\"c\"}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
                ],
            ),
            (
                json!({"hostnameOverride": "a", "hostNetwork": true}),
                vec!["spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true"],
            ),
        ],
        pod_with,
    );
}

#[test]
fn scheduling_is_told_what_is_wrong() {
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let preferred = "preferredDuringSchedulingIgnoredDuringExecution";
    expect(
        vec![
            (
                json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": []}}}}),
                vec![
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                json!({"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Gt", "values": []}],
                     "matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]}}}}),
                vec![
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'",
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key",
                ],
            ),
            (
                json!({"affinity": {"podAffinity": {preferred: [{"weight": 101, "podAffinityTerm": {"topologyKey": "zone"}}]}}}),
                vec![
                    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                json!({"affinity": {"podAntiAffinity": {required: [{"topologyKey": "zone", "matchLabelKeys": ["a"]}]}}}),
                vec![
                    "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
                ],
            ),
            (
                json!({"tolerations": [{"operator": "Equal"}]}),
                vec![
                    "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule", "tolerationSeconds": 1}]}),
                vec![
                    "spec.tolerations[0].effect: Invalid value: \"NoSchedule\": effect must be 'NoExecute' when `tolerationSeconds` is set",
                ],
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Near", "effect": "Never"}]}),
                vec![
                    "spec.tolerations[0].operator: Unsupported value: \"Near\": supported values: \"Equal\", \"Exists\"",
                    "spec.tolerations[0].effect: Unsupported value: \"Never\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
                ],
            ),
            (
                json!({"topologySpreadConstraints": [
                    {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Wait", "minDomains": 1}]}),
                vec![
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
                    "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"Wait\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                    "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not Wait",
                ],
            ),
            (
                json!({"topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"},
                    {"maxSkew": 2, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
                vec![
                    "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{z, DoNotSchedule}\"",
                ],
            ),
            (
                json!({"topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"],
                     "labelSelector": {"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}]}),
                vec![
                    "spec.topologySpreadConstraints[0][0]: Invalid value: \"a\": exists in both matchLabelKeys and labelSelector",
                ],
            ),
        ],
        pod_with,
    );
}

#[test]
fn security_contexts_are_told_what_is_wrong() {
    let context = |context: Value| json!({ "securityContext": context });
    expect(
        vec![
            (
                context(json!({"runAsUser": -1, "fsGroup": -1})),
                vec![
                    "spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                    "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                ],
            ),
            (
                context(json!({"seccompProfile": {"type": "Localhost"}})),
                vec![
                    "spec.securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
            (
                context(json!({"appArmorProfile": {"type": "Strict"}})),
                vec![
                    "spec.securityContext.appArmorProfile.type: Unsupported value: \"Strict\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
                ],
            ),
            (
                context(
                    json!({"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}, {"name": "A", "value": ""}]}),
                ),
                vec![
                    "spec.securityContext.sysctls[1].name: Invalid value: \"A\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
                ],
            ),
            (
                context(json!({"fsGroupChangePolicy": "Never"})),
                vec![
                    "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"Never\": supported values: \"Always\", \"OnRootMismatch\"",
                ],
            ),
        ],
        pod_with,
    );
    expect(
        vec![
            (
                context(json!({"privileged": true, "allowPrivilegeEscalation": false})),
                vec![
                    "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
                ],
            ),
            (
                context(json!({"procMount": "Unmasked"})),
                vec![
                    "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
                ],
            ),
            (
                context(json!({"windowsOptions": {"runAsUserName": "a\\b\\c"}})),
                vec![
                    "spec.containers[0].securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash",
                ],
            ),
        ],
        pod_with_container,
    );
}

#[test]
fn annotations_of_pods_are_told_what_is_wrong() {
    fn annotated(annotations: Value) -> Value {
        mutated(&pod(), &json!({"metadata": {"annotations": annotations}}))
    }
    expect(
        vec![
            (
                json!({"controller.kubernetes.io/pod-deletion-cost": "+10"}),
                vec![
                    "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+10\": must be a 32bit integer",
                ],
            ),
            (
                json!({"kubernetes.io/config.mirror": "x"}),
                vec![
                    "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
                ],
            ),
            (
                json!({"container.apparmor.security.beta.kubernetes.io/main": "strict"}),
                vec![
                    "metadata.annotations[container.apparmor.security.beta.kubernetes.io/main]: Invalid value: \"strict\": invalid AppArmor profile name: \"strict\"",
                ],
            ),
            (
                json!({"seccomp.security.alpha.kubernetes.io/pod": "strict"}),
                vec![
                    "metadata.annotations.seccomp.security.alpha.kubernetes.io/pod: Invalid value: \"strict\": must be a valid seccomp profile",
                ],
            ),
        ],
        annotated,
    );
}

#[test]
fn a_template_is_checked_at_its_own_path() {
    let mut template = json!({"metadata": {"labels": {"a": "-"}}, "spec": {"containers": []}});
    crate::kinds::core::pod::default_pod_template(&mut template);
    let errors = messages(&validate_pod_template(&template, &Path::new("spec").child("template")));
    assert!(errors[0].starts_with("spec.template.labels: Invalid value: \"-\": a valid label must be an empty string"));
    assert_eq!(errors[1], "spec.template.spec.containers: Required value");
}

#[test]
fn host_ports_must_match_in_a_pod_that_shares_the_network() {
    let mut shared = pod_with(json!({"hostNetwork": true}));
    shared["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80, "protocol": "TCP"}]);
    assert_eq!(
        messages(&validate_create(&shared)),
        [
            "spec.containers[0].ports[0].hostPort: Invalid value: 0: must match `containerPort` when `hostNetwork` is true"
        ]
    );
    assert_eq!(messages(&validate_pod_template(&shared, &Path::new("template"))), [""; 0]);
}
