"""The ``chatd`` command: starts processes and asks questions, and holds no logic of its own."""
