"""The core of chatd: what a job is, where it goes and what became of it.

Plain Python over Redis; it knows neither Flask nor Celery and makes no assumption about pools.
"""
