"""Outside: starts a program with many descriptors open. Its arguments: a JSON file with their numbers,
and the program."""

import ctypes
import json
import os
import socket
import sys

aims = json.load(open(sys.argv[1]))
kept = []


def keep(name, number):
    at = number if isinstance(number, int) else number.fileno()
    os.dup2(at, aims["descriptors"][name], inheritable=True)
    kept.append(number)


listener = socket.create_server(("127.0.0.1", 0))
one, other = socket.socketpair()
kept.append(other)
out, into = os.pipe()
kept.append(out)
keep("file", os.open(aims["key"], os.O_RDONLY))
keep("log", os.open(aims["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
keep("folder", os.open(aims["gate"], os.O_RDONLY | os.O_DIRECTORY))
keep("path", os.open(aims["gate"], os.O_PATH | os.O_DIRECTORY))
keep("root", os.open("/", os.O_RDONLY | os.O_DIRECTORY))
if aims["sockets"]:
    keep("tcp", socket.create_connection(listener.getsockname()))
    keep("listener", listener)
    keep("unix", one)
    keep("udp", socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
keep("pipe", into)
keep("eventfd", os.eventfd(0))
memory = os.memfd_create("x")
os.write(memory, b"in memory")
keep("memfd", memory)
keep("pidfd", os.pidfd_open(os.getppid(), 0))
keep("namespace", os.open("/proc/self/ns/net", os.O_RDONLY))
keep("inotify", ctypes.CDLL(None).inotify_init1(0))
keep("epoll", ctypes.CDLL(None).epoll_create1(0))
os.set_inheritable(out, True)
os.set_inheritable(other.fileno(), aims["sockets"])
os.execvp(sys.argv[2], sys.argv[2:])
