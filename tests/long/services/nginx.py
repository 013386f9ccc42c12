"""nginx with two workers of another user, and a tree of files that clients fetch over connections which they keep."""

from dockers import ADDRESS
from services.service import CLIENT, PYTHON, Service
from services.tree import FILES, content_of, name_of

CONFIG = """daemon off;
user nobody nogroup;
worker_processes 2;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log info;
events { worker_connections 256; }
http {
	access_log /var/log/nginx/access.log combined;
	sendfile on;
	tcp_nopush on;
	keepalive_timeout 600;
	keepalive_requests 1000000000;
	open_file_cache max=100 inactive=60s;
	server {
		listen 8080;
		root /srv;
	}
}
"""


class Nginx(Service):
    name, port = "nginx", 8080
    programs = ("nginx",)
    first = ("nginx", "-c", "/etc/nginx.conf")

    def files(self):
        return (("etc/nginx.conf", CONFIG), ("var/log/nginx/error.log", ""), ("var/lib/nginx/.keep", ""),
                *((f"srv/{name_of(number)}", content_of(number)) for number in range(FILES)))

    def client(self):
        return (PYTHON, CLIENT, "http", "--host", ADDRESS, "--port", str(self.port), "--json", self.load_json)
