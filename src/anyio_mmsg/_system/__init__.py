"""The kernel's names and options. No event loop, no packets."""
