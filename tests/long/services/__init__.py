"""The services that tests/long/test-services moves, a class each."""

from services.languages import Node, Python
from services.nginx import Nginx
from services.postgres import Postgres
from services.redis import Redis

SERVICES = {service.name: service for service in (Redis, Nginx, Postgres, Python, Node)}
