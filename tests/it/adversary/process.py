# Ways at the process of the gate, and at any other outside, from a jailed command. The kinds that end
# or stop it come last.

PID = aims["pid"]


def unsigned(value):
    return ctypes.c_ulong(value)


def prlimit(resource, soft):
    """prlimit64: sets both limits of another process to what its soft one is, or lowers it."""
    old = (ctypes.c_ulong * 2)()
    call(libc.prlimit, PID, resource, None, old)
    new = (ctypes.c_ulong * 2)(min(soft, old[0]), old[1])
    call(libc.prlimit, PID, resource, new, None)
    return True


for limit_name, resource, value in [
    ("open files", 7, 4),
    ("file size", 1, 0),
    ("CPU time", 0, 3600),
    ("address space", 9, 1 << 46),
    ("processes", 6, 1),
]:
    way(f"lower its limit of {limit_name}")(lambda r=resource, v=value: prlimit(r, v))


@way("see it in /proc")
def _():
    marker = aims["marker"]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                words = open(f"/proc/{entry}/cmdline").read().split("\0")
            except OSError:
                continue
            if marker in words:
                return entry
    return None


@way("see it by its number")
def _():
    return open(f"/proc/{PID}/stat").read()


@way("see it by kill 0")
def _():
    os.kill(PID, 0)
    return True


@way("see the parent of the command")
def _():
    parent = aims["parent"]
    if parent is not None:
        return open(f"/proc/{PID}/cmdline").read()
    for line in open("/proc/self/status"):
        if line.startswith("NSpid:") and len(line.split()) > 2:
            return line
    ancestor = os.getpid()
    while ancestor not in (0, 1):
        text = open(f"/proc/{ancestor}/stat").read()
        if "exec" in open(f"/proc/{ancestor}/cmdline").read().split("\0")[1:2]:
            return ancestor
        ancestor = int(text.rsplit(")", 1)[1].split()[1])
    return None


@way("wait for the end of it")
def _():
    return os.pidfd_open(PID, 0) >= 0


@way("signal it by a pidfd")
def _():
    signal.pidfd_send_signal(os.pidfd_open(PID, 0), 0)
    return True


@way("take a descriptor of it")
def _():
    return syscall(438, os.pidfd_open(PID, 0), 1, 0) >= 0


@way("attach to it")
def _():
    call(libc.ptrace, 16, PID, 0, 0)
    os.waitpid(PID, 0)
    call(libc.ptrace, 17, PID, 0, 0)
    return True


@way("seize it")
def _():
    call(libc.ptrace, 0x4206, PID, 0, 0)
    return True


def remote(function):
    with open(f"/proc/{PID}/maps") as maps:
        place = int(maps.readline().split("-")[0], 16)
    return at(function, place)


def at(function, place):
    buffer = ctypes.create_string_buffer(4)
    ours = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 4)
    theirs = (ctypes.c_size_t * 2)(place, 4)
    got = call(function, PID, ours, unsigned(1), theirs, unsigned(1), unsigned(0))
    return got == 4


@way("read its memory by process_vm_readv")
def _():
    return remote(libc.process_vm_readv)


@way("write its memory by process_vm_writev")
def _():
    with open(f"/proc/{PID}/maps") as maps:
        lines = [line.split() for line in maps]
    heap = next(line for line in lines if "rw" in line[1])
    return at(libc.process_vm_writev, int(heap[0].split("-")[0], 16))


@way("write its memory by /proc/PID/mem")
def _():
    return os.open(f"/proc/{PID}/mem", os.O_RDWR) >= 0


@way("let the kernel end it first (oom_score_adj)")
def _():
    with open(f"/proc/{PID}/oom_score_adj", "w") as file:
        file.write("1000")
    return True


@way("change what its core dump holds")
def _():
    with open(f"/proc/{PID}/coredump_filter", "w") as file:
        file.write("0xff")
    return True


@way("clear its soft dirty bits")
def _():
    with open(f"/proc/{PID}/clear_refs", "w") as file:
        file.write("1")
    return True


@way("read its system calls")
def _():
    return open(f"/proc/{PID}/syscall").read() or True


@way("read its kernel stack or wait channel")
def _():
    return open(f"/proc/{PID}/wchan").read() and open(f"/proc/{PID}/auxv", "rb").read()


@way("lower its priority")
def _():
    os.setpriority(os.PRIO_PROCESS, PID, 19)
    return True


@way("lower the priority of every process of the user")
def _():
    nice = os.getpriority(os.PRIO_PROCESS, PID)
    os.setpriority(os.PRIO_PROCESS, PID, nice)
    return True


@way("put it into the idle class")
def _():
    os.sched_setscheduler(PID, 5, os.sched_param(0))
    return True


@way("bind it to one processor")
def _():
    os.sched_setaffinity(PID, {min(os.sched_getaffinity(0))})
    return True


@way("lower its I/O priority")
def _():
    return syscall(251, 1, PID, 3 << 13) == 0


@way("move its memory")
def _():
    masks = (ctypes.c_ulong * 1)(1)
    return syscall(256, PID, unsigned(64), masks, masks) >= 0


@way("compare its descriptors")
def _():
    return syscall(312, os.getpid(), PID, 0, 0, 0) >= 0


@way("profile it")
def _():
    attributes = bytearray(128)
    struct.pack_into("IIQ", attributes, 0, 1, 128, 1)
    # Without the kernel and the hypervisor, disabled.
    struct.pack_into("Q", attributes, 40, 1 | 1 << 5 | 1 << 6)
    buffer = (ctypes.c_char * 128).from_buffer(attributes)
    return syscall(298, buffer, PID, -1, -1, unsigned(0)) >= 0


@way("find the files that it has mapped")
def _():
    return os.listdir(f"/proc/{PID}/map_files")


@way("enter its folder")
def _():
    os.chdir(f"/proc/{PID}/cwd")
    return True


@way("run its program again")
def _():
    return os.readlink(f"/proc/{PID}/exe")


@way("enter its namespaces")
def _():
    with open(f"/proc/{PID}/ns/net") as file:
        call(libc.setns, file.fileno(), 0)
    return True


@way("freeze its control group")
def _():
    for line in open("/proc/self/mountinfo"):
        fields = line.split(" - ")
        if "cgroup" in fields[1].split()[0]:
            base = fields[0].split()[4]
            folder = f"{base}/adversary-{os.getpid()}"
            try:
                os.mkdir(folder)
                os.rmdir(folder)
                return folder
            except OSError:
                pass
    return None


@way("signal SIGURG")
def _():
    # Ignored where nothing listens: shows the right to signal, and leaves no trace.
    os.kill(PID, signal.SIGURG)
    return True


def victim():
    """The gate; in the control another process each time."""
    if aims["inside"]:
        return PID
    return subprocess.Popen(["sleep", "60"], start_new_session=True).pid


@way("signal SIGXFSZ")
def _():
    os.kill(victim(), signal.SIGXFSZ)
    return True


@way("stop it")
def _():
    os.kill(PID, signal.SIGSTOP)
    os.kill(PID, signal.SIGCONT)
    return True


@way("ask it to end")
def _():
    os.kill(victim(), signal.SIGTERM)
    return True


@way("kill its group")
def _():
    group = victim()
    if group == os.getpgid(0):
        raise OSError("it is the command's own group")
    os.killpg(group, signal.SIGKILL)
    return True


@way("kill it")
def _():
    os.kill(victim(), signal.SIGKILL)
    return True


main()
