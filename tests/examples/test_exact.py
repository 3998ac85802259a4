"""exact.py, run as a user would."""

from __future__ import annotations

from .helpers import each_backend, running, without_signals


@each_backend
def test_exact_keeps_what_came_before_the_deadline(backend: str) -> None:
    with running("exact.py", "--backend", backend) as program:
        assert program.address()[0] == "127.0.0.1"
        told = [line.strip() for line in program.end() if not line[0].isdigit()]
    assert told == [
        "4 received; the batch holds 4 of 8: a b c d",
        "timed out: True; the batch holds 5 of 8: e f g h i",
        "3 received; the batch holds 8 of 8: e f g h i j k l",
        "TimeoutError; the batch holds 2 of 8: m n",
        "At the end the batch holds 2 of 8: m n",
    ]


@without_signals
@each_backend
def test_exact_is_stopped_by_ctrl_c(backend: str) -> None:
    with running("exact.py", "--backend", backend, "--deadline", "600") as program:
        program.line_with("2. Too few")
        assert program.stop()[-1].startswith("At the end the batch holds ")
