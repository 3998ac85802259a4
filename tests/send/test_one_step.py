"""`send_mmsg_nowait`, whose usual calls are one step in C.

It passes for a function, and what it uses again is never what somebody else still has.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import inspect
import os
import pickle
import pydoc
import socket
import threading
import typing
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import anyio_mmsg
from anyio_mmsg import PacketBatch, SendResult, UnusableSocketError, send_mmsg_nowait
from anyio_mmsg._send.usual import USUAL
from anyio_mmsg._system.entry import by_one_step
from anyio_mmsg._system.platform import Entry, why_no_batch_calls

from ..helpers import Family, nowhere
from .helpers import fill, received

needs_entry = pytest.mark.skipif(Entry is None, reason="is of the compiled module")


# A function to everybody


def test_its_signature_is_that_of_the_function() -> None:
    signature = inspect.signature(send_mmsg_nowait)
    assert list(signature.parameters)[:3] == ["sock", "packets", "gso"]
    assert signature == inspect.signature(inspect.unwrap(send_mmsg_nowait))
    assert typing.get_type_hints(send_mmsg_nowait)["return"] is SendResult
    assert inspect.getsource(send_mmsg_nowait).count("def send_mmsg_nowait(") == 1


def test_it_has_the_names_and_words_of_the_function() -> None:
    assert send_mmsg_nowait.__name__ == send_mmsg_nowait.__qualname__ == "send_mmsg_nowait"
    assert send_mmsg_nowait.__module__ == "anyio_mmsg"
    assert repr(send_mmsg_nowait).startswith("<function send_mmsg_nowait at ")
    text = pydoc.plain(pydoc.render_doc(send_mmsg_nowait))
    assert "\nsend_mmsg_nowait(" in text  # how the rest is broken and quoted differs by version
    assert "reply_from_destination: " in text
    assert "Send as many packets as the socket's buffer has room for" in text
    assert inspect.isroutine(send_mmsg_nowait)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_by_its_name(protocol: int) -> None:
    assert pickle.loads(pickle.dumps(send_mmsg_nowait, protocol)) is send_mmsg_nowait
    assert anyio_mmsg.send_mmsg_nowait is send_mmsg_nowait


def test_it_is_copied_as_functions_are() -> None:
    assert copy.copy(send_mmsg_nowait) is copy.deepcopy(send_mmsg_nowait) is send_mmsg_nowait


def test_it_is_a_method_in_a_class(inet: Family) -> None:
    class Own(socket.socket):
        send_now = send_mmsg_nowait

    receiver = inet.open()
    with Own(receiver.family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        assert sock.send_now([(b"x", receiver.getsockname())]).sent == 1
        assert received(receiver) == [b"x"]
    assert Own.send_now is send_mmsg_nowait


def test_a_partial_of_it(inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    send = functools.partial(send_mmsg_nowait, sender, gso=True)
    assert send([(b"x", receiver.getsockname())]) == SendResult(1)
    assert received(receiver) == [b"x"]


@needs_entry
def test_an_entry_goes_with_its_last_reference() -> None:
    def function() -> int:
        return 1

    entry: Any = by_one_step(lambda: NotImplemented)(function)
    assert entry() == 1
    assert entry.__wrapped__ is function
    entry.cycle = entry
    gone = weakref.ref(entry)
    del entry
    gc.collect()
    assert gone() is None


@needs_entry
def test_the_function_does_what_the_step_does_not() -> None:
    calls: list[tuple[Any, ...]] = []

    def step(*arguments: Any, **named: Any) -> Any:
        return arguments[0] if arguments else NotImplemented

    def function(*arguments: Any, **named: Any) -> str:
        calls.append((arguments, named))
        return "function"

    entry = by_one_step(step)(function)
    assert entry("step", more=1) == "step"
    assert entry(more=2) == "function"
    assert calls == [((), {"more": 2})]
    with pytest.raises(ZeroDivisionError):
        by_one_step(lambda: 1 / 0)(function)()
    assert len(calls) == 1
    with pytest.raises(TypeError):
        Entry(function)


def test_without_a_step_it_is_the_function() -> None:
    assert by_one_step(None)(nowhere) is nowhere


# What is sent


FORMS: dict[str, Callable[[list[Any]], Any]] = {
    "list": list,
    "tuple": tuple,
    "generator": lambda pairs: (pair for pair in pairs),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "options", [{}, {"gso": True}, {"gso": 1}, {"engine": "auto"}, {"result": None}, {"ecn": None}]
)
def test_each_form_and_option(form: str, options: dict[str, Any], inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    pairs = [(b"%d" % n, receiver.getsockname()) for n in range(5)]
    result = send_mmsg_nowait(sender, FORMS[form](pairs), **options)
    assert result == SendResult(5)
    assert received(receiver) == [data for data, _ in pairs]


@pytest.mark.skipif(bool(why_no_batch_calls()), reason=why_no_batch_calls())
def test_the_step_takes_keywords_with_their_defaults(inet: Family) -> None:
    """A server hands on what it was given, and that is mostly the default."""
    sender, receiver = inet.open(), inet.open()
    pairs = [(b"1", receiver.getsockname())]
    defaults: dict[str, Any] = {
        name: parameter.default
        for name, parameter in inspect.signature(send_mmsg_nowait).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    assert len(defaults) == 6
    assert USUAL.nowait(sender, pairs, **defaults) == SendResult(1)
    for name in defaults:
        if name not in ("gso", "result"):
            assert USUAL.nowait(sender, pairs, **{name: "other"}) is NotImplemented
    assert USUAL.nowait(sender, pairs, other=None) is NotImplemented
    assert received(receiver) == [b"1"]


@pytest.mark.parametrize("form", [list, tuple])
def test_a_wrong_packet_is_named(form: Callable[[list[Any]], Any], inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    result = SendResult(7)
    with pytest.raises(TypeError, match="packet 1: data is a str"):
        send_mmsg_nowait(sender, form([(b"", to), ("text", to)]), result=result)
    assert result == SendResult()
    assert received(receiver) == []


def test_a_name_that_is_made_at_run_time(inet: Family) -> None:
    """Keywords need not be the interned ones of a program's text."""
    sender, receiver = inet.open(), inet.open()
    result = SendResult()
    options: dict[str, Any] = {"".join(["re", "sult"]): result, "".join(["g", "so"]): True}
    assert send_mmsg_nowait(sender, [(b"x", receiver.getsockname())], **options) is result
    assert result.sent == 1
    assert received(receiver) == [b"x"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), {}),
        ((1,), {}),
        ((1, 2, 3), {}),
        ((1,), {"gso": True}),
        ((1, 2), {"other": 1}),
        ((1, 2), {"other": None}),
    ],
)
def test_wrong_calls(arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"send_mmsg_nowait\(\)"):
        send_mmsg_nowait(*arguments, **named)


