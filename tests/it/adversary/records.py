# Ways at the records of this gate and of others, from a jailed command.

FOLDER = aims["records"]
LOG = f"{FOLDER}/decisions.jsonl"


def read_whole(path):
    with open(path, "rb") as file:
        return len(file.read(1 << 20)) > 0


@way("read the records")
def _():
    return read_whole(LOG)


@way("read a rotated file")
def _():
    return read_whole(f"{LOG}.1")


@way("read the file of another command's gate")
def _():
    return read_whole(f"{FOLDER}/decisions-0197a000-0000-7000-8000-00000000000f.jsonl")


@way("list the folder of the records")
def _():
    # The jail has copies of the certificates that clients trust.
    return [name for name in os.listdir(FOLDER) if not name.startswith("trust-")]


@way("append a made-up line")
def _():
    with open(LOG, "r+") as file:
        file.seek(0, os.SEEK_END)
        file.write(json.dumps({"made-up": MARKER}) + "\n")
    return Effect(LOG)


@way("append a made-up line to a rotated file")
def _():
    with open(f"{LOG}.1", "r+") as file:
        file.seek(0, os.SEEK_END)
        file.write(json.dumps({"made-up": MARKER}) + "\n")
    return Effect(f"{LOG}.1")


@way("make a spare file")
def _():
    path = f"{FOLDER}/decisions-0197a000-0000-7000-8000-0000000000ff.jsonl"
    with open(path, "w") as file:
        file.write(MARKER)
    return Effect(path)


@way("take the lock of the records")
def _():
    with open(LOG, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return True


@way("hard link the records into the working copy")
def _():
    os.link(LOG, "linked.jsonl")
    return True


@way("change the mode of the records")
def _():
    os.chmod(LOG, 0o666)
    return True


@way("truncate a rotated file")
def _():
    before = os.stat(f"{LOG}.2").st_size
    os.truncate(f"{LOG}.2", 0)
    return before > 0


@way("remove a rotated file")
def _():
    os.unlink(f"{LOG}.2")
    return True


@way("move the records away")
def _():
    os.rename(f"{FOLDER}/moved.jsonl", f"{FOLDER}/moved-away.jsonl")
    return True


@way("rotate as the gate does")
def _():
    os.rename(f"{LOG}.4", f"{LOG}.5")
    return True


@way("move the folder of the records away")
def _():
    os.rename(aims["spare_records"], aims["spare_records"] + "-away")
    return True


main()
