"""docs/how-to: logging and metrics."""

from __future__ import annotations

import socket
import urllib.request
from typing import Any

import anyio
import pytest
from anyio import to_thread

from anyio_mmsg import PacketBatchPool, PacketReceiver, open_udp_socket
from anyio_mmsg.testing import ScriptedReceiver

from ..helpers import attempts
from .blocks import (
    as_child,
    as_module,
    executed,
    free_port,
    interrupt,
    python_blocks,
    runs,
)

LOGGING, PROMETHEUS, OTEL, READER = python_blocks("docs/how-to/logging-and-metrics.md")

pytestmark = pytest.mark.anyio
PACKETS = [[b"12"], [b"123"], [b"1234", b"123456"], [b"1"] * 5]


async def receiver() -> PacketReceiver:
    """Return a receiver that has seen 9 packets in 4 batches, one of them cut, and an error."""
    refused = ConnectionRefusedError(111, "refused")
    made = ScriptedReceiver([*PACKETS[:2], refused, *PACKETS[2:]], PacketBatchPool(2, slot_size=4))
    with anyio.fail_after(60):
        async for batch in made:
            with batch:
                pass
    return made


# Logs


@runs(LOGGING)
def test_rates_in_the_log() -> None:
    port = free_port()
    program = LOGGING.replace("9999", port).replace("start, 10, ended", "start, 0.01, ended")
    with as_child(program) as child, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        assert child.stderr is not None
        line = ""
        for _ in attempts():  # until the program has bound its port, and received
            sender.sendto(b"hello", ("127.0.0.1", port))
            line = child.stderr.readline()
            assert " INFO collector: " in line
            if " 0 packets/s" not in line:
                break
        assert " packets/s, " in line
        rest = interrupt(child)
    assert all(" INFO collector: " in line for line in rest.splitlines())
    assert child.returncode == 0


# Metrics


@runs(PROMETHEUS)
async def test_prometheus() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    page = as_module(PROMETHEUS)
    registry = CollectorRegistry()
    registry.register(page["ReceiverCollector"]({"a": await receiver(), "b": await receiver()}))
    lines = generate_latest(registry).decode().splitlines()
    samples = {line for line in lines if not line.startswith("#")}
    assert samples >= {
        f"{name} {value}"
        for who in "ab"
        for name, value in {
            f'udp_packets_total{{receiver="{who}"}}': 9.0,
            f'udp_bytes_total{{receiver="{who}"}}': 18.0,
            f'udp_truncated_total{{receiver="{who}"}}': 1.0,
            f'udp_dropped_total{{receiver="{who}"}}': 0.0,
            f'udp_errors_total{{errno="111",receiver="{who}"}}': 1.0,
            f'udp_batches_lent{{receiver="{who}"}}': 0.0,
            f'udp_batch_packets_bucket{{le="1",receiver="{who}"}}': 2.0,
            f'udp_batch_packets_bucket{{le="3",receiver="{who}"}}': 3.0,
            f'udp_batch_packets_bucket{{le="7",receiver="{who}"}}': 4.0,
            f'udp_batch_packets_bucket{{le="+Inf",receiver="{who}"}}': 4.0,
            f'udp_batch_packets_count{{receiver="{who}"}}': 4.0,
            f'udp_batch_packets_sum{{receiver="{who}"}}': 9.0,
        }.items()
    }
    assert not any("dropped_by_kernel" in sample for sample in samples)  # of a script: unknown


@runs(PROMETHEUS)
async def test_prometheus_scrapes_a_real_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    """By HTTP, in another thread, before the first packet too."""
    import prometheus_client

    started: list[Any] = []

    def start(port: int, host: str, registry: Any = None) -> None:
        started.append(prometheus_client.start_http_server(0, host, registry))

    page = as_module(PROMETHEUS)
    page["REGISTRY"] = registry = prometheus_client.CollectorRegistry()
    page["start_http_server"] = lambda port, host: start(port, host, registry)
    sock = await open_udp_socket("127.0.0.1")
    async with PacketReceiver(sock) as real:
        page["export"](9100, syslog=real)
        ((server, thread),) = started

        def scrape() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}") as answer:
                return str(answer.read(), "utf-8")

        try:
            assert 'udp_packets_total{receiver="syslog"} 0.0' in await to_thread.run_sync(scrape)
            sock.sendto(b"1", sock.getsockname())
            with anyio.fail_after(60):
                with await real.receive():
                    found = await to_thread.run_sync(scrape)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
    assert 'udp_packets_total{receiver="syslog"} 1.0' in found
    assert 'udp_batches_lent{receiver="syslog"} 1.0' in found
    if sock.family == socket.AF_INET and real.statistics().buffer_size is not None:
        assert 'udp_dropped_by_kernel_total{receiver="syslog"} 0.0' in found
        assert 'udp_buffer_size_bytes{receiver="syslog"}' in found


@runs(OTEL)
async def test_opentelemetry() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    as_module(OTEL)["observe"](await receiver(), "syslog", provider.get_meter("test"))
    data: Any = reader.get_metrics_data()
    (resource,) = data.resource_metrics
    (scope,) = resource.scope_metrics
    found = {
        metric.name: (metric.unit, point.value, dict(point.attributes))
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    by = {"receiver": "syslog"}
    assert found == {
        "udp.packets": ("{packet}", 9, by),
        "udp.batches": ("{batch}", 4, by),
        "udp.bytes": ("By", 18, by),
        "udp.truncated": ("{packet}", 1, by),
        "udp.dropped": ("{packet}", 0, by),
    }
    provider.shutdown()


@runs(READER, OTEL)
def test_opentelemetry_prints_them_at_the_end() -> None:
    """In a process of its own, since a provider is set once."""
    program = READER.replace(
        'meter = metrics.get_meter("collector")\n',
        'meter = metrics.get_meter("collector")\n'
        + OTEL.text
        + """
import anyio
from anyio_mmsg.testing import ScriptedReceiver

async def main():
    receiver = ScriptedReceiver([[b"1", b"2"]])
    observe(receiver, "syslog", meter)
    with await receiver.receive():
        pass

anyio.run(main)
""",
    )
    executed.add(OTEL.place)
    with as_child(program) as child:
        out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (0, "")
    assert '"name": "udp.packets"' in out
    assert '"receiver": "syslog"' in out
