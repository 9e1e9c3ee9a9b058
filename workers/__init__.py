"""The Celery shell: takes a job's wake-up, runs the job, records the outcome."""
