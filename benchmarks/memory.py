"""Bytes of a slot beyond its payload, and the resident memory over ten million packets."""

from __future__ import annotations

from .receivers import ENGINES, OURS, ours_key
from .report import Bar, Context, Result, identity, name
from .stats import summarize

PACKETS = 10_000_000
QUICK_PACKETS = 40_000
FILL = 4_096  # packets queued at a time
POINTS = 20  # at which resident memory is read
CAPACITIES = (64, 1024)
PAYLOAD = 1232
BUFFER = 64 * 2**20


def run(context: Context) -> Result:
    """Measure ours, in fresh processes: each engine on asyncio."""
    children = context.children
    wanted = [ours_key(engine, 64, "asyncio") for engine in ENGINES]
    specs = [spec for spec in children.available(OURS) if spec.key in wanted]
    result = Result("memory", "Resident memory over the packets", "MiB")
    packets = QUICK_PACKETS if context.quick else PACKETS
    fresh = {spec.key: children.spawn(spec, anywhere=True) for spec in specs}
    points: dict[str, list[tuple[int, int]]] = {}
    received = dict.fromkeys(fresh, 0)
    for key, child in fresh.items():
        child.hear()  # its greeting
        child.ask("buffer", BUFFER)
        points[key] = [(0, child.ask("memory")["rss"])]
    for point in range(POINTS):
        while min(received.values()) < packets * (point + 1) // POINTS:
            for child in fresh.values():  # at the same time: nothing here depends on a clock
                child.send("drain", FILL, PAYLOAD, "read", 1)
            for key, child in fresh.items():
                answer = child.hear()
                received[key] += answer["queued"] - answer["lost"]
                if answer["lost"] or not answer["queued"]:
                    raise RuntimeError(f"{key} lost packets that the kernel had: {answer}")
        for key, child in fresh.items():
            points[key].append((received[key], child.ask("memory")["rss"]))
        context.progress(point + 1, POINTS)
    slots, course = [], []
    for spec in specs:
        child, course_of = fresh[spec.key], points[spec.key]
        beyond = {
            capacity: child.ask("slots", capacity, PAYLOAD)["beyond"] for capacity in CAPACITIES
        }
        # What the process needs to run at all comes with the first packets.
        first, last = course_of[1][1], course_of[-1][1]
        slots.append([spec.label.partition("/")[0], *(f"{beyond[n]:.0f}" for n in CAPACITIES)])
        course.append(
            [
                name(spec),
                f"{received[spec.key]:,}",
                *(f"{rss / 2**20:.1f}" for rss in (course_of[0][1], first, last)),
                f"{(last - first) / 1024:+.0f} KiB",
            ]
        )
        result.rows.append(
            {
                **identity(spec),
                "bytes_a_slot_beyond_the_payload": beyond,
                "packets": received[spec.key],
                "rss": [{"packets": count, "bytes": rss} for count, rss in course_of],
            }
        )
        result.bars[name(spec)] = [
            Bar(f"{count:,} packets", "ours", summarize([rss / 2**20]))
            for count, rss in course_of[:: POINTS // 4]
        ]
    header = ("engine", *(f"{capacity} slots" for capacity in CAPACITIES))
    result.tables.append(("Bytes a slot beyond the payload", header, slots))
    header = ("receiver", "packets", "MiB before", "MiB after 5%", "MiB after all", "growth")
    result.tables.append((result.title, header, course))
    result.notes.append(
        "Bytes a slot: what tracemalloc counts for a batch and its engine, all packets' data and "
        "addresses read, less capacity * slot_size, by slot. Growth is counted from 5% on."
    )
    return result
