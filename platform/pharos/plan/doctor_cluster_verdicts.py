"""What is found between the nodes of a cluster means: clocks, ports, the all-reduce, who is let in. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from pharos.plan.doctor import AllReduce, Check, Cluster, Dashboard, Examination, labels
from pharos.plan.memory import gigabytes

SKEW_S = 1.0
ABSURDLY_SLOW_BYTES_PER_S = 2e6
"""No link of a cluster is that slow unless it is broken or much in use. Anything above is for a person to judge."""
MAX_LISTED = 4
MEGABYTE = 10**6


def cluster_checks(examination: Examination, cluster: Cluster) -> list[Check]:
    """The lines about what lies between nodes."""
    named = labels(examination.nodes)
    return [
        *_clocks(examination, cluster, named),
        *_ports(examination, cluster, named),
        _all_reduce(examination, cluster.all_reduce),
        *_doors(cluster.dashboard),
    ]


def _clocks(examination: Examination, cluster: Cluster, named: Mapping[str, str]) -> list[Check]:
    """Ahead of the head, since that is the clock that everybody shares."""
    head = examination.nodes[0].node_id
    of_head = next((skew for skew in cluster.skews if skew.node_id == head), None)
    others = [skew for skew in cluster.skews if skew.node_id != head]
    if of_head is None or not others:
        return []
    lines, largest_s = [], 0.0
    for skew in others:
        ahead_s = skew.ahead_s - of_head.ahead_s
        known_s = max(0.0, abs(ahead_s) - skew.error_s - of_head.error_s)
        largest_s = max(largest_s, abs(ahead_s))
        if known_s > SKEW_S:
            found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the head's"
            remedy = "run chrony or ntpd there: times in logs and tokens of clouds go by the clock"
            label = named.get(skew.node_id, skew.node_id[:12])
            lines.append(Check(name="clocks", verdict="warning", found=found, remedy=remedy, nodes=(label,)))
    return lines or [Check(name="clocks", verdict="ok", found=f"at most {largest_s * 1000:.0f} ms apart")]


def _ports(examination: Examination, cluster: Cluster, named: Mapping[str, str]) -> list[Check]:
    if not cluster.num_ports:
        return []
    if not cluster.closed:
        found = f"all of {cluster.num_ports} open between nodes: Ray's own, and one of each node chosen at random"
        return [Check(name="ports", verdict="ok", found=found)]
    remedy = (
        "let the nodes reach each other on every port (security group, firewall, network policy): Ray's workers and "
        "the collectives of training choose theirs at random"
    )
    lines = [
        Check(
            name="ports",
            verdict="wrong",
            found=f"{named.get(closed.to_node, closed.to_node)} cannot be reached on {closed.port} ({closed.what}): "
            f"{closed.reason}",
            remedy=remedy,
            nodes=(named.get(closed.from_node, closed.from_node),),
        )
        for closed in cluster.closed[:MAX_LISTED]
    ]
    more = len(cluster.closed) - len(lines)
    if more:
        lines.append(Check(name="ports", verdict="wrong", found=f"{more} more like these", remedy=remedy))
    return lines


def _all_reduce(examination: Examination, measured: AllReduce | None) -> Check:
    name = "all-reduce"
    if measured is None:
        found = "one node" if len(examination.nodes) < 2 else "nobody to sum with"
        return Check(name=name, verdict="not checked", found=found)
    if measured.problem:
        remedy = "see ports above; with several interfaces set GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME for ray start"
        return Check(name=name, verdict="wrong", found=f"{measured.backend}: {measured.problem}", remedy=remedy)
    if measured.needs_interface:
        return Check(
            name=name,
            verdict="wrong",
            found=f"{measured.backend} takes another interface than the one that the nodes know each other by, and "
            "training would fail",
            remedy=f"set NCCL_SOCKET_IFNAME={measured.needs_interface} in the environment of `ray start` on every node",
        )
    link = [node.interface_mbit for node in examination.nodes if node.interface_mbit]
    stated = f"; the slowest interface states {min(link):,} Mbit/s, {min(link) / 8:,.0f} MB/s" if link else ""
    found = (
        f"{measured.backend} over {measured.num_nodes} nodes, {gigabytes(measured.size_bytes)} in "
        f"{measured.seconds:.2g} s: {measured.algorithm_bytes_per_s / MEGABYTE:,.0f} MB/s, "
        f"{measured.bus_bytes_per_s / MEGABYTE:,.0f} MB/s over each link{stated} (1 Gbit/s is 125 MB/s)"
    )
    if measured.bus_bytes_per_s >= ABSURDLY_SLOW_BYTES_PER_S:
        return Check(name=name, verdict="ok", found=found)
    remedy = "something is wrong with the link, or much else uses it: compare with iperf3 between the nodes"
    return Check(name=name, verdict="warning", found=found, remedy=remedy)


def _doors(dashboard: Dashboard | None) -> list[Check]:
    if dashboard is None:
        found = "Ray has no dashboard here, so jobs cannot be submitted, and Ray Train cleans up after pools through it"
        return [Check(name="dashboard", verdict="wrong", found=found, remedy="ray start --include-dashboard=true")]
    if dashboard.status is None:
        found = f"{dashboard.url} does not answer on the head: {dashboard.reason}"
        return [
            Check(name="dashboard", verdict="wrong", found=found, remedy="see dashboard.log in Ray's temp directory")
        ]
    is_open = dashboard.status not in (401, 403)
    token = Check(name="token", verdict="ok", found=f"a request without a token is refused ({dashboard.status})")
    if is_open:
        token = Check(
            name="token",
            verdict="wrong" if dashboard.is_public else "warning",
            found="anybody who reaches Ray's ports can run anything on these machines: no token is asked for",
            remedy="start every node with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN",
        )
    if not dashboard.is_public:
        return [token, Check(name="dashboard", verdict="ok", found=f"{dashboard.url}, on the head's loopback alone")]
    found = f"{dashboard.url} is open to the head's network"
    remedy = "ray start --dashboard-host=127.0.0.1, and reach it by `ssh -L` or a port-forward"
    return [token, Check(name="dashboard", verdict="warning", found=found, remedy=remedy)]
