"""What applications start in a nursery: sockets, pools, receivers, and feeding consumers."""
