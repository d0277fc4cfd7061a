"""What travels through the broker: a package with its options, and the signed text that carries it."""