def test_an_error_of_a_handler_is_not_taken_for_a_packets(inet: Family) -> None:
    """A ValueError that comes while addresses are encoded is raised, and nothing is sent."""

    struck: list[bool] = []

    class Late(str):
        def __hash__(self) -> int:
            if not struck:
                struck.append(True)
                raise ValueError("struck")
            return hash(str(self))

    sender, receiver = inet.open(), inet.open()
    host, port = receiver.getsockname()[:2]
    with pytest.raises(ValueError, match=r"^struck$"):
        send_mmsg_nowait(sender, [(b"", (host, port)), (b"", (Late(host), port))])
    assert received(receiver) == []


def test_a_socket_that_an_address_closes(inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()

    class Closing(str):
        def __hash__(self) -> int:
            sender.close()
            return hash(str(self))

    host, port = receiver.getsockname()[:2]
    with pytest.raises(UnusableSocketError) as caught:
        send_mmsg_nowait(sender, [(b"", (Closing(host), port))])
    assert caught.value.result == SendResult()


# What is used again


def test_results_that_are_kept_stay_as_they_are(inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    bad, _ = nowhere(inet)
    results = []
    for count in range(40):
        results.append(send_mmsg_nowait(sender, [(b"", to)] * count + [(b"", bad)] * (count % 2)))
        send_mmsg_nowait(sender, [(b"", to)])
        received(receiver)
    assert [result.sent for result in results] == list(range(40))
    assert [len(result.failures) for result in results] == [count % 2 for count in range(40)]
    assert len({id(result) for result in results}) == 40


def test_a_result_that_a_call_gave_can_be_given_to_the_next(inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    first = send_mmsg_nowait(sender, [(b"", to)] * 3)
    assert send_mmsg_nowait(sender, [(b"", to)], result=first) is first
    second = send_mmsg_nowait(sender, [(b"", to)] * 2)
    assert (first.sent, second.sent) == (1, 2)
    del first
    third = send_mmsg_nowait(sender, [(b"", to)] * 4)
    assert (second.sent, third.sent) == (2, 4)


def test_payloads_are_let_go_when_a_call_ends(inet: Family) -> None:
    class Mine(bytearray):
        pass

    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    data = Mine(b"mine")
    gone = weakref.ref(data)
    result = send_mmsg_nowait(sender, [(data, to)])
    data.append(1)  # no export is left
    del data
    assert gone() is None
    assert result.sent == 1


def test_a_send_in_the_middle_of_a_send(inet: Family) -> None:
    """By an address that is being encoded; it finds neither headers nor result of the other."""
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    inner: list[SendResult] = []

    class Sending(str):
        def __hash__(self) -> int:
            if len(inner) < 20:
                inner.append(send_mmsg_nowait(sender, [(b"inner", to)] * 3))
            return hash(str(self))

    host, port = to[:2]
    for _ in range(3):
        result = send_mmsg_nowait(sender, [(b"outer", to), (b"outer", (Sending(host), port))])
        assert result == SendResult(2)
    assert inner
    assert all(each == SendResult(3) for each in inner)
    assert sorted(received(receiver)) == [b"inner"] * 3 * len(inner) + [b"outer"] * 6


@pytest.mark.parametrize("change", ["clear", "append", "replace"])
def test_a_list_that_changes_meanwhile(change: str, inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    host, port = to[:2]
    pairs: list[Any] = []

    class Changing(str):
        def __hash__(self) -> int:
            if change == "clear":
                pairs.clear()
            elif change == "append":
                pairs.append((b"more", to))
            else:
                pairs[0] = pairs[1] = None
            return hash(str(self))

    pairs += [(bytes(50), to), (b"", (Changing(host), port)), (b"last", to)]
    sent = 0
    with contextlib.suppress(RuntimeError):  # the packets changed while they were read
        sent = send_mmsg_nowait(sender, pairs).sent
    # What was read is sent as it was, all of it or nothing.
    assert received(receiver) == [bytes(50), b"", b"last"][:sent]
    assert sent in ((3,) if change == "replace" else (0, 3))


@pytest.fixture
def many(inet: Family) -> tuple[socket.socket, Any]:
    return inet.open(), inet.open().getsockname()


@pytest.mark.parametrize("gso", [False, True])
def test_sizes_up_and_down(gso: bool, many: tuple[socket.socket, Any]) -> None:
    """Room for headers is used again by calls of all sizes, also beyond what is kept."""
    sender, to = many
    for count in (1, 64, 3, 128, 129, 5, 2000, 1, 0, 128):
        assert send_mmsg_nowait(sender, [(b"x", to)] * count, gso=gso).handled == count


def test_many_sockets(inet: Family) -> None:
    """More than C finds at once; those that were closed are never taken for new ones."""
    receiver = inet.open()
    to = receiver.getsockname()
    for _ in range(3):
        sockets = [inet.open() for _ in range(80)]
        for sock in sockets * 2:
            assert send_mmsg_nowait(sock, [(b"x", to)]).sent == 1
        assert len(received(receiver)) == 160
        for sock in sockets:
            sock.close()
            with pytest.raises(UnusableSocketError):
                send_mmsg_nowait(sock, [(b"x", to)])


def test_a_blocking_socket_is_refused_though_it_is_known(inet: Family) -> None:
    sender, to = inet.open(), inet.open().getsockname()
    send_mmsg_nowait(sender, [(b"x", to)])
    sender.setblocking(True)
    with pytest.raises(ValueError, match="sock is blocking"):
        send_mmsg_nowait(sender, [(b"x", to)])
    sender.setblocking(False)
    assert send_mmsg_nowait(sender, [(b"x", to)]).sent == 1


def test_threads(inet: Family) -> None:
    """Each call has headers and a result of its own, whichever thread makes it."""
    receiver = inet.open()
    to = receiver.getsockname()
    wrong: list[object] = []

    def send(count: int) -> None:
        sock = inet.open()
        for _ in range(300):
            result = send_mmsg_nowait(sock, [(b"%d" % count, to)] * count)
            if result.handled != count:
                wrong.append(result)

    threads = [threading.Thread(target=send, args=(count,)) for count in (1, 2, 30, 70)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_sends(inet: Family) -> None:
    sender, receiver = inet.open(), inet.open()
    to = receiver.getsockname()
    kept = send_mmsg_nowait(sender, [(b"parent", to)])
    child = os.fork()
    if child == 0:
        fine = send_mmsg_nowait(sender, [(b"child", to)] * 2).sent == 2 and kept.sent == 1
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert send_mmsg_nowait(sender, [(b"parent", to)]).sent == 1
    assert received(receiver) == [b"parent", b"child", b"child", b"parent"]


def test_a_batch_that_is_sent_is_pinned_no_longer(inet: Family) -> None:
    server, client = inet.open(), inet.open()
    with PacketBatch(8, 16) as batch:
        fill(batch, server, (client, b"1"), (client, b"2"))
        assert send_mmsg_nowait(server, batch).sent == 2
        assert send_mmsg_nowait(server, batch, gso=True).sent == 2
        batch.clear()
    assert received(client) == [b"1", b"2"] * 2
