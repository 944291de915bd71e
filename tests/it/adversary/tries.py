"""Runs each way of a class in a process of its own; prints one JSON line for each.

Its argument is a JSON file with the targets of the ways. A way that returns something true got
through ("got"); one that returns a false value or raises did not ("held"). `Effect(path)` means that
the test looks outside whether the file has the marker; `Absent` that this system has no such thing.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

MARKER = "written by the adversary"
PATIENCE = 20
aims = json.load(open(sys.argv[1])) if len(sys.argv) > 1 else {}
if aims.get("pid") == "file":
    with open("gate.pid") as file:
        aims["pid"] = aims["group"] = int(file.read())
libc = ctypes.CDLL(None, use_errno=True)
WAYS = []


class Absent(Exception):
    """This system has no such thing, inside or outside."""


class Effect:
    """Succeeds where the file outside has the marker."""

    def __init__(self, path):
        self.path = str(path)


def way(name):
    def keep(function):
        WAYS.append((name, function))
        return function

    return keep


def call(function, *arguments):
    """A call of the C library that returns -1 where it fails."""
    result = function(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def syscall(number, *arguments):
    return call(libc.syscall, ctypes.c_long(number), *arguments)


def reads(path):
    """The first bytes of a file; nothing for an empty one."""
    with open(path, "rb") as file:
        return file.read(64)


def run(*words, **more):
    more.setdefault("timeout", PATIENCE - 2)
    more.setdefault("stdin", subprocess.DEVNULL)
    done = subprocess.run(words, capture_output=True, **more)
    if done.returncode != 0:
        raise OSError((done.stderr or done.stdout).decode(errors="replace").strip()[-160:])
    return done.stdout.decode(errors="replace") or True


def outcome(function):
    try:
        got = function()
    except Absent as why:
        return {"state": "absent", "said": str(why)}
    except BaseException as error:
        return {"state": "held", "said": repr(error)[:200]}
    if isinstance(got, Effect):
        return {"state": "effect", "said": got.path, "path": got.path}
    return {"state": "got" if got else "held", "said": repr(got)[:200]}


def attempt(name, function):
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        signal.alarm(PATIENCE)
        os.write(theirs, json.dumps(outcome(function)).encode())
        os._exit(0)
    os.close(theirs)
    said = b""
    while part := os.read(ours, 65536):
        said += part
    os.close(ours)
    _, status = os.waitpid(child, 0)
    died = {"state": "held", "said": f"it ended with {status}"}
    line = json.loads(said) if said else died
    print(json.dumps({"way": name, **line}), flush=True)


def main():
    for name, function in WAYS:
        attempt(name, function)
    print(json.dumps({"way": "done", "state": "held", "said": ""}), flush=True)
