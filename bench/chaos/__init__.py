"""Whatever is killed, every accepted job ends exactly once: faults under load, and the account."""
