/* What help() shows of these classes: the docstrings and signatures of their twins in Python.
 * `python -m tests.twins` writes this file; tests/test_twins.py compares it. */
/* clang-format off */

#define DOC_Packet \
    "One datagram held by a `PacketBatch`: a view, not a copy. Read-only.\n" \
    "\n" \
    "It is valid until the batch releases it. From then on its attributes raise ValueError, as does\n" \
    "reading a view that the consumer kept; it never shows another packet's bytes. Copy with\n" \
    "``bytes(packet.data)`` what must live longer.\n" \
    "\n" \
    "What looks into the memory without holding an export of `data` is not stopped by a release,\n" \
    "and shows the next packet: a slice or a ``cast`` of the view, ``numpy.frombuffer``, a parser\n" \
    "that keeps one of these, ``asyncio.StreamWriter.write(packet.data)``. Copy first. In Python's\n" \
    "development mode (``-X dev``) released slots are overwritten, so that such a mistake shows.\n" \
    "CPython compares a dead view by ``==`` without reading it: that gives False.\n" \
    "\n" \
    "Attributes:\n" \
    "    data: Exactly the bytes received, read-only; empty for an empty datagram.\n" \
    "    address: The sender, in the form of `socket.socket.recvfrom`: ``(host, port)`` for\n" \
    "        AF_INET, ``(host, port, flowinfo, scope_id)`` for AF_INET6, for AF_UNIX a path as str\n" \
    "        or an abstract name as bytes; None for a sender without a name, and for a truncated\n" \
    "        datagram on Windows, which does not report its sender."

#define DOC_Packet_size \
    "Bytes received, ``len(data)``; at most the batch's `slot_size`.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: The packet was released."

#define DOC_Packet_truncated \
    "Whether the datagram was longer than the slot, so that its end is lost.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: The packet was released."

#define DOC_Packet_wire_size \
    "Bytes of the datagram as it was sent.\n" \
    "\n" \
    "Equal to `size` unless `truncated`. None if it was truncated and the platform does not\n" \
    "report the length; Linux always does.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: The packet was released."

#define DOC_Packet_timestamp \
    "When the kernel took the packet in, in nanoseconds since the epoch.\n" \
    "\n" \
    "None: this packet came without one. Linux begins to stamp some time after the first socket\n" \
    "asked for it; until then a packet gets the time at which it is read.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: The packet was released; its batch was made without ``ancillary=True``; or\n" \
    "        its control data was cut."

#define DOC_Packet_hardware_timestamp \
    "When the network card took the packet in, in nanoseconds by its own clock, or None.\n" \
    "\n" \
    "For sockets on which the program has asked for it: SO_TIMESTAMPING with\n" \
    "SOF_TIMESTAMPING_RX_HARDWARE and SOF_TIMESTAMPING_RAW_HARDWARE (Linux), on a card that can\n" \
    "do it. The clock is the card's own; its epoch is arbitrary unless something sets it (PTP).\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: As for `timestamp`."

#define DOC_Packet_destination \
    "The address that the packet was sent to, or None.\n" \
    "\n" \
    "A unicast address of this machine, or the group or broadcast address. On a dual-stack\n" \
    "socket that of an IPv4 packet is mapped, as its `address` is.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: As for `timestamp`."

#define DOC_Packet_interface \
    "The index of the interface where the packet came in, or None.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: As for `timestamp`."

#define DOC_Packet_ecn \
    "The packet's ECN codepoint, 0 to 3 (RFC 3168 section 5), or None.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: As for `timestamp`."

#define DOC_Packet_hop_limit \
    "What was left of the packet's TTL or hop limit, or None.\n" \
    "\n" \
    "Raises:\n" \
    "    ValueError: As for `timestamp`."

