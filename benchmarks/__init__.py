"""The numbers behind anyio-mmsg, measured: ``python -m benchmarks [NAME ...] [--quick]``.

===============  =================================================================================
`spec`           what a candidate is: ours, ours in plain Python, a peer, or a floor in C
`candidates`     all of them: receivers, senders, servers, and single calls
`workers`        the processes they run in, and the process that puts load on them
`floors`         the floors, in C
`children`       the parent's side of these processes
`measure`        a module for each benchmark: what is asked of whom, round after round
`result`         what a benchmark hands back; its JSON in `results`
`report`         the goals table, the tables of docs/performance.md, and the pictures
===============  =================================================================================

Each candidate runs in a process of its own and obeys a line protocol. The parent asks them in
turn, round after round, so that all see the same machine, and divides within a round. All traffic
stays on the loopback interface.
"""
