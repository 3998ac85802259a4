"""The numbers behind anyio-mmsg, measured: ``python -m benchmarks [NAME ...] [--quick]``.

Every candidate (`spec`) runs in a process of its own and obeys a line protocol: receivers in
`worker`, senders in `send_worker`, servers in `server_worker`, the floors in `floor.c` and
`send_floor.c`. The parent (`children`) asks them in turn, round after round, so that all see the
same machine. All traffic stays on the loopback interface.
"""
