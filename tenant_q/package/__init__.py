"""The packages that travel through the broker: how they are built, signed and opened."""
