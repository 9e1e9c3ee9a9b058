"""For a WSGI server of one's own: ``gunicorn -k gevent api.wsgi:app``."""

from api import create_app
from chat.config import load_config

app = create_app(load_config())
