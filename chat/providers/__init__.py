"""The upstreams: one small file per provider, over one way to make an HTTP call."""
