//! Tables of what a Service becomes and what is wrong with it.

use serde_json::{Value, json};

use super::kind;
use crate::kinds::declaration::WriteContext;
use crate::kinds::testing::{NOW, messages, mutated};

const CONTEXT: WriteContext<'_> = WriteContext { now: "", user: "" };

fn base() -> Value {
    let mut service = json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}], "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"},
    });
    kind().strategy.default(&mut service);
    service
}

fn of_type(type_: &str) -> Value {
    let mut service = mutated(&base(), &json!({"spec": {"type": type_}}));
    kind().strategy.default(&mut service);
    service
}

#[test]
fn a_service_is_a_cluster_ip_without_affinity() {
    let mut service = json!({"spec": {"ports": [{"port": 80}, {"port": 81, "protocol": "UDP", "targetPort": "dns"}]}});
    kind().strategy.default(&mut service);
    assert_eq!(
        service["spec"],
        json!({
            "type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [
                {"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 81, "protocol": "UDP", "targetPort": "dns"},
            ],
        })
    );
}

#[test]
fn a_load_balancer_gets_node_ports_and_a_policy() {
    let mut service = json!({
        "spec": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "a.b"}]}},
    });
    kind().strategy.default(&mut service);
    let spec = &service["spec"];
    assert_eq!(spec["externalTrafficPolicy"], "Cluster");
    assert_eq!(spec["allocateLoadBalancerNodePorts"], true);
    assert_eq!(spec["sessionAffinityConfig"], json!({"clientIP": {"timeoutSeconds": 10800}}));
    assert_eq!(
        service["status"]["loadBalancer"]["ingress"],
        json!([{"ip": "1.2.3.4", "ipMode": "VIP"}, {"hostname": "a.b"}])
    );
}

#[test]
fn a_new_service_has_no_status_and_matching_addresses() {
    let mut service =
        json!({"spec": {"clusterIP": "None"}, "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}});
    kind().strategy.prepare_create(&mut service, &CONTEXT);
    assert_eq!(service, json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}, "status": {"loadBalancer": {}}}));
}

#[test]
fn specs_are_checked() {
    for (mutation, expected) in [
        (json!({}), vec![]),
        (json!({"ports": []}), vec!["spec.ports: Required value"]),
        (json!({"ports": [], "clusterIP": "None", "clusterIPs": ["None"]}), vec![]),
        (
            json!({"type": "Magic", "internalTrafficPolicy": null}),
            vec![
                "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            ],
        ),
        (
            json!({"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}, {"name": "b", "port": 80, "targetPort": "x_y", "protocol": "TCP"}]}),
            vec![
                "spec.ports[0].name: Required value",
                "spec.ports[1].targetPort: Invalid value: \"x_y\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            ],
        ),
        (
            json!({"ports": [{"port": 70000, "targetPort": 80, "protocol": "ICMP", "nodePort": 30000}]}),
            vec![
                "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
                "spec.ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            ],
        ),
        (
            json!({"clusterIPs": ["10.96.0.8"]}),
            vec!["spec.clusterIPs: Invalid value: [\"10.96.0.8\"]: first value must match `clusterIP`"],
        ),
        (
            json!({"clusterIPs": ["10.96.0.7", "10.96.0.8"]}),
            vec![
                "spec.clusterIPs: Invalid value: [\"10.96.0.7\",\"10.96.0.8\"]: may specify no more than one IP for each IP family",
            ],
        ),
        (
            json!({"ipFamilies": ["IPv6"]}),
            vec![
                "spec.clusterIPs[0]: Invalid value: \"10.96.0.7\": expected an IPv6 value as indicated by `ipFamilies[0]`",
            ],
        ),
        (
            json!({"externalTrafficPolicy": "Local"}),
            vec![
                "spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services",
            ],
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            vec![
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400",
            ],
        ),
        (
            json!({"loadBalancerClass": "a/b", "loadBalancerSourceRanges": ["10.0.0.0/8"]}),
            vec![
                "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
                "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
            ],
        ),
        (
            json!({"externalIPs": ["127.0.0.1"], "externalTrafficPolicy": "Cluster"}),
            vec![
                "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ],
        ),
    ] {
        let service = mutated(&base(), &json!({"spec": mutation}));
        assert_eq!(messages(&kind().strategy.validate_create(&service)), expected, "{mutation}");
    }
}

#[test]
fn an_external_name_has_a_name_and_no_address() {
    let service = json!({"spec": {"type": "ExternalName", "sessionAffinity": "None", "clusterIPs": ["10.0.0.1"], "externalName": "."}});
    assert_eq!(
        messages(&kind().strategy.validate_create(&service)),
        ["spec.clusterIPs: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value",]
    );
}

#[test]
fn the_address_stays() {
    for (mutation, expected) in [
        (json!({"selector": {"app": "b"}}), vec![]),
        (
            json!({"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"]}),
            vec!["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
        ),
        (
            json!({"ipFamilies": ["IPv6"], "clusterIP": "None", "clusterIPs": ["None"]}),
            vec!["spec.clusterIPs[0]: Invalid value: [\"None\"]: may not change once set"],
        ),
    ] {
        let service = mutated(&base(), &json!({"spec": mutation}));
        assert_eq!(messages(&kind().strategy.validate_update(&service, &base())), expected, "{mutation}");
    }
}

#[test]
fn an_update_that_leaves_out_what_was_given_keeps_it() {
    let old = mutated(
        &of_type("NodePort"),
        &json!({"spec": {"ports": [{"name": "a", "port": 80, "protocol": "TCP", "nodePort": 30001}]}}),
    );
    let mut service = mutated(
        &old,
        &json!({"spec": {"clusterIP": null, "clusterIPs": null, "ports": [{"name": "a", "port": 81, "protocol": "TCP"}]}}),
    );
    kind().strategy.prepare_update(&mut service, &old, &CONTEXT);
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.7");
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
}

#[test]
fn a_change_of_type_gives_back_what_the_new_type_lacks() {
    let old = mutated(
        &of_type("LoadBalancer"),
        &json!({
            "spec": {"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30001}], "loadBalancerClass": "a/b"},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ipMode": "VIP"}]}},
        }),
    );
    let mut service = mutated(&old, &json!({"spec": {"type": "ClusterIP"}}));
    kind().strategy.prepare_update(&mut service, &old, &CONTEXT);
    assert_eq!(service["spec"], base()["spec"]);
    assert_eq!(service["status"], json!({"loadBalancer": {}}));
    let mut service = mutated(&old, &json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}));
    kind().strategy.prepare_update(&mut service, &old, &CONTEXT);
    assert!(service["spec"]["clusterIPs"].is_null());
    assert!(kind().strategy.validate_update(&service, &old).is_empty());
}

#[test]
fn a_client_of_before_dual_stack_makes_a_service_headless() {
    let old = mutated(&base(), &json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}}));
    let mut service = mutated(&old, &json!({"spec": {"clusterIP": "10.96.0.9"}}));
    kind().strategy.prepare_update(&mut service, &old, &CONTEXT);
    assert_eq!(service["spec"]["clusterIPs"], json!(["10.96.0.9"]));
}

