"""Serves protocols that were written for asyncio (`DatagramProtocol`) by batches."""
