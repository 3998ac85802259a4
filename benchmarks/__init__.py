"""The numbers behind anyio-mmsg, measured: ``python -m benchmarks [NAME ...] [--quick]``.

Every receiver runs in a process of its own (`worker`, or `floor.c` for the floor) and obeys
one line protocol; the parent (`children`) asks them in turn, round after round, so that all
see the same machine. All traffic stays on the loopback interface.
"""
