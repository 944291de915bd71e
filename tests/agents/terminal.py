#!/usr/bin/env python3
"""`terminal.py STEPS -- COMMAND…`: the command at a terminal, typed at as the steps say.

STEPS is JSON, a list of {"after": TEXT, "in": "screen" or a file, "type": KEYS}: when the text has
appeared (since the last step, on the screen), the keys are typed. The command gets SIGHUP at the end
of the time that it may take, as when its window is closed.
"""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

PATIENCE = 120
CONTROL = re.compile(rb"\x1b(\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[PX^_].*?\x1b\\|.)", re.S)


def has_appeared(step, screen):
    text = step["after"].encode()
    if step.get("in", "screen") == "screen":
        return text.replace(b" ", b"") in CONTROL.sub(b"", screen).replace(b" ", b"")
    try:
        with open(step["in"], "rb") as file:
            return file.read().count(text) >= step.get("times", 1)
    except FileNotFoundError:
        return False


def main():
    steps, command = json.loads(sys.argv[1]), sys.argv[3:]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 160, 0, 0))
    screen, begun = b"", time.monotonic()
    while time.monotonic() - begun < PATIENCE:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            if not data:
                break
            os.write(1, data)
            screen += data
        if steps and has_appeared(steps[0], screen):
            os.write(terminal, steps.pop(0)["type"].encode())
            screen = b""
    os.kill(pid, signal.SIGHUP)
    if steps:
        sys.stderr.write(f"terminal.py: this did not appear: {steps[0]}\n")
    _, status = os.waitpid(pid, 0)
    sys.exit(1 if steps else os.waitstatus_to_exitcode(status) & 255)


main()
