"""Load and fault runs on real processes, each a command of its own."""
