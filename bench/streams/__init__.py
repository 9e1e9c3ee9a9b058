"""Answers that come piece by piece, through all of chatd, each byte of them checked."""
