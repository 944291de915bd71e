"""Tries every way out of a jail that it knows; prints `out` and which where one works."""

import ctypes
import errno
import os
import socket
import subprocess
import sys

outside, port = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)


def attempt(name, way):
    try:
        got = way()
        print("out" if got else "held", name, got, flush=True)
    except Exception as error:
        print("held", name, repr(error), flush=True)


def call(function, *arguments):
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def run(*words):
    return subprocess.run(words, capture_output=True, timeout=30).returncode == 0


def answers(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        client.connect(address)
        client.sendall(b"GET / HTTP/1.1\r\nHost: elsewhere.example.net\r\n\r\n")
        return client.recv(100)


def udp(address, port, payload):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.connect((address, port))
        client.send(payload)
        return client.recv(100)


def resolves():
    question = b"\1\2\1\0\0\1\0\0\0\0\0\0\x09elsewhere\7example\3net\0\0\1\0\1"
    answer = udp("9.9.9.9", 53, question)
    return answer[3] & 15 != 3


def reads(path):
    with open(path, "rb") as file:
        return file.read(16) or b"empty"


def writes(path):
    with open(path, "r+b") as file:
        return file.write(b"x") and True


def joins(kind):
    with open(f"/proc/{outside}/ns/{kind}") as file:
        return call(libc.setns, file.fileno(), 0)


def abstract():
    with socket.socket(socket.AF_UNIX) as client:
        names = open("/proc/net/unix").read().split("\n")
        found = [line.split(" ")[-1] for line in names if "@" in line]
        return found


def descriptors():
    folder = f"/proc/{outside}/fd"
    for number in os.listdir(folder):
        try:
            os.close(os.open(f"{folder}/{number}", os.O_RDONLY))
            return number
        except PermissionError:
            pass
    return None


def packets(family, kind):
    return socket.socket(family, kind)


attempt("loopback outside", lambda: answers(("127.0.0.1", port)))
attempt("loopback outside, IPv6", lambda: answers(("::1", port), socket.AF_INET6))
attempt("metadata", lambda: not answers(("169.254.169.254", 80)).startswith(b"HTTP/1.1 40"))
attempt("an address", lambda: answers(("1.2.3.4", 443)))
attempt("IPv6", lambda: answers(("2001:db8::1", 443), socket.AF_INET6))
attempt("a port that nobody listens at", lambda: answers(("1.2.3.4", 8443)))
attempt("QUIC", lambda: udp("1.2.3.4", 443, b"hello"))
attempt("another resolver", resolves)
attempt("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("packet", lambda: packets(socket.AF_PACKET, socket.SOCK_RAW))
attempt("vsock", lambda: packets(40, socket.SOCK_STREAM))
attempt("bluetooth", lambda: packets(31, socket.SOCK_RAW))
attempt("io_uring", lambda: libc.syscall(425, 8, 0) >= 0 or ctypes.get_errno() != errno.ENOSYS)
attempt("typing", lambda: libc.ioctl(0, 0x5412, b"x") == 0)
attempt("abstract sockets", abstract)
attempt("routes", lambda: run("ip", "route", "add", "default", "dev", "lo"))
attempt("links", lambda: run("ip", "link", "add", "x", "type", "dummy"))
attempt("mounts", lambda: run("mount", "-t", "tmpfs", "none", "/mnt"))
attempt("unmounting", lambda: run("umount", "/etc/resolv.conf"))
attempt("nsenter", lambda: run("nsenter", "-t", str(outside), "-n", "true"))
attempt("nsenter, all", lambda: run("nsenter", "-t", str(outside), "-U", "-n", "true"))
for kind in ["net", "user", "mnt"]:
    attempt("setns " + kind, lambda kind=kind: joins(kind))
attempt("ptrace", lambda: call(libc.ptrace, 16, outside, 0, 0))
attempt("its memory", lambda: reads(f"/proc/{outside}/mem"))
attempt("its variables", lambda: reads(f"/proc/{outside}/environ"))
attempt("its descriptors", descriptors)
attempt("its root", lambda: os.listdir(f"/proc/{outside}/root/etc"))
attempt("init's root", lambda: os.listdir("/proc/1/root/etc"))
attempt("core pattern", lambda: writes("/proc/sys/kernel/core_pattern"))
# What is held below is held by the jail, not because nothing can be nested here. Root cannot map
# itself again, and keeps what a new namespace gives it in another way.
nested = ["unshare", "-Ur"] if os.getuid() else ["unshare", "-U", "--keep-caps"]
for words in [["true"], ["-n", "ip", "link", "set", "lo", "up"]]:
    print("control", run(*nested, *words), *words, flush=True)
attempt("nested, mount", lambda: run(*nested, "-m", "mount", "-t", "tmpfs", "none", "/mnt"))
attempt("nested, hidden files", lambda: run(*nested, "-m", "umount", "/etc/resolv.conf"))
attempt("nested, kernel", lambda: run(*nested, "-m", "mount", "-o", "remount,rw,bind", "/proc/sys"))
attempt("nested, parent", lambda: run(*nested, "nsenter", "-t", str(outside), "-n", "true"))
attempt("nested, routes", lambda: run(*nested, "ip", "link", "set", "lo", "down"))
attempt(
    "nested, network",
    lambda: run(*nested, "-n", "curl", "-sS", "--max-time", "5", "http://1.2.3.4/"),
)
attempt("its records", lambda: reads(os.path.join(os.path.dirname(sys.argv[0]), "../decisions.jsonl")) != b"empty")
with open("/proc/self/status") as status:
    held = [line for line in status if line.startswith("Cap") or line.startswith("NoNewPrivs")]
for line in held:
    name, value = line.split()
    wanted = "1" if name == "NoNewPrivs:" else "0" * 16
    attempt(name, lambda value=value, wanted=wanted: value != wanted)
with socket.socket() as server:
    server.bind(("127.0.0.1", 8080))
    server.listen()
    with socket.create_connection(("127.0.0.1", 8080)):
        print("local services work")
print("done")
