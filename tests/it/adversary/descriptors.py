# Descriptors that the starter of `exec --jail` left open, tried by the jailed command.

SEEN = aims["descriptors"]


def number(name):
    at = SEEN[name]
    os.fstat(at)
    return at


@way("a file")
def _():
    return os.pread(number("file"), 16, 0)


@way("a file that can be written")
def _():
    os.write(number("log"), b"x")
    return True


@way("a folder")
def _():
    at = number("folder")
    opened = os.open("keys/inspect.key", os.O_RDONLY, dir_fd=at)
    return os.read(opened, 16)


@way("a folder opened by path only")
def _():
    at = number("path")
    opened = os.open("keys/inspect.key", os.O_RDONLY, dir_fd=at)
    return os.read(opened, 16)


@way("the root folder")
def _():
    at = number("root")
    opened = os.open(aims["key"].lstrip("/"), os.O_RDONLY, dir_fd=at)
    return os.read(opened, 16)


@way("a folder entered by fchdir")
def _():
    os.fchdir(number("folder"))
    return reads("keys/inspect.key")


@way("a connected TCP socket")
def _():
    with socket.socket(fileno=os.dup(number("tcp"))) as peer:
        return peer.getpeername()


@way("a listening TCP socket")
def _():
    with socket.socket(fileno=os.dup(number("listener"))) as peer:
        return peer.getsockname()


@way("a connected Unix socket")
def _():
    with socket.socket(fileno=os.dup(number("unix"))) as peer:
        return peer.send(b"x") == 1


@way("a datagram socket")
def _():
    with socket.socket(fileno=os.dup(number("udp"))) as peer:
        return peer.getsockname()


@way("a pipe")
def _():
    return os.write(number("pipe"), b"x")


@way("an event counter")
def _():
    os.eventfd_write(number("eventfd"), 1)
    return True


@way("a file in memory")
def _():
    return os.pread(number("memfd"), 16, 0)


@way("a process")
def _():
    signal.pidfd_send_signal(number("pidfd"), 0)
    return True


@way("a namespace")
def _():
    return os.fstat(number("namespace")).st_ino > 0


@way("a watch of files")
def _():
    return os.fstat(number("inotify")).st_mode >= 0


@way("a set of events")
def _():
    return os.fstat(number("epoll")).st_mode >= 0


@way("a descriptor marked to be closed that is kept open")
def _():
    # Nothing above 2 is open but what this script opened itself.
    opened = {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2}
    return [at for at in opened if at >= 50]


@way("the same through /proc/self/fd")
def _():
    return reads(f"/proc/self/fd/{SEEN['file']}")


@way("the same of the parent")
def _():
    return os.listdir(f"/proc/{os.getppid()}/fd") and reads(f"/proc/{os.getppid()}/fd/{SEEN['file']}")


main()
