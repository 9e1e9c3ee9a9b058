"""Where ``celery -A workers`` finds the application, for Celery's own tools."""

from chat.config import load_config
from chat.connection import redis_url
from workers.app import make_celery

app = make_celery(redis_url(load_config()))
