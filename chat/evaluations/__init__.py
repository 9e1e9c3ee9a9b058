"""Evaluations: a dataset asked of several models as batch jobs, scored, and told in a report."""