#define DOC_Slots \
    "Slots(memory, capacity, slot_size, engine='auto', scribble=False, ancillary=False, gro=False)\n" \
    "--\n" \
    "\n" \
    "The memory of a ring and the state of its slots.\n" \
    "\n" \
    "Args:\n" \
    "    memory: A writable buffer of `capacity` * `slot_size` bytes. It must not be resized.\n" \
    "    capacity: How many slots, at least 1.\n" \
    "    slot_size: Bytes of each, at least 1.\n" \
    "    engine: The name of the engine that is to fill them.\n" \
    "    scribble: Whether to overwrite the bytes of released slots.\n" \
    "    ancillary: Whether packets give their control data.\n" \
    "    gro: Whether a slot holds a message of many packets.\n" \
    "\n" \
    "Attributes:\n" \
    "    tail: The number that the next message gets.\n" \
    "    filler: What the receive functions keep with these slots, or None; see `Filler`.\n" \
    "    reading: Whether a thread is in a system call that fills them; compiled only."

#define DOC_Slots_head \
    "The number of the oldest message held."

#define DOC_Slots_oldest \
    "The number of the oldest packet held."

#define DOC_Slots_held \
    "How many packets are held."

#define DOC_Slots_free \
    "How many slots can take a message now."

#define DOC_Slots_free_run \
    "free_run($self, count, /)\n" \
    "--\n" \
    "\n" \
    "Return the next free slots that lie side by side: the first, and how many of `count`."

#define DOC_Slots_commit \
    "commit($self, wire_sizes, addresses, controls=None, segments=None, /)\n" \
    "--\n" \
    "\n" \
    "Take the next free slots as held; they have messages of these lengths, as sent.\n" \
    "\n" \
    "Args:\n" \
    "    wire_sizes: The length of each message, as sent.\n" \
    "    addresses: Its sender.\n" \
    "    controls: Its control data, to be decoded when somebody asks; see `Packet._control`.\n" \
    "    segments: The sizes of its packets, with `gro`; 0: the message is one packet."

#define DOC_Slots_wire_sizes \
    "wire_sizes($self, /)\n" \
    "--\n" \
    "\n" \
    "Return the lengths, as sent, of all packets held."

#define DOC_Slots_tally \
    "tally($self, sums, spare, /)\n" \
    "--\n" \
    "\n" \
    "Return `sums` with this batch; it is full if at most `spare` slots are free."

#define DOC_Slots_addresses \
    "addresses($self, start, stop=None, /)\n" \
    "--\n" \
    "\n" \
    "Return the senders of held packets."

#define DOC_Slots_timestamps \
    "timestamps($self, /)\n" \
    "--\n" \
    "\n" \
    "Return the timestamps of all packets held."

#define DOC_Slots_payloads \
    "payloads($self, start, stop=None, /)\n" \
    "--\n" \
    "\n" \
    "Return the views of held packets."

#define DOC_Slots_copies \
    "copies($self, /)\n" \
    "--\n" \
    "\n" \
    "Return the bytes of all packets held."

#define DOC_Slots_datagrams \
    "datagrams($self, /)\n" \
    "--\n" \
    "\n" \
    "Return the bytes and the senders of all packets held."

#define DOC_Slots_columns \
    "columns($self, allocate, /)\n" \
    "--\n" \
    "\n" \
    "Return all packets held as arrays: `data`, `sizes` and `wire_sizes` of `Columns`.\n" \
    "\n" \
    "And three more, which are None where only Python knows them: hosts, ports, timestamps.\n" \
    "\n" \
    "Args:\n" \
    "    allocate: Returns memory of zeros for a copy, of a number of bytes."

#define DOC_Slots_hand_out \
    "hand_out($self, start, stop=None, /)\n" \
    "--\n" \
    "\n" \
    "Return the `Packet`s of held packets."

#define DOC_Slots_take_back \
    "take_back($self, count, /)\n" \
    "--\n" \
    "\n" \
    "Free the slots of the `count` oldest packets; what was handed out for them is dead then.\n" \
    "\n" \
    "None takes all that are held. After an interrupt it is done, or has to be done again.\n" \
    "\n" \
    "Raises:\n" \
    "    BufferError: Something looks into a packet's memory through its view. That packet and\n" \
    "        those after it are still held, those before it are not. Its argument is their\n" \
    "        number."

