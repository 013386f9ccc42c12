"""Copies the files of a directory over one TCP connection, as fast as the machine can: the kernel sends them from file to socket.

    copy.py receive DIRECTORY PORT          waits for one sender, writes what comes, ends
    copy.py send DIRECTORY ADDRESS PORT     sends all of it, ends when the other side has it

It stands for the best that an administrator could do without encryption. Needs nothing but Python's standard library.
"""

import os
import socket
import struct
import sys

HEAD = struct.Struct("<HIQ")  # length of the name, mode, size
PIECE = 1 << 20


def take(connection, length):
    data = connection.recv(length, socket.MSG_WAITALL)
    if data and len(data) < length:
        sys.exit("copy: the connection ended too early")
    return data


def receive(directory, port):
    with socket.create_server(("0.0.0.0", int(port))) as server:
        connection, _ = server.accept()
    buffer = memoryview(bytearray(PIECE))
    while head := take(connection, HEAD.size):
        length, mode, size = HEAD.unpack(head)
        path = os.path.join(directory, take(connection, length).decode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            while size:
                got = connection.recv_into(buffer, min(size, PIECE))
                if not got:
                    sys.exit("copy: the connection ended too early")
                file.write(buffer[:got])
                size -= got
            os.fchmod(file.fileno(), mode)
    connection.sendall(b"!")


def send(directory, address, port):
    with socket.create_connection((address, int(port))) as connection:
        for folder, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(folder, name)
                if not os.path.isfile(path) or os.path.islink(path):
                    continue
                short = os.path.relpath(path, directory).encode()
                with open(path, "rb") as file:
                    about = os.fstat(file.fileno())
                    connection.sendall(HEAD.pack(len(short), about.st_mode & 0o7777, about.st_size) + short)
                    sent = 0
                    while sent < about.st_size:
                        sent += os.sendfile(connection.fileno(), file.fileno(), sent, about.st_size - sent)
        connection.shutdown(socket.SHUT_WR)
        if connection.recv(1) != b"!":
            sys.exit("copy: the other side did not take all of it")


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](*sys.argv[2:])
