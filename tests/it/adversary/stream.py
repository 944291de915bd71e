"""Outside: starts a program with a socket as one of its standard streams, and passes on what comes.

Its arguments: the number of the stream, `tcp` or `unix`, and the program.
"""

import os
import socket
import subprocess
import sys

number, kind = int(sys.argv[1]), sys.argv[2]
if kind == "tcp":
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
else:
    ours, theirs = socket.socketpair()
streams = {"stdin": subprocess.DEVNULL}
streams[["stdin", "stdout", "stderr"][number]] = theirs
if number == 0:
    ours.sendall(b"typed\n")
child = subprocess.Popen(sys.argv[3:], **streams)
theirs.close()
if number == 0:
    ours.shutdown(socket.SHUT_WR)
said = b""
try:
    while part := ours.recv(65536):
        said += part
except ConnectionResetError:
    pass
sys.stdout.write(said.decode(errors="replace"))
sys.exit(child.wait())
