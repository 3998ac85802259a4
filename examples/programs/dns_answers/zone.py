"""A zone, and what it says of a name (RFC 1034 section 4.3.2)."""

from __future__ import annotations

from typing import Any

import dns.name
import dns.rdataset
import dns.rdatatype
import dns.zone

from .wire import ANY, IN, NXDOMAIN, OPT, REFUSED, Reply

MAX_CHAIN = 11  # aliases that one answer follows; arbitrary, more than any real zone needs


class Lookup:
    """A zone in which names are looked up (RFC 1034 section 4.3.2).

    Args:
        zone: Of class IN, read with ``relativize=False``. Later changes to it have no effect.

    Raises:
        ValueError: It is another zone, or holds what is not served: a DNAME, or a wildcard
            delegation.
    """

    def __init__(self, zone: dns.zone.Zone) -> None:
        if zone.relativize or zone.origin is None or zone.rdclass != IN:
            raise ValueError("the zone has to be of class IN, and read with relativize=False")
        self.origin = zone.origin
        self._nodes = {name: list(node.rdatasets) for name, node in zone.nodes.items()}
        self._cuts: set[dns.name.Name] = set()  # where a delegation begins
        for owner, node in list(self._nodes.items()):
            types = {rdataset.rdtype for rdataset in node}
            if dns.rdatatype.DNAME in types:
                raise ValueError(f"{owner} has a DNAME, which is not served here; leave it out")
            if dns.rdatatype.NS in types and owner != self.origin:
                if owner.is_wild():  # RFC 4592 section 4.2: it has no meaning
                    raise ValueError(f"{owner} is a wildcard with an NS; write the names out")
                self._cuts.add(owner)
            while owner != self.origin:  # names in between exist too, without records
                owner = owner.parent()
                self._nodes.setdefault(owner, [])
        # Deeper names need no look: a query can have 127 labels, and each look costs as many.
        self._deepest = max(map(len, self._nodes))
        (soa,) = self._of_type(self.origin, dns.rdatatype.SOA)
        data: Any = next(iter(soa))
        self._soa = dns.rdataset.from_rdata_list(min(soa.ttl, data.minimum), [data])

    def reply(self, name: dns.name.Name, rdtype: int, rdclass: int = IN) -> Reply:
        """Return the answer for a name; follow its aliases as long as they are in the zone."""
        reply = Reply()
        # Of the meta types (RFC 6895 section 3.1) ANY is answered, transfers are not.
        meta = rdtype == OPT or 128 <= rdtype < ANY
        if rdclass != IN or meta or not name.is_subdomain(self.origin):
            return Reply(REFUSED, authoritative=False)
        seen: set[dns.name.Name] = set()
        while name.is_subdomain(self.origin) and name not in seen and len(seen) <= MAX_CHAIN:
            seen.add(name)
            cut = self._cut_above(name, rdtype)
            if cut is not None:
                reply.authoritative = bool(reply.answer)  # AA is about the first name
                self._refer(reply, cut)
                return reply
            node = self._node(name)
            if node is None:
                reply.rcode = NXDOMAIN
                break
            if rdtype == ANY:  # RFC 8482 section 4.1: one set is enough
                found = node[:1]
            else:
                found = [rdataset for rdataset in node if rdataset.rdtype == rdtype]
            if found:
                reply.answer += [(name, rdataset) for rdataset in found]
                return reply
            aliases = [rdataset for rdataset in node if rdataset.rdtype == dns.rdatatype.CNAME]
            if not aliases:
                break
            reply.answer.append((name, aliases[0]))
            name = next(iter(aliases[0])).target
        else:
            return reply  # the alias leads out of the zone, or in a circle: that is all
        reply.authority.append((self.origin, self._soa))
        return reply

    def _node(self, name: dns.name.Name) -> list[dns.rdataset.Rdataset] | None:
        """Return the sets of a name, or of the wildcard that covers it, or None."""
        if name in self._nodes:
            return self._nodes[name]
        name = name.split(min(len(name), self._deepest))[1]
        while name not in self._nodes:
            name = name.parent()
        return self._nodes.get(dns.name.Name((b"*", *name.labels)))  # RFC 4592 section 3.3.1

    def _cut_above(self, name: dns.name.Name, rdtype: int) -> dns.name.Name | None:
        """Return the highest delegation at or above a name."""
        if self._cuts:
            for depth in range(len(self.origin) + 1, min(len(name), self._deepest) + 1):
                above = name.split(depth)[1]
                if above in self._cuts:
                    # RFC 4035 section 3.1.4.1: its DS belongs to the parent zone.
                    return None if above == name and rdtype == dns.rdatatype.DS else above
        return None

    def _refer(self, reply: Reply, cut: dns.name.Name) -> None:
        """Add the servers of a delegation, and their addresses as far as the zone has them."""
        for rdataset in self._of_type(cut, dns.rdatatype.NS):
            reply.authority.append((cut, rdataset))
            for server in rdataset:
                for rdtype in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    addresses = self._of_type(server.target, rdtype)
                    reply.additional += [(server.target, found) for found in addresses]

    def _of_type(self, name: dns.name.Name, rdtype: int) -> list[dns.rdataset.Rdataset]:
        return [found for found in self._nodes.get(name, ()) if found.rdtype == rdtype]
