//! iptables rules in the shape that kube-proxy writes (`pkg/proxy/iptables`, its table `nat`): Services are tried one after the other
//! in KUBE-SERVICES; each has a chain that chooses an endpoint by chance, and each endpoint one that translates.

use std::fmt::{self, Write as _};

use skep_benches::services::{ENDPOINTS, POD_NETWORK, PORT, TARGET_PORT, cluster_ip, endpoint};

/// All rules for a number of Services, as `iptables-restore` reads them.
pub(crate) fn rules(services: u32) -> Result<String, fmt::Error> {
    let mut text = String::from("*nat\n");
    for chain in ["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ"] {
        writeln!(text, ":{chain} - [0:0]")?;
    }
    for service in 0..services {
        writeln!(text, ":{} - [0:0]", service_chain(service))?;
        for slot in 0..ENDPOINTS {
            writeln!(text, ":{} - [0:0]", endpoint_chain(service, slot))?;
        }
    }
    text.push_str(
        r#"-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x00004000/0x00004000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x00004000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x00004000
"#,
    );
    for service in 0..services {
        add_service(&mut text, service)?;
    }
    text.push_str(
        r#"-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
COMMIT
"#,
    );
    Ok(text)
}

fn add_service(text: &mut String, service: u32) -> fmt::Result {
    let (name, chain) = (format!("default/service-{service}:main"), service_chain(service));
    let addressed =
        format!(r#"-m comment --comment "{name} cluster IP" -m tcp -p tcp -d {} --dport {PORT}"#, cluster_ip(service));
    writeln!(text, "-A KUBE-SERVICES {addressed} -j {chain}")?;
    writeln!(text, "-A {chain} {addressed} ! -s {POD_NETWORK} -j KUBE-MARK-MASQ")?;
    for slot in 0..ENDPOINTS {
        let (to, address) = (endpoint_chain(service, slot), endpoint(service, slot));
        let left = ENDPOINTS - slot;
        let chance = if left > 1 {
            format!(" -m statistic --mode random --probability {:.10}", 1.0 / f64::from(left))
        } else {
            String::new()
        };
        writeln!(text, r#"-A {chain} -m comment --comment "{name} -> {address}:{TARGET_PORT}"{chance} -j {to}"#)?;
        writeln!(text, "-A {to} -m comment --comment {name} -s {address} -j KUBE-MARK-MASQ")?;
        writeln!(
            text,
            "-A {to} -m comment --comment {name} -m tcp -p tcp -j DNAT --to-destination {address}:{TARGET_PORT}"
        )?;
    }
    Ok(())
}

/// kube-proxy's names end in 16 characters of a hash.
fn service_chain(service: u32) -> String {
    format!("KUBE-SVC-{:016X}", spread(u64::from(service) + 1))
}

fn endpoint_chain(service: u32, slot: u32) -> String {
    format!("KUBE-SEP-{:016X}", spread((u64::from(service) + 1) << 8 | u64::from(slot)))
}

/// Different numbers for different ones: an odd factor can be undone.
fn spread(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_its_address_and_ends_at_one_of_its_endpoints() {
        let text = rules(2).expect("text");
        let (chain, last) = (service_chain(1), endpoint_chain(1, 2));
        let found: Vec<&str> = text.lines().filter(|line| line.contains(&format!("-j {chain}"))).collect();
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("-A KUBE-SERVICES") && found[0].contains("-d 10.96.0.2 --dport 80"), "{found:?}");
        let chances: Vec<&str> = text.lines().filter_map(|line| line.split("--probability ").nth(1)).take(2).collect();
        assert!(chances[0].starts_with("0.3333333333 ") && chances[1].starts_with("0.5000000000 "), "{chances:?}");
        assert!(text.contains(&format!("-A {last} -m comment --comment default/service-1:main -m tcp -p tcp -j DNAT --to-destination 10.192.0.6:8080")));
    }

    #[test]
    fn every_chain_is_declared_and_used() {
        let text = rules(3).expect("text");
        let declared = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next());
        for chain in declared {
            assert!(text.contains(&format!("-j {chain}\n")), "{chain}");
        }
    }
}