#define DOC_Recvmmsg \
    "Moves datagrams from a socket into one ring's slots. It does not wait.\n" \
    "\n" \
    "Every engine gives the same bytes, lengths, addresses, order and errors.\n" \
    "\n" \
    "Attributes:\n" \
    "    cut: Whether the last `fill` brought a message that is longer than a slot.\n" \
    "    refused: Whether the system refuses the engine's call: it did so twice."

#define DOC_Recvmmsg_takes \
    "takes($self, family, /)\n" \
    "--\n" \
    "\n" \
    "Return whether the engine knows the addresses of a socket's family."

#define DOC_Recvmmsg_fill \
    "fill($self, slots, sock, limit, /)\n" \
    "--\n" \
    "\n" \
    "Read datagrams into free slots, and commit them.\n" \
    "\n" \
    "What the kernel handed over is recorded by the same C-level step, so that no interrupt\n" \
    "can come between.\n" \
    "\n" \
    "Args:\n" \
    "    slots: The ring; always the same.\n" \
    "    sock: An open datagram socket; it is not waited for, even if it is a blocking one.\n" \
    "    limit: How many messages at most. The free slots are a limit too.\n" \
    "\n" \
    "Returns:\n" \
    "    How many packets were read.\n" \
    "\n" \
    "Raises:\n" \
    "    RuntimeError: Another thread is receiving into the same slots.\n" \
    "    anyio.BusyResourceError: A signal handler called this, and interrupted such a fill."

#define DOC_Recvmmsg_busy \
    "busy($self, /)\n" \
    "--\n" \
    "\n" \
    "Return whether the caller is a signal handler that has interrupted a fill."

#define DOC_Recvmmsg_settle \
    "settle($self, slots, /)\n" \
    "--\n" \
    "\n" \
    "Commit what an interrupted fill has recorded, if it has."

#define DOC_Recvmmsg_datagrams \
    "datagrams($self, slots, sock, limit, most, record, /)\n" \
    "--\n" \
    "\n" \
    "Put the datagrams that are there at the end of `record`, and free the slots.\n" \
    "\n" \
    "What was read is in `record` when this returns or raises. Without the memory to copy it,\n" \
    "it is held.\n" \
    "\n" \
    "Args:\n" \
    "    slots: As for `fill`; nothing is held in them, nor handed out.\n" \
    "    sock: As for `fill`.\n" \
    "    limit: How many messages at most.\n" \
    "    most: Bytes at which a datagram is cut.\n" \
    "    record: Gets ``(bytes, address)`` of each.\n" \
    "\n" \
    "Raises:\n" \
    "    MemoryError: There is not enough memory."

#define DOC_Sendmmsg \
    "One send: packets, each of which can be sent, and how many were. It does not wait.\n" \
    "\n" \
    "Payloads are pinned from the start, before anything is sent, to `release`: they can neither\n" \
    "be released nor change their size.\n" \
    "\n" \
    "Every sender gives the same bytes, order and errors.\n" \
    "\n" \
    "Attributes:\n" \
    "    count: How many packets there are.\n" \
    "    handled: How many of them were sent or refused.\n" \
    "    progress: What a `SendResult` reads, also when the send is over.\n" \
    "    refused: Whether the system refuses the sender's call: it did so twice."

#define DOC_Sendmmsg_send \
    "send($self, sock, result, keep, /)\n" \
    "--\n" \
    "\n" \
    "Send the packets that were not handled yet, as many as there is room for.\n" \
    "\n" \
    "What the system took is recorded by the same C-level step that gave it, so that no\n" \
    "interrupt can come between.\n" \
    "\n" \
    "Args:\n" \
    "    sock: A datagram socket; it is not waited for, even if it is a blocking one.\n" \
    "    result: What is to read this sender's progress from now on, or None.\n" \
    "    keep: Whether to go on later. Otherwise the send ends with this call, as by `release`,\n" \
    "        unless the call is refused.\n" \
    "\n" \
    "Returns:\n" \
    "    An errno, or 0 if all packets were handled. EAGAIN means that the buffer is full, and\n" \
    "    EBADF or ENOTSOCK that the socket is closed. With any other, `refused` is true."

#define DOC_Sendmmsg_release \
    "release($self, /)\n" \
    "--\n" \
    "\n" \
    "End the send: let go of the payloads."
