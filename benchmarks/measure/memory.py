"""Bytes of a slot beyond its payload, and the resident memory over three million packets."""

from __future__ import annotations

from benchmarks.candidates.receivers import OURS, PLAINS, ours_key, plain_key
from benchmarks.result import Context, Result, Table
from benchmarks.stats import summarize

PACKETS = 3_000_000
QUICK_PACKETS = 40_000
FILL = 4_096  # packets queued at a time
POINTS = 20  # at which resident memory is read
CAPACITIES = (64, 1024)
PAYLOAD = 1232
BUFFER = 64 * 2**20
ENGINES = {ours_key(64, "asyncio"): "auto", plain_key(64, "asyncio"): "recvfrom_into"}
"""What is measured, in fresh processes, and the engine of its batches."""


def run(context: Context) -> Result:
    """Measure ours, compiled and plain, on asyncio."""
    children = context.children
    wanted = [spec for spec in OURS + PLAINS if spec.key in ENGINES]
    specs = children.start(wanted, BUFFER)  # to know which are available
    result = Result("memory", "Memory", left_out=children.left_out(wanted))
    packets = QUICK_PACKETS if context.quick else PACKETS
    fresh = {spec.key: children.spawn(spec, anywhere=True) for spec in specs}
    received = dict.fromkeys(fresh, 0)
    points: dict[str, list[int]] = {}
    for key, child in fresh.items():
        child.hear()  # its greeting
        child.ask("buffer", BUFFER)
        points[key] = [child.ask("memory")["rss"]]
    for point in range(POINTS if fresh else 0):
        while min(received.values()) < packets * (point + 1) // POINTS:
            for child in fresh.values():  # at the same time: nothing here depends on a clock
                child.send("drain", FILL, PAYLOAD, PAYLOAD, 1, "read", 1)
            for key, child in fresh.items():
                answer = child.hear()
                received[key] += answer["queued"] - answer["lost"]
                if not answer["queued"]:
                    raise RuntimeError(f"{key} got nothing: {answer}")
        for key, child in fresh.items():
            points[key].append(child.ask("memory")["rss"])
        context.progress(point + 1, POINTS)
    slots = Table(
        "slots",
        "A slot, beyond its payload",
        "bytes",
        "lower",
        [f"batch of {capacity:,}" for capacity in CAPACITIES],
    )
    course = Table(
        "course",
        f"Resident over {packets:,} packets",
        "MiB",
        "lower",
        ["before", "after 5 %", "after all"],
    )
    for spec in specs:
        child, seen = fresh[spec.key], points[spec.key]
        beyond = [
            child.ask("slots", capacity, PAYLOAD, ENGINES[spec.key])["beyond"]
            for capacity in CAPACITIES
        ]
        slots.add(
            spec, {column: summarize([n]) for column, n in zip(slots.columns, beyond, strict=True)}
        )
        # What the process needs to run at all comes with the first packets.
        moments = (seen[0], seen[1], seen[-1])
        course.add(
            spec,
            {
                column: summarize([rss / 2**20])
                for column, rss in zip(course.columns, moments, strict=True)
            },
        )
    result.tables = [slots, course]
    result.notes.append(
        "A slot beyond its payload: what tracemalloc counts for a batch and its engine after all "
        "packets were read, less capacity * slot_size, divided by the capacity."
    )
    return result
