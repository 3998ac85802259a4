"""What is measured: ours and the peers, each in its idiomatic form."""
