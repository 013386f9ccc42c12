"""What the figures were taken on: machine, kernel, versions of everything that takes part."""

import os
import platform
import re
import subprocess

PROGRAMS = {"criu": ["criu", "--version"], "runc": ["runc", "--version"], "docker": ["dockerd", "--version"],
            "containerd": ["containerd", "--version"], "podman": ["podman", "--version"], "rsync": ["rsync", "--version"],
            "iperf3": ["iperf3", "--version"], "redis": ["redis-server", "--version"], "openssl": ["openssl", "version"]}


def version_of(command):
    """The first number with a dot in what it prints first."""
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "none"
    found = re.search(r"\d+\.\d[\w.+~-]*", text)
    return found[0].rstrip(".,") if found else "unknown"


def describe():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    with open("/proc/meminfo", encoding="ascii") as file:
        memory_kib = int(file.readline().split()[1])
    commit = subprocess.run(["git", "-C", os.path.dirname(__file__), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return {"cpu": models[0] if models else platform.machine(), "cpus": os.cpu_count(), "memory_gib": round(memory_kib / 2**20, 1),
            "kernel": platform.release(), "phaul": commit.stdout.strip() or "unknown",
            "versions": {name: version_of(command) for name, command in PROGRAMS.items()}}
