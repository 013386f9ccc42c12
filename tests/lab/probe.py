#!/usr/bin/python3
"""Small programs that tests/lab/test-lab runs inside lab hosts. Standard library only.

  probe.py serve PORT BYTES        accept connections; to each, send that many bytes and close
  probe.py take HOST PORT          read until the end; prints bytes and milliseconds
  probe.py connect HOST PORT       "ok", or "refused" or "timeout" (after 300 ms) and status 1
  probe.py announce ADDRESS        gratuitous ARP for ADDRESS on eth0
  probe.py memory                  userfaultfd, PAGEMAP_SCAN's file and ptrace work here
  probe.py count FILE              write 1, 2, 3 ... to FILE, one per 10 ms
"""
import ctypes
import os
import signal
import socket
import struct
import sys
import time

SYS_USERFAULTFD = 323
UFFD_USER_MODE_ONLY = 1
PTRACE_SEIZE, PTRACE_DETACH, PTRACE_INTERRUPT = 0x4206, 17, 0x4207


def serve(port, count):
    listener = socket.create_server(("", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                connection.sendall(bytes(int(count)))
            except OSError:
                pass  # whoever only wanted to know whether we listen has left


def take(host, port):
    start = time.monotonic()
    total = 0
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        while data := connection.recv(1 << 16):
            total += len(data)
    print(total, int((time.monotonic() - start) * 1000))


def connect(host, port):
    answer = "ok"
    try:
        socket.create_connection((host, int(port)), timeout=0.3).close()
    except ConnectionRefusedError:
        answer = "refused"
    except OSError:
        answer = "timeout"
    print(answer)
    sys.exit(answer != "ok")


def announce(address):
    with open("/sys/class/net/eth0/address", encoding="ascii") as file:
        mac = bytes.fromhex(file.read().strip().replace(":", ""))
    ip = socket.inet_aton(address)
    arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + ip + bytes(6) + ip
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
        link.bind(("eth0", 0))
        link.send(b"\xff" * 6 + mac + b"\x08\x06" + arp)


def memory():
    libc = ctypes.CDLL(None, use_errno=True)
    fault = libc.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK | UFFD_USER_MODE_ONLY)
    if fault < 0:
        sys.exit("userfaultfd: " + os.strerror(ctypes.get_errno()))
    child = os.fork()
    if child == 0:
        signal.pause()
    page = ctypes.create_string_buffer(b"x" * 8192)
    with open("/proc/self/pagemap", "rb") as pagemap:
        pagemap.seek(ctypes.addressof(page) // 4096 * 8)
        if not struct.unpack("Q", pagemap.read(8))[0] >> 63:
            sys.exit("pagemap: a page just written is not present")
    for request in (PTRACE_SEIZE, PTRACE_INTERRUPT):
        if libc.ptrace(request, child, 0, 0) < 0:
            sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))
    os.waitpid(child, 0x40000000)
    libc.ptrace(PTRACE_DETACH, child, 0, 0)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("ok")


def count(path):
    with open(path, "w", encoding="ascii") as file:
        number = 0
        while True:
            number += 1
            file.write(f"{number}\n")
            file.flush()
            time.sleep(0.01)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
