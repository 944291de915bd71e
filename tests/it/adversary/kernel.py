# Ways through namespaces and the kernel, from a jailed command. The control runs with every
# capability in a new user namespace, or as root.

PID = aims["pid"]
NEWNS, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)


decoy = None
if not aims["inside"]:
    decoy = subprocess.Popen(["unshare", "-UmnpiuC", "--fork", "sleep", "120"])
    children = ""
    while not children and decoy.poll() is None:
        children = open(f"/proc/{decoy.pid}/task/{decoy.pid}/children").read()
    aims["namespaces"] = int(children)


def unshare(flags):
    return call(libc.unshare, flags) == 0


def mounts():
    """In a user and mount namespace of its own, a process has every capability there is."""
    return call(libc.mount, b"none", b"/proc", b"tmpfs", ctypes.c_ulong(0), None) == 0


@way("mount in a user namespace made by unshare")
def _():
    return unshare(NEWUSER | NEWNS) and mounts()


def child_mounts(child):
    if child == 0:
        try:
            os._exit(0 if mounts() else 1)
        except OSError as error:
            os._exit(error.errno)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


@way("mount in a user namespace made by clone")
def _():
    flags = ctypes.c_ulong(NEWUSER | NEWNS | signal.SIGCHLD)
    return child_mounts(syscall(56, flags, 0, 0, 0, 0))


@way("mount in a user namespace made by clone3")
def _():
    arguments = (ctypes.c_uint64 * 11)(NEWUSER | NEWNS, 0, 0, 0, signal.SIGCHLD)
    return child_mounts(syscall(435, arguments, ctypes.c_ulong(88)))


@way("remount in a user namespace")
def _():
    unshare(NEWUSER | NEWNS)
    # MS_REMOUNT | MS_BIND
    return call(libc.mount, b"none", b"/", None, ctypes.c_ulong(32 | 4096), None) == 0


for namespace_name, flag in [
    ("mount", NEWNS),
    ("network", NEWNET),
    ("process", NEWPID),
    ("IPC", NEWIPC),
    ("UTS", NEWUTS),
]:
    way(f"make a {namespace_name} namespace")(lambda flag=flag: unshare(flag))

for kind in ["net", "mnt", "user", "pid", "ipc", "uts", "cgroup"]:

    def joins(kind=kind):
        # The control enters the namespaces of a process that it has made.
        target = aims.get("namespaces", PID)
        with open(f"/proc/{target}/ns/{kind}") as file:
            return call(libc.setns, file.fileno(), 0) == 0

    way(f"enter the {kind} namespace of the gate")(joins)


@way("mount a file system")
def _():
    return call(libc.mount, b"none", b"/mnt", b"tmpfs", ctypes.c_ulong(0), None) == 0


@way("bind a folder over another")
def _():
    return call(libc.mount, b"/usr", b"/mnt", None, ctypes.c_ulong(4096), None) == 0


@way("open a file system context")
def _():
    return syscall(430, b"tmpfs", 0) >= 0


@way("clone a mount tree")
def _():
    return syscall(428, -100, b"/", 1 | 0x8000) >= 0


@way("unmount")
def _():
    return call(libc.umount2, aims["mounted"].encode(), 2) == 0


@way("change the root")
def _():
    return call(libc.chroot, b"/usr") == 0


@way("make a device")
def _():
    os.mknod("device", 0o600 | stat.S_IFCHR, os.makedev(1, 1))
    return True


@way("load a program into the kernel")
def _():
    attributes = (ctypes.c_char * 128)()
    struct.pack_into("IIII", attributes, 0, 2, 4, 8, 1)
    return syscall(321, 0, attributes, 128) >= 0


@way("wait for faults of the kernel")
def _():
    return syscall(323, 0o2000000) >= 0


@way("make a ring")
def _():
    parameters = (ctypes.c_char * 120)()
    return syscall(425, 8, parameters) >= 0


@way("read a key of the user's keyring")
def _():
    got = syscall(250, 10, -4, b"user", b"tidegate-adversary", 0)
    buffer = ctypes.create_string_buffer(64)
    syscall(250, 11, got, buffer, ctypes.c_ulong(64))
    return buffer.value


@way("read a key of the session's keyring")
def _():
    got = syscall(250, 10, -3, b"user", b"tidegate-adversary-session", 0)
    buffer = ctypes.create_string_buffer(64)
    syscall(250, 11, got, buffer, ctypes.c_ulong(64))
    return buffer.value


@way("put a key into the user's keyring")
def _():
    return syscall(248, b"user", b"tidegate-adversary-put", b"x", ctypes.c_ulong(1), -4) >= 0


def family(number, kind, protocol=0):
    with socket.socket(number, kind, protocol) as made:
        return made.fileno() >= 0


