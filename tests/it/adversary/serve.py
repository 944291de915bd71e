"""Outside: listens at the usual places of sockets, and greets each client.

Its arguments: a JSON file (`places`, `datagrams`: pairs of a name and a path, `sample`), and the file
that it makes when it listens. It ends when its standard input does.
"""

import json
import os
import selectors
import socket
import sys

aims = json.load(open(sys.argv[1]))
selector = selectors.DefaultSelector()


def bind(path, kind):
    if not path.startswith("@"):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX, kind)
    made.bind(path.replace("@", "\0", 1))
    return made


for _, path in [*aims["places"], ["", aims["to_rename"]]]:
    listener = bind(path, socket.SOCK_STREAM)
    listener.listen(16)
    selector.register(listener, selectors.EVENT_READ, path)
for _, path in aims["datagrams"]:
    selector.register(bind(path, socket.SOCK_DGRAM), selectors.EVENT_READ, None)
selector.register(sys.stdin.buffer, selectors.EVENT_READ, "end")
passed = os.open("/dev/null", os.O_RDONLY)
with open("gate.pid", "w") as file:
    file.write(str(os.getpid()))
open(sys.argv[2], "w").close()


def greet(listener):
    peer, _ = listener.accept()
    with peer:
        try:
            with socket.socket(socket.AF_UNIX) as back:
                back.connect("\0tidegate-adversary-inside")
        except OSError:
            pass
        try:
            socket.send_fds(peer, [b"hello"], [passed])
        except OSError:
            pass


while True:
    for key, _ in selector.select():
        if key.data == "end":
            sys.exit(0)
        if key.data is None:
            key.fileobj.recv(100)
        else:
            greet(key.fileobj)
