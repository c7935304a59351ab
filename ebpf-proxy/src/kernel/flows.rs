//! Which translated flows are over: pure. The kernel's map bounds their number; this keeps what is idle from taking the place of
//! what is used, and frees ports.

use std::collections::HashMap;
use std::time::Duration;

use skep_ebpf_common::{DIRECT, FIN, Flow, FlowKey, REPLY, RST, SEEN, TCP};

/// An open connection: kube-proxy's `conntrack.tcpEstablishedTimeout`.
const ESTABLISHED: Duration = Duration::from_secs(24 * 3600);
/// One that nobody has answered, or that both sides have closed.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// Datagrams with answers, and without: the kernel's own `nf_conntrack_udp_timeout_stream` and `nf_conntrack_udp_timeout`.
const ANSWERED: Duration = Duration::from_secs(120);
const UNANSWERED: Duration = Duration::from_secs(30);

/// The keys of the halves of flows that had no packet for too long, or are closed, at `now_ns`.
#[must_use]
pub fn expired(flows: &[(FlowKey, Flow)], now_ns: u64) -> Vec<FlowKey> {
    let all: HashMap<FlowKey, Flow> = flows.iter().copied().collect();
    let is_over = |(key, flow): &&(FlowKey, Flow)| {
        let other = all.get(&key.other(flow)).filter(|other| other.to == key.tuple.reversed());
        let used = other.map_or(flow.used_ns, |other| other.used_ns.max(flow.used_ns));
        // The clock was read before the map: what was used since is in use.
        u128::from(now_ns.saturating_sub(used)) > patience(key, flow, other).as_nanos()
    };
    flows.iter().filter(is_over).map(|(key, _)| *key).collect()
}

fn patience(key: &FlowKey, flow: &Flow, other: Option<&Flow>) -> Duration {
    let state = |bit: u8| (flow.state & bit != 0, other.is_some_and(|other| other.state & bit != 0));
    let reply = if flow.state & REPLY != 0 { Some(flow) } else { other };
    let answered = flow.kind == DIRECT || reply.is_some_and(|reply| reply.state & SEEN != 0);
    if key.protocol == TCP {
        let (reset, closed) = (state(RST), state(FIN));
        let is_closed = reset.0 || reset.1 || (closed.0 && closed.1);
        if is_closed || !answered { HALF_OPEN } else { ESTABLISHED }
    } else if answered {
        ANSWERED
    } else {
        UNANSWERED
    }
}

#[cfg(test)]
mod tests {
    use skep_ebpf_common::{INGRESS, NODE_PORT_REMOTE, Tuple, UDP};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Both halves, used at second 0, with these states.
    fn flow(protocol: u8, forward: u8, reply: u8) -> [(FlowKey, Flow); 2] {
        let tuple = |source, destination, from: u16, to: u16| Tuple {
            source,
            destination,
            source_port: from.to_be_bytes(),
            destination_port: to.to_be_bytes(),
        };
        let came = tuple([192, 0, 2, 9], [192, 0, 2, 1], 40_000, 30_080);
        let went = tuple([192, 0, 2, 1], [10, 0, 2, 2], 61_000, 8080);
        let key = |tuple| FlowKey { tuple, protocol, hook: INGRESS, padding: [0; 2] };
        let half = |to, state| Flow {
            used_ns: 0,
            backend: 1,
            kind: NODE_PORT_REMOTE,
            state,
            padding: [0; 2],
            to,
            padding_2: 0,
        };
        let (first, second) = (half(went, SEEN | forward), half(came.reversed(), REPLY | reply));
        assert_eq!(key(came).other(&first), key(went.reversed()));
        [(key(came), first), (key(went.reversed()), second)]
    }

    /// After how many seconds it is over.
    fn lasts(flow: &[(FlowKey, Flow)]) -> u64 {
        let over = |seconds: &u64| expired(flow, (*seconds + 1) * SECOND).len() == flow.len();
        let candidates = [30, 60, 120, 24 * 3600];
        let found = candidates.into_iter().find(over).expect("each ends");
        assert!(expired(flow, found * SECOND).is_empty(), "both halves end together");
        found
    }

    #[test]
    fn a_connection_lasts_as_long_as_it_is_open() {
        assert_eq!(lasts(&flow(TCP, 0, 0)), 60, "nobody has answered");
        assert_eq!(lasts(&flow(TCP, 0, SEEN)), 24 * 3600);
        assert_eq!(lasts(&flow(TCP, FIN, SEEN)), 24 * 3600, "one side may still send");
        assert_eq!(lasts(&flow(TCP, FIN, SEEN | FIN)), 60);
        assert_eq!(lasts(&flow(TCP, 0, SEEN | RST)), 60);
    }

    #[test]
    fn datagrams_last_longer_with_answers() {
        assert_eq!(lasts(&flow(UDP, 0, 0)), 30);
        assert_eq!(lasts(&flow(UDP, 0, SEEN)), 120);
    }

    #[test]
    fn a_half_lives_while_the_other_is_used() {
        let mut both = flow(UDP, 0, SEEN);
        both[1].1.used_ns = 1000 * SECOND;
        assert!(expired(&both, 1100 * SECOND).is_empty());
        assert_eq!(expired(&both[..1], 1100 * SECOND).len(), 1);
    }
}
