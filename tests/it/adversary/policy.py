# Ways at the policy, from a jailed command: the files of this run, and those of the next.

HOME = aims["home"]
GATE = aims["gate"]
CONFIG = f"{GATE}/tidegate.toml"
RULE = f'\n# {MARKER}\n[[rule]]\nid = "x"\nverdict = "allow"\nto.hosts = ["*.example.net"]\n'


def append(path, text=RULE):
    with open(path, "r+") as file:
        file.seek(0, os.SEEK_END)
        file.write(text)
    return Effect(path)


def over(path, text=RULE):
    """Puts another file in the place of one that is there."""
    os.stat(path)
    fresh = f"{path}.fresh"
    with open(fresh, "w") as file:
        file.write(text)
    os.rename(fresh, path)
    return Effect(path)


@way("append a rule to the configuration")
def _():
    return append(CONFIG)


@way("append a rule through the symbolic link")
def _():
    return append(f"{HOME}/current/tidegate.toml")


@way("rewrite an included file")
def _():
    return append(f"{GATE}/rules.toml")


@way("add a file that an include pattern takes")
def _():
    path = f"{GATE}/rules.d/zz.toml"
    with open(path, "w") as file:
        file.write(RULE)
    return Effect(path)


@way("append a credential command")
def _():
    return append(f"{GATE}/parents.toml", f"# {MARKER}\n[[dial.parent]]\ncredential-command=['/bin/x']\n")


@way("put another configuration in its place")
def _():
    return over(CONFIG)


@way("put another included file in its place")
def _():
    return over(f"{GATE}/rules.d/a.toml")


@way("truncate an included file")
def _():
    before = os.stat(f"{GATE}/tiers.toml").st_size
    os.truncate(f"{GATE}/tiers.toml", 1)
    return before > 1


@way("swap the symbolic link to the folder")
def _():
    link = f"{HOME}/current"
    os.lstat(link)
    os.makedirs(f"{HOME}/other", exist_ok=True)
    with open(f"{HOME}/other/tidegate.toml", "w") as file:
        file.write(RULE)
    os.symlink("other", f"{HOME}/fresh-link")
    os.rename(f"{HOME}/fresh-link", link)
    return Effect(f"{link}/tidegate.toml")


@way("rename the folder of the configuration")
def _():
    os.rename(f"{HOME}/spare-gate", f"{HOME}/spare-gate-away")
    return True


@way("hard link the configuration into the working copy")
def _():
    os.link(CONFIG, "linked.toml")
    return os.stat("linked.toml").st_size > 0


@way("make the folder of the configuration writable")
def _():
    os.chmod(GATE, 0o777)
    with open(f"{GATE}/dropped.toml", "w") as file:
        file.write(MARKER)
    return Effect(f"{GATE}/dropped.toml")


@way("replace the authority's key")
def _():
    return over(f"{GATE}/keys/inspect.key", MARKER)


@way("replace the authority's certificate")
def _():
    return over(f"{GATE}/keys/inspect.pem", MARKER)


@way("write the user's configuration for the next run")
def _():
    folder = f"{HOME}/.config/tidegate"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/tidegate.toml", "w") as file:
        file.write(RULE)
    return Effect(f"{folder}/tidegate.toml")


@way("replace the program of the next run")
def _():
    return over(aims["next_program"], f"#!/bin/sh\n# {MARKER}\n")


@way("write into the user's shell start-up file")
def _():
    with open(f"{HOME}/.bashrc", "a") as file:
        file.write(f"# {MARKER}\n")
    return Effect(f"{HOME}/.bashrc")


@way("add a key to the user's authorized keys")
def _():
    os.makedirs(f"{HOME}/.ssh", exist_ok=True)
    with open(f"{HOME}/.ssh/authorized_keys", "a") as file:
        file.write(f"# {MARKER}\n")
    return Effect(f"{HOME}/.ssh/authorized_keys")


@way("write a service of the user's manager")
def _():
    folder = f"{HOME}/.config/systemd/user"
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/x.service", "w") as file:
        file.write(f"# {MARKER}\n")
    return Effect(f"{folder}/x.service")


@way("write a setting of git for every repository")
def _():
    with open(f"{HOME}/.gitconfig", "a") as file:
        file.write(f"# {MARKER}\n")
    return Effect(f"{HOME}/.gitconfig")


OWN = '[record]\nfile = "own.jsonl"\n' + aims["open_policy"]


def nested(name, **variables):
    """A gate of the adversary's own, inside: what it lets pass has still to pass the one outside."""
    folder = f"own-{name}/tidegate"
    os.makedirs(folder, exist_ok=True)
    path = os.path.abspath(f"{folder}/tidegate.toml")
    with open(path, "w") as file:
        file.write(OWN)
    plain = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    plain.pop("TIDEGATE_PROXY", None)
    variables = {key: value.format(path=path, base=os.path.abspath(f"own-{name}")) for key, value in variables.items()}
    words = ["--config", path] if not variables else []
    shell = "curl -sS -m 10 --fail " + aims["refused_url"]
    return run(aims["program"], "exec", *words, "--", "sh", "-c", shell, env={**plain, **variables})


@way("a nested gate with a configuration of its own")
def _():
    return "hello" in nested("option")


@way("a nested gate by XDG_CONFIG_HOME")
def _():
    return "hello" in nested("xdg", XDG_CONFIG_HOME="{base}")


@way("a nested gate by HOME")
def _():
    os.makedirs("own-home/.config", exist_ok=True)
    os.path.lexists("own-home/.config/tidegate") or os.symlink("../tidegate", "own-home/.config/tidegate")
    return "hello" in nested("home", HOME="{base}", XDG_CONFIG_HOME="")


main()
