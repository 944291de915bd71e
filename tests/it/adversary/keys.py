# Ways at the secret files that a configuration names, from a jailed command.

GATE = aims["gate"]
KEYS = f"{GATE}/keys"
PID = aims["pid"]


def read_whole(path):
    with open(path, "rb") as file:
        return len(file.read(1 << 20)) > 0


for file_name in aims["key_files"]:
    way(f"read {file_name} by its path")(lambda name=file_name: read_whole(f"{GATE}/{name}"))


@way("read a key through the symbolic link to its folder")
def _():
    return read_whole(f"{aims['home']}/current/keys/inspect.key")


@way("read a key that was renamed outside before the start")
def _():
    return read_whole(f"{KEYS}/inspect.key.old")


@way("read a key by a path with ..")
def _():
    return read_whole(f"{aims['home']}/web/../gate/keys/../keys/inspect.key")


@way("list the folder of the keys")
def _():
    return os.listdir(KEYS)


@way("hard link a key into the working copy")
def _():
    os.link(f"{KEYS}/inspect.key", "linked.key")
    return read_whole("linked.key")


@way("rename a key into the working copy")
def _():
    os.rename(f"{KEYS}/spare.key", "renamed.key")
    return read_whole("renamed.key")


@way("rename the folder of the keys and read there")
def _():
    os.rename(f"{GATE}/keys-to-move", f"{GATE}/keys-moved")
    return read_whole(f"{GATE}/keys-moved/moved.key")


@way("read a key through a symbolic link of the working copy")
def _():
    os.symlink(f"{KEYS}/inspect.key", "link.key")
    return read_whole("link.key")


@way("read a key by a bind mount in a nested namespace")
def _():
    nested = ["unshare", "-Urm"] if os.getuid() else ["unshare", "-m"]
    if os.getuid() == 0 and aims["inside"]:
        nested = ["unshare", "-Um", "--keep-caps"]
    os.makedirs("bound", exist_ok=True)
    script = 'mount --bind "$1" bound && head -c 20 bound/inspect.key'
    return run(*nested, "sh", "-c", script, "sh", KEYS)


@way("read a key after unmounting what covers it")
def _():
    nested = ["unshare", "-Urm"] if os.getuid() else ["unshare", "-m"]
    if os.getuid() == 0 and aims["inside"]:
        nested = ["unshare", "-Um", "--keep-caps"]
    script = 'for at in "$1"/keys/* "$1"/keys "$1"; do umount -l "$at" 2>/dev/null; done; head -c 20 "$1"/keys/inspect.key'
    return run(*nested, "sh", "-c", script, "sh", GATE)


@way("read a key by /proc/PID/root")
def _():
    return read_whole(f"/proc/{PID}/root{KEYS}/inspect.key")


@way("read a key by /proc/PID/cwd")
def _():
    return read_whole(f"/proc/{PID}/cwd/../gate/keys/inspect.key")


@way("read a key by /proc/1/root")
def _():
    return read_whole(f"/proc/1/root{KEYS}/inspect.key")


@way("read a key by the root of any process")
def _():
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if read_whole(f"/proc/{entry}/root{KEYS}/inspect.key"):
                    return entry
            except OSError:
                pass
    return None


@way("read a key by a descriptor of any process")
def _():
    for entry in os.listdir("/proc"):
        try:
            for number in os.listdir(f"/proc/{entry}/fd"):
                if "inspect.key" in os.readlink(f"/proc/{entry}/fd/{number}"):
                    return entry, number
        except OSError:
            pass
    return None


@way("read the variables of the gate")
def _():
    return b"=" in open(f"/proc/{PID}/environ", "rb").read()


@way("read the memory map of the gate")
def _():
    return open(f"/proc/{PID}/maps").read()


@way("read the memory of the gate")
def _():
    with open(f"/proc/{PID}/maps") as maps:
        place = int(maps.readline().split("-")[0], 16)
    with open(f"/proc/{PID}/mem", "rb") as file:
        file.seek(place)
        return file.read(4)


@way("list the descriptors of the gate")
def _():
    return os.listdir(f"/proc/{PID}/fd")


@way("read a key from the disk itself")
def _():
    for line in open("/proc/self/mountinfo"):
        device = line.split(" - ")[1].split()[1]
        if device.startswith("/dev/") and read_whole(device):
            return device
    for name in os.listdir("/dev"):
        path = f"/dev/{name}"
        if stat.S_ISBLK(os.stat(path).st_mode):
            with open(path, "rb") as file:
                if file.read(512):
                    return path
    raise Absent("no disk is here")


@way("read the memory of the machine")
def _():
    for path in ["/dev/mem", "/proc/kcore"]:
        try:
            with open(path, "rb") as file:
                file.read(16)
                return path
        except FileNotFoundError:
            pass
    raise Absent("no /dev/mem, no /proc/kcore")


@way("open a key by a file handle")
def _():
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount_id = ctypes.c_int()
    target = f"{KEYS}/inspect.key"
    place = "." if not os.path.exists(target) else target
    call(libc.name_to_handle_at, -100, place.encode(), handle, ctypes.byref(mount_id), 0)
    root = os.open(".", os.O_RDONLY)
    opened = call(libc.open_by_handle_at, root, handle, os.O_RDONLY)
    return opened >= 0


main()
