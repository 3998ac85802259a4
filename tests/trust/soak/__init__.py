"""The soak: every packet accounted for, at full rate, for as long as you like.

``python -m tests.trust.soak`` runs each event loop in turn, compiled and plain, in a process of
its own (`leg`). A leg is a series of rounds. In each round it opens receivers and handles packets
in several ways at a time (`lines`), while other processes send (`senders`); then everything is
closed, every packet has to be accounted for (`ledger`), and memory, descriptors and tasks are
counted (`flat`). They must not grow from round to round.

Checks raise `FaultError`; there is no ``assert``, so that ``python -O`` checks too.
"""
