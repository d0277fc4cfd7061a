"""Measurements: each module is one command, `make bench-...`; what they share is in `harness`."""
