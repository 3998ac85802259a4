"""The processes that candidates run in, and the one that puts load on them."""
