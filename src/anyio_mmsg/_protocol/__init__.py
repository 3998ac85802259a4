"""For what was written for asyncio: a `DatagramProtocol`, served by batches."""
