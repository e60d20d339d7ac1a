"""Unmodified, others' own: nginx before the service (HTTP/2, TLS, a prefix, a Unix socket), and Node's FormData."""

from __future__ import annotations

import getpass
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.service_process import ServiceProcess, until

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin") or shutil.which("nginx")
CONFIG = """
user {user}; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off; client_max_body_size 64m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {folder}/proxy.crt; ssl_certificate_key {folder}/proxy.key;
    location /vision/ {{
      proxy_pass http://unix:{folder}/plimsoll.sock;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For 192.0.2.44;
    }}
  }}
}}
"""


@pytest.fixture(scope="module")
def proxy(nsfw_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Give the address below which nginx shows the service, and the service's log."""
    del nsfw_model_path
    if NGINX is None or shutil.which("curl") is None:
        pytest.skip("nginx or curl is not installed")
    folder = tmp_path_factory.mktemp("proxy")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    certificate = [*command, "-keyout", f"{folder}/proxy.key", "-out", f"{folder}/proxy.crt"]
    subprocess.run(certificate, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "nginx.conf").write_text(CONFIG.format(user=getpass.getuser(), folder=folder, port=port))
    serve = [sys.executable, "-m", "plimsoll", "serve", "open_nsfw", "--workers", "1", "--grace", "0"]
    options = ["--unix-socket", str(folder / "plimsoll.sock"), "--root-path", "/vision"]
    log = folder / "log.txt"
    with log.open("wb") as output:
        service = subprocess.Popen([*serve, *options], stdout=output, stderr=subprocess.STDOUT)
    server = subprocess.Popen([NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.DEVNULL)
    url = f"https://127.0.0.1:{port}/vision"
    try:
        until(lambda: curl(f"{url}/readyz")[0] == "200", "the service behind nginx")
        yield url, log
    finally:
        server.send_signal(signal.SIGTERM)
        service.send_signal(signal.SIGTERM)
        server.wait(60)
        service.wait(60)


def curl(url: str, *options: str) -> tuple[str, str, bytes]:
    """Return the status, HTTP's version and the body."""
    command = ["curl", "-sSk", "--http2", "-w", "\n%{http_code} %{http_version}", *options, url]
    body, _, said = subprocess.run(command, capture_output=True, timeout=90, check=False).stdout.rpartition(b"\n")
    status, _, version = said.decode().partition(" ")
    return status, version, body


def test_nginx_before_the_service(proxy: tuple[str, Path], example_photos: list[Path]) -> None:
    url, log = proxy
    parts = [part for photo in example_photos[:3] for part in ("-F", f"file=@{photo}")]
    status, version, body = curl(f"{url}/v1/predict", *parts)
    assert (status, version) == ("200", "2")
    whole = [result["answer"]["score"] for result in json.loads(body)["results"]]
    status, version, body = curl(f"{url}/v1/predict", *parts, "-H", "Accept: application/x-ndjson")
    assert (status, version) == ("200", "2")
    rows = sorted(map(json.loads, body.splitlines()), key=lambda row: row["number"])
    assert [row["answer"]["score"] for row in rows] == whole
    status, _, page = curl(f"{url}/", "--compressed")
    assert status == "200"
    assert b"Plimsoll" in page
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"/v1/predict"' in line]
    assert {line["client"] for line in lines} == {"192.0.2.44"}
    assert curl(f"{url}/v2/repository/models/open_nsfw/unload", "-X", "POST")[0] == "403"  # not local


NODE = """
const { readFileSync } = require("node:fs");
(async () => {
  const form = new FormData();
  for (const name of process.argv.slice(3)) form.append("file", new Blob([readFileSync(name)]), name);
  form.append("top", "1");
  const answer = await fetch(process.argv[2], { method: "POST", body: form });
  console.log(JSON.stringify([answer.status, (await answer.json()).results]));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_node_s_form_data(served: ServiceProcess, example_photos: list[Path], tmp_path: Path) -> None:
    script = tmp_path / "ask.js"
    script.write_text(NODE)
    photos = example_photos[:2]
    command = ["node", str(script), f"{served.url}/v1/predict", *map(str, photos)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    status, results = json.loads(done.stdout)
    assert status == 200, done.stderr
    assert [result["name"] for result in results] == list(map(str, photos))
    assert [result["answer"]["score"] for result in results] == [served.score(photo) for photo in photos]
