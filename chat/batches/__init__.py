"""Batches: a file of requests, run as jobs in the batch lane, with a file of answers at the end."""
