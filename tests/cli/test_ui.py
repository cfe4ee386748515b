import http.client
import os
import re
import signal
import subprocess
import sys

from command_line import refused


def test_the_page_is_served_until_it_is_interrupted(where, steering):
    command = [sys.executable, "-m", "saepd.cli", "ui", "--steering", steering, "--port", "0"]
    started = subprocess.Popen(
        [*command, *where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    try:
        line = started.stdout.readline()
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", line)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert "Perspectives side by side" in connection.getresponse().read().decode()
        connection.close()
    finally:
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
    assert started.returncode == 130
    assert said.splitlines()[-1] == "saepd ui: interrupted"


def test_what_cannot_be_shown_is_refused(run, where, steering, tmp_path):
    refused(run("ui", "--steering", tmp_path), "holds no directions")
    refused(run("ui", "--steering", steering, "--items", tmp_path / "none.jsonl"), "none.jsonl")
    refused(run("ui", "--steering", steering, "--port", 99999, *where), "port 99999 cannot be used")
