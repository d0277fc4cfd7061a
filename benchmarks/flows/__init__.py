"""An app with the workflows of the benchmarks."""
