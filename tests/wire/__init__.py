"""Tests of the providers over real HTTP, against a scripted upstream on loopback."""
