"""Nodes, autoscaling, losses, storage, tracking, cost."""

from __future__ import annotations

from queries import BAD, GOOD, WARN, WINDOW, chart, number, of_sweeps, ray
from shapes import HALF, THIRD, WHOLE, Dashboard, Panel, Query, Row

from pharos.sweep import metrics as m

CLUSTER = Dashboard(
    name="cluster",
    title="Pharos / Cluster",
    says="Nodes, autoscaling, losses, storage, tracking, cost.",
    rows=(
        Row(
            title="Now",
            panels=(
                number("Nodes", "That Ray's autoscaler counts as active", "sum(ray_cluster_active_nodes)"),
                number("Nodes to come", "Asked for and not there yet", "sum(autoscaler_pending_nodes)"),
                number(
                    "Nodes failed lately",
                    "As Ray's autoscaler counts them",
                    "sum(autoscaler_recently_failed_nodes) or vector(0)",
                    limits=((0, GOOD), (1, BAD)),
                ),
                number(
                    "Pools lost",
                    "How often a pool's workers died: spot losses, crashes",
                    of_sweeps(m.POOLS_LOST),
                    limits=((0, GOOD), (1, WARN), (3, BAD)),
                ),
                number(
                    "Tracking backlog",
                    "Events that MLflow has not taken",
                    of_sweeps(m.TRACKING_BACKLOG),
                    limits=((0, GOOD), (100, WARN), (1000, BAD)),
                ),
                number("Node-hours", "Of the nodes that hold workers", of_sweeps(m.NODE_HOURS), decimals=2),
            ),
        ),
        Row(
            title="Nodes",
            panels=(
                chart(
                    "Nodes",
                    "Active, to come, failed lately",
                    Query(expr="sum by (node_type) (ray_cluster_active_nodes)", legend="active {{node_type}}"),
                    Query(expr="sum(autoscaler_pending_nodes)", legend="to come"),
                    Query(expr="sum(autoscaler_recently_failed_nodes) or vector(0)", legend="failed lately"),
                ),
                chart(
                    "Scrape targets that answer",
                    "Each node has one; one that goes leaves the list, one that fails stays in it",
                    Query(expr='sum(up{job="ray"})', legend="answer"),
                    Query(expr='count(up{job="ray"})', legend="listed"),
                ),
                chart(
                    "CPU", "Of each node", Query(expr=ray("ray_node_cpu_utilization"), legend="{{ip}}"), unit="percent"
                ),
                chart(
                    "Memory",
                    "Share of each node's memory in use",
                    Query(expr=f"{ray('ray_node_mem_used')} / {ray('ray_node_mem_total')}", legend="{{ip}}"),
                    unit="percentunit",
                ),
                chart(
                    "Network",
                    "Sent and received",
                    Query(expr=ray("ray_node_network_send_speed"), legend="{{ip}} sent"),
                    Query(expr=ray("ray_node_network_receive_speed"), legend="{{ip}} received"),
                    unit="Bps",
                ),
                Panel(
                    title="GPU memory",
                    says="Of each GPU, as Ray sees it",
                    kind="lines",
                    queries=(
                        Query(
                            expr=f"{ray('ray_node_gram_used', by='ip, GpuIndex')} * 2^20",
                            legend="{{ip}} GPU {{GpuIndex}}",
                        ),
                    ),
                    width=HALF,
                    unit="bytes",
                    needs="a GPU",
                ),
            ),
        ),
        Row(
            title="Coming and going",
            panels=(
                chart(
                    "Pools and workers",
                    "Of open pools, which come and go with the trials that wait; and pools that are asked for",
                    Query(
                        expr=f"count by (sweep) ({of_sweeps(m.WORKERS, by='sweep, pool')})", legend="{{sweep}} pools"
                    ),
                    Query(
                        expr=f"sum by (sweep) ({of_sweeps(m.WORKERS, by='sweep, pool')})", legend="{{sweep}} workers"
                    ),
                    Query(expr=of_sweeps(m.POOLS_ASKED), legend="{{sweep}} asked for"),
                    width=THIRD,
                ),
                chart(
                    "Pools lost",
                    "So far; trials of a lost pool resume from their checkpoints. Nodes that fail again are avoided",
                    Query(expr=of_sweeps(m.POOLS_LOST), legend="{{sweep}}"),
                    Query(expr=of_sweeps(m.NODES_AVOIDED), legend="{{sweep}} nodes avoided"),
                    width=THIRD,
                ),
                chart(
                    "Nodes that were started and stopped",
                    "By Ray's autoscaler, so far",
                    Query(expr="sum(autoscaler_started_nodes_total) or vector(0)", legend="started"),
                    Query(expr="sum(autoscaler_stopped_nodes_total) or vector(0)", legend="stopped"),
                    Query(expr="sum(autoscaler_failed_create_nodes_total) or vector(0)", legend="could not be made"),
                    width=THIRD,
                ),
            ),
        ),
        Row(
            title="Storage and tracking",
            panels=(
                chart(
                    "Disk in use",
                    "Of each node's disk under Ray's directory",
                    Query(expr=ray("ray_node_disk_utilization_percentage"), legend="{{ip}}"),
                    unit="percent",
                    width=THIRD,
                ),
                chart(
                    "Checkpoints",
                    "Seconds that pools spend on them, a second",
                    Query(
                        expr=f"sum by (sweep) (rate({m.SECONDS.exported}"
                        f'{{sweep=~"$sweep", part="checkpoint"}}{WINDOW}))',
                        legend="{{sweep}}",
                    ),
                    unit="percentunit",
                    width=THIRD,
                ),
                chart(
                    "Tracking backlog",
                    "Events that MLflow has not taken; training never waits for it",
                    Query(expr=of_sweeps(m.TRACKING_BACKLOG), legend="{{sweep}}"),
                    width=THIRD,
                ),
                Panel(
                    title="Cost",
                    says="Node-hours times pool.price_per_node_hour, in its currency",
                    kind="lines",
                    queries=(Query(expr=of_sweeps(m.COST), legend="{{sweep}}"),),
                    width=WHOLE,
                    decimals=2,
                    needs="a price",
                ),
            ),
        ),
    ),
)
