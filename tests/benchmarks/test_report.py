"""Statistics, JSON, tables and pages: what becomes of figures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich", reason="the benchmarks need the group 'bench'")

from benchmarks import __main__ as main
from benchmarks import report, summary
from benchmarks.result import (
    Context,
    Figures,
    Goal,
    Result,
    Row,
    Table,
    per_loop,
    read_json,
    write_json,
)
from benchmarks.spec import UnavailableError
from benchmarks.stats import Summary, best, ratio, summarize

MACHINE: dict[str, Any] = {
    "name": "desk",
    "processor": "a processor",
    "cores": 2,
    "memory": 2**33,
    "system": "a system",
    "python": "CPython 3",
    "compiler": "a compiler",
    "compiled": True,
    "versions": {"anyio": "4", "trio": None},
}


def only(value: float) -> Summary:
    return Summary(value, value, value)


def table(*rows: tuple[str, str, Any, float], better: Any = "lower") -> Table:
    return Table(
        "t",
        "A table",
        "ns",
        better,
        ["ns"],
        [Row(f"{n}-{loop}", n, loop, kind, {"ns": only(v)}) for n, loop, kind, v in rows],
    )


def test_summary_is_the_median_and_the_quartiles() -> None:
    assert summarize([4.0, 1.0, None, 3.0, 2.0, 5.0]) == Summary(3.0, 2.0, 4.0)
    assert summarize([7.0]) == only(7.0)
    assert summarize([None]) is None
    assert summarize(None) is None
    assert Summary(100.0, 90.0, 120.0).percent == 15.0


def test_ratio_is_within_a_round() -> None:
    assert ratio([2.0, 30.0, None, 5.0], [1.0, 10.0, 1.0, None]) == Summary(2.5, 2.25, 2.75)
    assert ratio([1.0], None) is None
    assert ratio([1.0], [0.0]) is None


def test_best_is_of_each_round() -> None:
    assert best([[1.0, 5.0, None], [2.0, 4.0, None]], lowest=True) == [1.0, 4.0, None]
    assert best([[1.0, 5.0], [None, 4.0]], lowest=False) == [1.0, 5.0]
    assert best([], lowest=True) == []


def test_figures() -> None:
    figures = Figures()
    for value in (2.0, 4.0):
        figures.add(value, "ours", 64)
    for value in (1.0, 4.0):
        figures.add(value, "peer", 64)
    assert figures.get("nobody") is None
    assert figures.summary("ours", 64) == Summary(3.0, 2.5, 3.5)
    assert figures.ratio(("ours", 64), ("peer", 64)) == Summary(1.5, 1.25, 1.75)
    assert figures.ratio(("ours", 64), ("nobody", 64)) is None


@pytest.mark.parametrize(
    ("measured", "at_most", "met"),
    [(0.59, True, True), (0.6, True, True), (0.61, True, False), (0.6, False, True)],
)
def test_a_goal_is_met_up_to_its_bound(measured: float, at_most: bool, met: bool) -> None:
    assert Goal("a", "b", "trio", 0.6, only(measured), at_most).met is met


def test_a_goal_that_was_not_measured_is_neither() -> None:
    goal = Goal("a", "b", "trio", 0.6, None)
    assert goal.met is None
    assert report.verdict(goal) == "not measured"


def test_verdict_says_by_how_much() -> None:
    measured = Summary(0.66, 0.6534, 0.6666)
    assert report.verdict(Goal("a", "b", "trio", 0.6, measured)) == "0.66 ±1%, missed by 10%"
    assert report.verdict(Goal("a", "b", "trio", 0.6, only(0.6006))) == "0.60, missed by 0.1%"
    assert report.verdict(Goal("a", "b", "trio", 0.7, measured)) == "0.66 ±1%, met"


def test_goals_of_loops_stand_side_by_side() -> None:
    measured = {"asyncio": only(1.0), "uvloop": None, "trio": only(3.0)}
    goals = per_loop("what", "to", 2.0, lambda loop: measured[loop])
    goals.append(Goal("one", "other", "", 2.0, only(1.5)))
    assert report.goals_grid(goals).rows == [
        ["what", "to", "at most 2", "1.00, met", "not measured", "3.00, missed by 50%"],
        ["one", "other", "at most 2", "1.50, met", "", ""],
    ]


def test_goals_of_loops_may_have_bounds_of_their_own() -> None:
    goals = [Goal("a", "b", "asyncio", 0.6, only(0.5)), Goal("a", "b", "trio", 1.3, only(1.4))]
    assert report.goals_grid(goals).rows == [
        ["a", "b", "at most 0.6 / 1.3", "0.50, met", "", "1.40, missed by 8%"]
    ]


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    written = Result(
        "name",
        "A title",
        ["a note"],
        [table(("ours", "trio", "ours", 1234.0)), table(("C", "", "floor", 2.0), better="")],
        [Goal("what", "to", "trio", 1.5, only(1.0)), Goal("w", "t", "uvloop", 2, None, False)],
        {"a reason": ["somebody, uvloop"]},
        True,
        MACHINE,
    )
    write_json(written, tmp_path / "name.json")
    assert read_json(tmp_path / "name.json") == written
    assert report.read_results(tmp_path, ["nothing", "name"]) == [written]


def test_numbers_have_three_digits_and_separators() -> None:
    assert [report.number(n) for n in (1234567.8, 99.94, 1.0)] == ["1,234,568", "99.9", "1.00"]
    assert report.spread(Summary(1000.0, 980.0, 1040.0)) == "1,000 ±3%"
    assert report.spread(None) == ""


def test_one_column_has_the_loops_side_by_side() -> None:
    grid = report.grid(
        table(
            ("C", "", "floor", 1.0),
            ("ours", "asyncio", "ours", 2.0),
            ("ours", "trio", "ours", 3.0),
        )
    )
    assert grid.title == "A table, ns, lower is better"
    assert list(grid.header) == ["", "asyncio", "uvloop", "Trio"]
    assert grid.rows == [
        ["C", "1.00", "1.00", "1.00"],
        ["ours", "2.00", "", "3.00"],
    ]


def test_several_columns_have_a_row_for_each_loop() -> None:
    wide = Table("t", "A table", "", "", ["a", "b"], [])
    wide.rows.append(Row("k", "ours", "trio", "ours", {"b": only(5.0)}))
    grid = report.grid(wide)
    assert (grid.title, grid.rows) == ("A table", [["ours", "Trio", "", "5.00"]])
    assert report.markdown(grid).splitlines()[-1] == "| ours | Trio | | 5.00 |"


def test_says_where_a_peer_is_better() -> None:
    results = [
        Result(
            "r",
            "R",
            tables=[
                table(
                    ("C", "", "floor", 1.0),
                    ("ours", "asyncio", "ours", 10.0),
                    ("plain", "asyncio", "plain", 20.0),
                    ("peer", "asyncio", "peer", 9.0),
                    ("ours", "uvloop", "ours", 10.0),
                    ("peer", "uvloop", "peer", 9.9),  # level
                    ("peer", "trio", "peer", 1.0),  # with nothing to compare
                ),
                table(
                    ("ours", "trio", "ours", 10.0), ("peer", "trio", "peer", 20.0), better="higher"
                ),
                table(("ours", "trio", "ours", 10.0), ("peer", "trio", "peer", 20.0)),
                table(("ours", "", "ours", 10.0), ("peer", "", "peer", 2.0)),
            ],
        )
    ]
    assert report.better_elsewhere(results).rows == [
        ["A table", "peer 9.00, ours 10.0", "", ""],
        ["A table", "", "", "peer 20.0, ours 10.0"],
        ["A table", "peer 2.00, ours 10.0", "", ""],  # no loop has a part in it
    ]


def test_who_loses_packets_is_not_better() -> None:
    lossy = Table("t", "A table", "", "lower", ["CPU, %", "lost, %"])
    for name, kind, cpu, lost in (("ours", "ours", 50.0, 0.0), ("peer", "peer", 20.0, 40.0)):
        cells = {"CPU, %": only(cpu), "lost, %": only(lost)}
        lossy.rows.append(Row(name, name, "trio", kind, cells))  # type: ignore[arg-type]
    assert report.better_elsewhere([Result("r", "R", tables=[lossy])]).rows == []


def test_fills_between_markers() -> None:
    page = (
        "a\n<!-- benchmarks: one -->\nold\n<!-- /benchmarks -->\nb\n"
        "<!-- benchmarks: two -->\n<!-- /benchmarks -->\n"
    )
    filled = report.fill(page, {"one": "new\ntext"})
    assert filled == (
        "a\n<!-- benchmarks: one -->\nnew\ntext\n<!-- /benchmarks -->\nb\n"
        "<!-- benchmarks: two -->\n*Not measured yet.*\n<!-- /benchmarks -->\n"
    )
    assert report.fill(filled, {"one": "new\ntext"}) == filled


def test_names_the_machine() -> None:
    first, second = (Result(name, name, machine=MACHINE) for name in ("a", "b"))
    sentence = (
        "desk: a processor, 2 cores, 8 GiB; a system; CPython 3 (a compiler); anyio 4; "
        "anyio-mmsg with its compiled module."
    )
    assert report.machines([first, second]) == sentence
    second.machine = {**MACHINE, "name": "other", "compiled": None}
    assert report.machines([first, second]).split("\n\n") == [
        f"a: {sentence}",
        "b: other: a processor, 2 cores, 8 GiB; a system; CPython 3 (a compiler); anyio 4; "
        "anyio-mmsg a version without a compiled module.",
    ]


def test_says_what_was_left_out() -> None:
    results = [
        Result("a", "A", left_out={"no trio": ["one", "two"]}),
        Result("b", "B", left_out={"no trio": ["two", "three"]}),
    ]
    assert report.left_out(results) == "Not measured:\n\n- no trio: one; two; three"
    assert report.left_out([]) == "Nothing was left out."


def test_says_which_goals_held_on_another_machine() -> None:
    here = Result("a", "A", machine=MACHINE)
    there = Result("a", "A", machine={**MACHINE, "name": "other"})
    here.goals = per_loop("what", "to", 2.0, lambda _: only(1.0))
    there.goals = per_loop("what", "to", 2.0, lambda loop: only(3.0) if loop == "trio" else None)
    assert report.held([here], []) == "These figures are of one machine."
    lines = report.held([here], [there]).splitlines()
    assert "| what | to | at most 2 | 3 of 3 | 0 of 3 |" in lines
    assert lines[-1].startswith("There: other: a processor")


def test_what_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(context: Context) -> Result:
        raise RuntimeError("a child has ended")

    def unavailable(context: Context) -> Result:
        raise UnavailableError("it needs a thing")

    def works(context: Context) -> Result:
        return Result("memory", "Memory", tables=[table(("ours", "trio", "ours", 1.0))])

    for name, run in (("receive", fails), ("dns", unavailable), ("memory", works)):
        monkeypatch.setitem(main.BENCHMARKS, name, run)
    names = ["receive", "dns", "memory"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *names, "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="failed: receive"):
        main.main()
    printed = capsys.readouterr().out
    assert "receive failed: a child has ended" in printed
    assert "dns can't run here: it needs a thing" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["memory.json"]


def low_rates(**percent: float) -> Result:
    rows = [
        Row(
            f"echo-{key.replace('_', '-')}",
            key,
            key.rpartition("_")[2],
            "ours",
            {"CPU, %": only(cpu)},
        )
        for key, cpu in percent.items()
    ]
    table = Table("lowrate-10000", "Low rates", "", "lower", ["CPU, %", "p50, us"], rows)
    return Result("lowrate", "Low rates", [], [table], [], {}, False, MACHINE)


def test_the_summary_has_what_was_measured() -> None:
    result = low_rates(stream_asyncio=20, stream_trio=11, naive_trio=10, protocol_asyncio=16)
    assert summary.grid([result]).rows == [
        ["CPU at 10,000 a second, `PacketReceiver`", "six-line recvfrom loop", "", "", "1.10"],
        ["CPU at 10,000 a second, `PacketReceiver`", "`DatagramProtocol`", "1.25", "", ""],
    ]
    line = summary.now_and_then([result])
    assert line.startswith("- *A packet now and then")
    assert "1.10 (Trio) times the CPU of the usual" in line
    assert "1.25 (asyncio) times that of an" in line
    assert "fresh" not in line
    assert max(map(len, line.splitlines())) <= 118


def test_the_summary_has_the_allocator_of_a_fresh_process() -> None:
    result = low_rates(
        stream_asyncio=20, naive_asyncio=40, protocol_asyncio=16, protocol_fresh_asyncio=32
    )
    assert summary.grid([result]).rows[2] == [
        "CPU at 10,000 a second, `PacketReceiver`",
        "`DatagramProtocol`, fresh process",
        "0.62",
        "",
        "",
    ]
    assert "takes 0.62 times its CPU." in " ".join(summary.now_and_then([result]).split())


def test_the_summary_of_rates_is_of_costs() -> None:
    rows = [
        Row(f"echo-{who}-uvloop", who, "uvloop", "ours", {"packets/s": only(rate)})
        for who, rate in (("ours", 200.0), ("naive", 100.0))
    ]
    table = Table("echo-512", "Echo", "", "higher", ["packets/s"], rows)
    result = Result("echo", "Echo", [], [table], [], {}, False, MACHINE)
    assert summary.grid([result]).rows == [
        ["an echo server under load", "six-line recvfrom loop", "", "0.50", ""]
    ]


def test_a_summary_of_nothing() -> None:
    assert summary.grid([]).rows == []
    assert summary.now_and_then([]) == report.PLACEHOLDER


def test_what_is_compared_is_measured() -> None:
    """By the names of tables and rows, in the results that there are."""
    results = report.read_results(main.ROOT / "benchmarks" / "results", list(main.BENCHMARKS))
    tables = [table for result in results for table in result.tables]
    for comparison in summary.COMPARISONS:
        assert summary.ratio(comparison, "asyncio", tables), comparison
