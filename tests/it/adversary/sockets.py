# Unix sockets on which something outside listens, tried by a jailed command.


def talk(address, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.settimeout(PATIENCE / 4)
        client.connect(address)
        if kind == socket.SOCK_DGRAM:
            return client.send(b"hello") == 5
        return client.recv(5) == b"hello"


for place_name, path in aims["places"]:
    way(f"{place_name} at {path}")(lambda path=path: talk(path.replace("@", "\0", 1)))

for place_name, path in aims["datagrams"]:
    way(f"{place_name} at {path}")(
        lambda path=path: talk(path.replace("@", "\0", 1), socket.SOCK_DGRAM)
    )

SOCKET = aims["sample"]


@way("by a symbolic link in the working copy")
def _():
    os.symlink(SOCKET, "link.sock")
    return talk("link.sock")


@way("by a hard link in the working copy")
def _():
    os.link(SOCKET, "hard.sock")
    return talk("hard.sock")


@way("by renaming it into the working copy")
def _():
    os.rename(aims["to_rename"], "renamed.sock")
    return talk("renamed.sock")


@way("by /proc/PID/root")
def _():
    return talk(f"/proc/{aims['pid']}/root{SOCKET}")


@way("by the root of any process")
def _():
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if talk(f"/proc/{entry}/root{SOCKET}"):
                    return entry
            except OSError:
                pass
    return None


@way("by a descriptor passed over a socket (SCM_RIGHTS)")
def _():
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE / 4)
        client.connect(SOCKET)
        _, descriptors, _, _ = socket.recv_fds(client, 5, 1)
        return os.fstat(descriptors[0]).st_size >= 0


@way("any abstract name that is listed")
def _():
    names = [line.split()[-1] for line in open("/proc/net/unix") if "@" in line]
    return names


@way("any path that is listed")
def _():
    mine = os.getcwd()
    paths = [line.split()[-1] for line in open("/proc/net/unix") if "/" in line]
    return [path for path in paths if not path.startswith(mine)]


@way("a client of an abstract name that this side listens at")
def _():
    # What listens here must not be found outside: the test's server tries the name.
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0tidegate-adversary-inside")
        server.listen()
        server.settimeout(1)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE / 4)
            client.connect(SOCKET)
            client.recv(5)
        peer, _ = server.accept()
        return peer.fileno() >= 0


main()