for family_name, number, kind, protocol in [
    ("vsock", 40, socket.SOCK_STREAM, 0),
    ("packet", 17, socket.SOCK_RAW, 0),
    ("raw IPv4", 2, socket.SOCK_RAW, 1),
    ("raw IPv6", 10, socket.SOCK_RAW, 58),
    ("bluetooth", 31, socket.SOCK_RAW, 1),
    ("AF_ALG", 38, socket.SOCK_SEQPACKET, 0),
    ("CAN", 29, socket.SOCK_RAW, 1),
    ("TIPC", 30, socket.SOCK_SEQPACKET, 0),
    ("SMC", 43, socket.SOCK_STREAM, 0),
    ("XDP", 44, socket.SOCK_RAW, 0),
    ("QIPCRTR", 42, socket.SOCK_DGRAM, 0),
    ("ping", 2, socket.SOCK_DGRAM, 1),
]:

    def opens(number=number, kind=kind, protocol=protocol):
        try:
            return family(number, kind, protocol)
        except OSError as error:
            missing = (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT)
            if not aims["inside"] and error.errno in missing:
                raise Absent(str(error)) from error
            raise

    if family_name != "ping":
        way(f"a socket of {family_name}")(opens)


@way("a socket of a family by socketpair")
def _():
    with socket.socketpair(30, socket.SOCK_SEQPACKET)[0] as made:
        return made.fileno() >= 0


@way("a socket of packets by a call of 32 bits")
def _():
    if os.uname().machine != "x86_64":
        raise Absent("no calls of 32 bits here")
    child = os.fork()
    if child == 0:
        # push rbx; mov eax, 359 (socket); mov ebx, edi; mov ecx, esi; xor edx, edx; int 0x80;
        # pop rbx; ret
        code = b"\x53\xb8\x67\x01\x00\x00\x89\xfb\x89\xf1\x31\xd2\xcd\x80\x5b\xc3"
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        place = ctypes.addressof(ctypes.c_char.from_buffer(page))
        made = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)(place)(17, 3)
        os._exit(0 if made >= 0 else 1)
    _, status = os.waitpid(child, 0)
    if not aims["inside"] and status != 0:
        raise Absent("this kernel takes no calls of 32 bits")
    return status == 0


@way("change routes")
def _():
    run("ip", "link", "set", "lo", "up")
    return run("ip", "route", "add", "10.99.0.0/16", "dev", "lo")


@way("add an interface")
def _():
    return run("ip", "link", "add", "adversary0", "type", "veth", "peer", "name", "adversary1")


@way("listen to the kernel's audit")
def _():
    with socket.socket(16, socket.SOCK_RAW, 9) as made:
        made.bind((0, 1))
        return True


@way("set the host's name")
def _():
    name = socket.gethostname().encode()
    return call(libc.sethostname, name, len(name)) == 0


@way("write a setting of the kernel")
def _():
    with open("/proc/sys/kernel/domainname", "r+") as file:
        file.write(file.read())
    return True


@way("name a program that the kernel runs for core dumps")
def _():
    with open("/proc/sys/kernel/core_pattern", "r+") as file:
        return file.fileno() >= 0


@way("name a program that the kernel runs for events")
def _():
    for path in ["/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/hotplug"]:
        if os.path.exists(path):
            with open(path, "r+") as file:
                return path
    raise Absent("no such setting")


@way("a release agent of control groups")
def _():
    for line in open("/proc/self/mountinfo"):
        if " - cgroup " in line:
            agent = line.split()[4] + "/release_agent"
            if os.path.exists(agent):
                with open(agent, "r+"):
                    return agent
    raise Absent("no control groups of version 1")


@way("the magic system request")
def _():
    return os.open("/proc/sysrq-trigger", os.O_WRONLY) >= 0


@way("read the kernel's log")
def _():
    return os.open("/dev/kmsg", os.O_RDONLY) >= 0


@way("type into the terminal")
def _():
    master, slave = os.openpty()
    child = os.fork()
    if child == 0:
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)
        try:
            fcntl.ioctl(slave, 0x5412, b"x")
            os._exit(0)
        except OSError as error:
            os._exit(2 if error.errno == errno.EIO else 1)
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) == 2 and not aims["inside"]:
        raise Absent("this kernel types for nobody (dev.tty.legacy_tiocsti)")
    return status == 0


@way("paste into the console")
def _():
    try:
        console = os.open("/dev/tty0", os.O_RDWR)
    except OSError as error:
        if not aims["inside"]:
            raise Absent(str(error)) from error
        raise
    fcntl.ioctl(console, 0x541C, b"\x0b")
    return True


@way("load a module")
def _():
    try:
        return syscall(313, -1, b"", 0) >= 0
    except OSError as error:
        # EBADF: the right is there, only the file is not.
        return error.errno == errno.EBADF


@way("gain a capability by a program of root")
def _():
    for line in open("/proc/self/status"):
        if line.startswith("NoNewPrivs:"):
            return line.split()[1] == "0"
    return None


@way("hold a capability")
def _():
    held = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]
    return any(int(bits, 16) for bits in held)


@way("live without a filter of system calls")
def _():
    for line in open("/proc/self/status"):
        if line.startswith("Seccomp:"):
            return line.split()[1] != "2"
    return None


@way("become another user")
def _():
    os.setresuid(1, 1, 1)
    return True


@way("change the root's folders of programs")
def _():
    path = "/usr/bin/tidegate-adversary"
    try:
        with open(path, "w") as file:
            file.write(MARKER)
    except OSError:
        return None
    os.unlink(path)
    return True


main()
if decoy:
    os.kill(aims["namespaces"], signal.SIGKILL)
    decoy.wait()
