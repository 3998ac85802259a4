"""What senders who mean harm can do, and what it costs: ``python -m tests.trust.hostile``.

Nothing here is judged: these are times, and a machine decides those. What can be counted is in
`tests/trust/test_hostile.py`: bounds of caches, that nothing is lost, that other tasks get on.
"""