#[test]
fn only_load_balancers_have_ingress() {
    let with_ingress = |service: &Value, ingress: Value| {
        mutated(service, &json!({"status": {"loadBalancer": {"ingress": [ingress]}}}))
    };
    let old = of_type("LoadBalancer");
    for (service, expected) in [
        (with_ingress(&old, json!({"ip": "1.2.3.4", "ipMode": "VIP"})), vec![]),
        (
            with_ingress(&base(), json!({"ip": "1.2.3.4", "ipMode": "VIP"})),
            vec!["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"],
        ),
        (
            with_ingress(&old, json!({"ip": "1.2.3.4"})),
            vec!["status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set"],
        ),
        (
            with_ingress(&old, json!({"hostname": "1.2.3.4"})),
            vec![
                "status.loadBalancer.ingress[0].hostname: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
            ],
        ),
    ] {
        assert_eq!(messages(&kind().strategy.validate_status_update(&service, &old)), expected);
    }
}

#[test]
fn a_row_shows_where_a_service_is_reached() {
    assert_eq!(
        kind().strategy.row(&base(), NOW),
        ["web", "ClusterIP", "10.96.0.7", "<none>", "80/TCP", "<unknown>", "app=web"]
    );
    let balancer = of_type("LoadBalancer");
    assert_eq!(kind().strategy.row(&balancer, NOW)[3], "<pending>");
    let ready = mutated(
        &balancer,
        &json!({
            "spec": {"ports": [{"port": 80, "nodePort": 30001, "protocol": "TCP"}], "externalIPs": ["5.5.5.5"]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "b.c"}, {"ip": "1.2.3.4"}]}},
        }),
    );
    let cells = kind().strategy.row(&ready, NOW);
    assert_eq!((&cells[3], &cells[4]), (&json!("1.2.3.4,b.c,5.5.5.5"), &json!("80:30001/TCP")));
    assert_eq!(kind().strategy.selectable(&base()), ["10.96.0.7", "ClusterIP"]);
}

#[test]
fn fields_without_effect_are_warned_of() {
    let service = mutated(&base(), &json!({"spec": {"externalName": "a.b", "trafficDistribution": "PreferClose"}}));
    assert_eq!(
        kind().strategy.warnings(&service, None),
        [
            "spec.externalName is ignored when spec.type is not \"ExternalName\"",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ]
    );
}
