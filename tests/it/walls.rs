//! The promises of a jail, one by one: what a command inside sees, reaches and leaves behind. Each
//! as root and as an ordinary user, each with the same thing outside as its positive control.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use crate::contained::{User, World, hello};
use crate::kit::{Outcome, Pki, need, read_log, until};

/// A jail of each user that can make one here.
pub(crate) fn worlds() -> Vec<World> {
    let pki = Pki::new();
    let origin = hello(&pki);
    let worlds = User::all().into_iter();
    let worlds = worlds.map(|user| World::of(user, &pki, &origin));
    worlds.filter(World::can).collect()
}

impl World {
    /// Runs a script in a jail, with more options of `exec`.
    pub(crate) fn with(&self, options: &[&str], script: &str) -> Outcome {
        let command = self.command().args(["--jail"]).args(options);
        command.args(["--", "bash", "-c", script]).run()
    }

    /// Runs a script outside, with `$EXEC` before a command in a jail.
    pub(crate) fn outside(&self, script: &str) -> Outcome {
        let exec = format!(
            "{} exec --config {} --jail",
            self.binary.display(),
            self.path("tidegate.toml").display()
        );
        self.user
            .program(&need("bash"), self.home.path())
            .within(&self.path("web"))
            .env("EXEC", exec)
            .args(["-c", script])
            .run()
    }

    /// A file of the user, with its folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
        self.hand_over();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn jail_started(&self) -> crate::kit::Line {
        let lines = read_log(&self.path("decisions.jsonl"));
        let mut lines = lines.into_iter().rev();
        let found = lines.find(|line| line.name() == "jail_started");
        found.expect("the jail is on record")
    }
}

#[test]
fn files_of_the_user_do_not_exist_unless_they_are_shared() {
    for world in worlds() {
        world.write(".ssh/id", "a key\n");
        world.write(".config/agent/settings", "mine\n");
        world.write("other/src", "another project\n");
        let look = "for file in .ssh/id .config/agent/settings other/src; do \
                    cat ~/$file 2>/dev/null || echo none; done; \
                    echo new >>~/other/src; echo new >>~/.config/agent/settings; true";
        let outcome = world.with(&[], look).succeeded();
        assert_eq!(outcome.stdout, "none\nnone\nnone\n", "{outcome:#?}");
        assert_eq!(world.read("other/src"), "another project\n");
        let settings = world.path(".config/agent").display().to_string();
        let other = format!("{}:ro", world.path("other").display());
        let outcome = world.with(&["--share", &settings, "--share", &other], look);
        let outcome = outcome.succeeded();
        let said = "none\nmine\nanother project\n";
        assert_eq!(outcome.stdout, said, "{outcome:#?}");
        let web = world.path("web").display().to_string();
        let first = outcome.stderr.lines().next().unwrap_or_default();
        let stands = "tidegate: jail: no other way out; writable: ";
        assert!(first.starts_with(stands) && first.contains(&web), "{first}");
        let shared = format!("tidegate: shared: {settings}, {other}\n");
        assert!(outcome.stderr.contains(&shared), "{outcome:#?}");
        assert_eq!(world.read(".config/agent/settings"), "mine\nnew\n");
        assert_eq!(world.read("other/src"), "another project\n");
        let line = format!("{:?}", world.jail_started());
        assert!(line.contains(&settings) && line.contains(&other), "{line}");
    }
}

#[test]
fn what_cannot_be_hidden_is_refused() {
    for world in worlds() {
        world.write("web/policy/tidegate.toml", "");
        world.write("empty/file", "");
        world.write("decisions.jsonl", "");
        symlink("..", world.path("web/out")).expect("a link");
        let home = world.path("tidegate.toml");
        let (home, own) = (home.display(), world.path("web/policy/tidegate.toml"));
        let refused = |folder: &str, options: &str, word: &str| {
            let outcome = world.outside(&format!(
                "cd {folder} && {} exec --jail {options} -- touch {}",
                world.binary.display(),
                world.path("ran").display()
            ));
            assert_eq!(outcome.code, Some(2), "{options}: {outcome:#?}");
            outcome.showed(word);
            assert!(!world.path("ran").exists(), "{options}: it ran");
        };
        let own = format!("--config {}", own.display());
        refused(".", &own, "lies in the working copy");
        let named = format!("--config {home}");
        refused("..", &named, "holds your home");
        refused("/tmp", &named, "start it in the folder of a project");
        let more = format!("{named} --share ..");
        refused(".", &more, "holds your home");
        let more = format!("{named} --share out/empty");
        refused(".", &more, "leads through the symbolic link");
        let more = format!("{named} --share nowhere");
        refused(".", &more, "--share");
        let records = format!(
            "{named} --share {}",
            world.path("decisions.jsonl").display()
        );
        refused(".", &records, "lies in --share");
    }
}

#[test]
fn a_linked_worktree_commits_and_cargo_builds() {
    for world in worlds() {
        let git = "git -c user.name=Ana -c user.email=ana@acme.example";
        let outcome = world.outside(&format!(
            "{git} worktree add -q ../side && cd ../side && ls -a"
        ));
        outcome.succeeded();
        let outcome = world.outside(&format!(
            "cd ../side && echo x >x && $EXEC -- bash -c '{git} add x && {git} commit -qm Second'; \
             {git} log --oneline"
        ));
        outcome.succeeded().showed("Second");
        if world.user == User::Me {
            let cargo = "cargo init -q --lib --name demo && cargo build -q --offline && ls target";
            world.with(&[], cargo).succeeded().showed("debug");
        }
    }
}

/// Runs a script in a jail whose standard streams are these.
fn streamed(world: &World, script: &str, input: OwnedFd, output: OwnedFd) -> i32 {
    let setpriv = need("setpriv");
    let id = rustix::fs::stat(world.path("web"))
        .expect("a folder")
        .st_uid;
    let id = id.to_string();
    let mut command = Command::new(setpriv);
    command
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .arg(&world.binary)
        .args(["exec", "--jail", "--config"])
        .arg(world.path("tidegate.toml"))
        .args(["--", "bash", "-c", script])
        .env("HOME", world.home.path())
        .current_dir(world.path("web"))
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("a program");
    drop(command);
    child.wait().expect("a child").code().unwrap_or(-1)
}

#[test]
fn sockets_as_standard_streams_become_pipes_and_folders_are_refused() {
    if !crate::contained::is_root() {
        eprintln!("NOT TESTED HERE: standard streams of two users: run as root");
        return;
    }
    for world in worlds() {
        let (mut input, theirs) = UnixStream::pair().expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let to = listener.local_addr().expect("an address");
        let socket = TcpStream::connect(to).expect("a connection");
        let (mut output, _) = listener.accept().expect("a connection");
        input.write_all(b"some words\n").expect("written");
        input.shutdown(std::net::Shutdown::Write).expect("the end");
        let script = "readlink /proc/self/fd/0 /proc/self/fd/1; cat";
        let code = streamed(&world, script, theirs.into(), socket.into());
        let mut said = String::new();
        output.read_to_string(&mut said).expect("text");
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(code, 0, "{said}");
        assert!(lines[0].starts_with("pipe:"), "{said}");
        assert!(lines[1].starts_with("pipe:"), "{said}");
        assert_eq!(lines[2], "some words");
        let outcome = world.outside("$EXEC -- true < .");
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
        outcome.showed("standard input is a folder");
    }
}

#[test]
fn inherited_descriptors_are_closed_and_none_is_opened_again_for_writing() {
    for world in worlds() {
        world.write("notes", "kept\n");
        let list = "bash -c 'ls /proc/$$/fd; echo x 2>/dev/null >/proc/self/fd/0; \
                    ls -d /proc/self/fd/7/. 2>/dev/null; true'";
        let outcome = world.outside(&format!("$EXEC -- {list} 7</ 8<>../notes <../notes"));
        let outcome = outcome.succeeded();
        // 255 is bash's own.
        let numbers: Vec<_> = outcome.stdout.lines().filter(|it| *it != "255").collect();
        assert_eq!(numbers, ["0", "1", "2"], "{outcome:#?}");
        assert_eq!(world.read("notes"), "kept\n");
        // The control: the same user may, outside.
        world
            .outside("bash -c 'echo x >/proc/self/fd/0' <../notes")
            .succeeded();
        assert_eq!(world.read("notes"), "x\n");
    }
}

#[test]
fn no_signal_leaves_and_the_gate_tells_the_end() {
    for world in worlds() {
        let gate = "touch begun; until test -e gate; do sleep 0.05; done; pid=$(cat gate)";
        let script = format!(
            "{gate}; kill -9 $pid; kill -9 -1; prlimit --pid $pid --nofile=3; \
             ls -d /proc/$pid; kill -9 0"
        );
        let outcome = std::thread::scope(|scope| {
            let inside = scope.spawn(|| world.with(&[], &script));
            until("the beginning", || {
                world.path("web/begun").exists() || inside.is_finished()
            });
            world.write("part", &world.gate().to_string());
            std::fs::rename(world.path("part"), world.path("web/gate")).expect("a name");
            inside.join().expect("a command")
        });
        assert_eq!(outcome.code, Some(137), "{outcome:#?}");
        let lines = read_log(&world.path("decisions.jsonl"));
        let names: Vec<&str> = lines.iter().map(crate::kit::Line::name).collect();
        assert!(
            names.ends_with(&["session_ended", "checkpoint"]),
            "{names:?}"
        );
    }
}

/// Whether a process with these words is there.
fn runs(words: &str) -> bool {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    let command = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let mut commands = entries.filter_map(command);
    commands.any(|command| {
        String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .contains(words)
    })
}

#[test]
fn a_jail_leaves_no_process_behind() {
    for (index, world) in worlds().iter().enumerate() {
        let (first, second) = (format!("81{index}11.5"), format!("81{index}22.5"));
        let script =
            |time: &str| format!("setsid sleep {time} & disown; until pgrep sleep; do :; done");
        world.with(&[], &script(&first)).succeeded();
        assert!(!runs(&format!("sleep {first}")), "it outlived the command");
        // The gate is killed: so is everything in the jail.
        let killed = format!(
            "$EXEC -- bash -c '{}; touch begun; sleep 600' & wait",
            script(&second)
        );
        std::thread::scope(|scope| {
            let outside = scope.spawn(|| world.outside(&killed));
            until("the beginning", || {
                world.path("web/begun").exists() || outside.is_finished()
            });
            assert!(runs(&format!("sleep {second}")), "it does not run");
            let pid = i32::try_from(world.gate()).expect("a number");
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
            outside.join().expect("a shell");
        });
        until("the end of the jail", || !runs(&format!("sleep {second}")));
    }
}

#[test]
fn a_command_that_stops_stops_the_gate() {
    for world in worlds() {
        let script = "
            set -m
            $EXEC -- bash -c 'kill -STOP $$; echo went on' &
            while test \"$(jobs -s)\" = ''; do sleep 0.05; done
            echo stopped
            fg >/dev/null
        ";
        let outcome = world.outside(script);
        assert_eq!(outcome.stdout, "stopped\nwent on\n", "{outcome:#?}");
    }
}

/// Says `got` where something answers at that path.
const CONNECT: &str = "
import socket, sys
for path in sys.argv[1:]:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            print('got')
    except OSError:
        print('none')
";

#[test]
fn sockets_outside_are_not_there_unless_shared() {
    for world in worlds() {
        world.write("web/connect.py", CONNECT);
        let _absolute = UnixListener::bind(world.path("web/absolute")).expect("a socket");
        let _elsewhere = UnixListener::bind(world.path("elsewhere")).expect("a socket");
        // Bound by a name that is relative to its process's folder.
        let listen = "import os, socket; s = socket.socket(socket.AF_UNIX); s.bind('relative'); \
                      s.listen(); open('begun', 'w').close(); \
                      [None for _ in iter(lambda: os.path.exists('done'), True)]";
        world.hand_over();
        let connect = "python3 connect.py absolute relative ../elsewhere";
        std::thread::scope(|scope| {
            let listening = scope.spawn(|| world.outside(&format!("python3 -c \"{listen}\"")));
            until("the socket", || {
                world.path("web/begun").exists() || listening.is_finished()
            });
            let control = world.outside(connect);
            assert_eq!(control.stdout, "got\ngot\ngot\n", "{control:#?}");
            let outcome = world.with(&[], connect);
            assert_eq!(outcome.stdout, "none\nnone\nnone\n", "{outcome:#?}");
            let shared = world.path("elsewhere").display().to_string();
            let outcome = world.with(&["--share", "absolute", "--share", &shared], connect);
            assert_eq!(outcome.stdout, "got\nnone\ngot\n", "{outcome:#?}");
            std::fs::write(world.path("web/done"), "").expect("a file");
            listening.join().expect("a script");
        });
    }
}

#[test]
fn sockets_that_have_another_name_than_the_kernel_has_are_covered() {
    for world in worlds() {
        world.write("web/connect.py", CONNECT);
        let deep = world.path("web/a/b/c/d/e/f");
        std::fs::create_dir_all(&deep).expect("a folder");
        let _bound = UnixListener::bind(deep.join("bound")).expect("a socket");
        std::fs::rename(deep.join("bound"), deep.join("renamed")).expect("another name");
        let _linked = UnixListener::bind(world.path("elsewhere")).expect("a socket");
        std::fs::hard_link(world.path("elsewhere"), world.path("web/linked")).expect("a link");
        drop(UnixListener::bind(world.path("web/stale")).expect("a socket"));
        world.hand_over();
        let connect = "python3 connect.py a/b/c/d/e/f/renamed linked";
        assert_eq!(world.outside(connect).stdout, "got\ngot\n");
        let outcome = world.with(&[], &format!("{connect}; rm stale && echo removed"));
        assert_eq!(outcome.stdout, "none\nnone\nremoved\n", "{outcome:#?}");
    }
}

#[test]
fn what_a_jail_leaves_out_is_said() {
    for world in worlds() {
        world.write(".gitconfig", "[alias]\n\ttok = !echo token\n");
        world.write("above/HEAD", "ref: refs/heads/main\n");
        world.write("above/refs/x", "");
        world.write("sub/.git", "gitdir: ../above\n");
        let again = format!("{} exec --jail -- true", world.binary.display());
        let outcome = world.with(&[], &again);
        assert_eq!(outcome.code, Some(3), "{outcome:#?}");
        outcome
            .showed("already in a jail")
            .showed(".gitconfig is left out: line 2 looks like a credential");
        let outcome = world.outside("cd ../sub && $EXEC -- true").succeeded();
        outcome
            .showed("git does not work inside: ")
            .showed("--share");
    }
}

#[test]
fn the_home_of_the_account_counts_whatever_the_variable_says() {
    if !crate::contained::is_root() {
        eprintln!("NOT TESTED HERE: a HOME that is not the account's: run as root");
        return;
    }
    for world in worlds() {
        if world.user == User::Me {
            let outcome = world.outside("cd ~root && $EXEC -- true");
            assert_eq!(outcome.code, Some(2), "{outcome:#?}");
            outcome.showed("holds your home");
        }
    }
}

#[test]
fn credentials_beside_programs_are_left_out() {
    for world in worlds() {
        for name in [
            ".local/share/uv/credentials/credentials.toml",
            ".dotnet/corefx/cryptography/x509stores/my/a.pfx",
            ".nvm/versions/node/v1/etc/npmrc",
            ".local/share/mise/installs/node/1/etc/npmrc",
            ".local/share/opencode/auth.json",
        ] {
            world.write(name, "hush\n");
        }
        world.write(".nvm/versions/node/v1/bin/node", "program\n");
        world.write(".local/share/opencode/bin/opencode", "program\n");
        std::fs::create_dir_all(world.path(".local/bin")).expect("a folder");
        symlink(
            world.path(".local/share/opencode/bin/opencode"),
            world.path(".local/bin/opencode"),
        )
        .expect("a link");
        world.hand_over();
        let look = "cat ~/.nvm/versions/node/v1/bin/node; \
                    PATH=~/.local/bin:$PATH; cd ~; grep -rl hush . 2>/dev/null; true";
        let control = world.outside(look);
        assert_eq!(control.stdout.lines().count(), 6, "{control:#?}");
        let outcome = world.outside(&format!(
            "PATH=~/.local/bin:$PATH $EXEC -- bash -c '{look}'"
        ));
        assert_eq!(outcome.stdout, "program\n", "{outcome:#?}");
    }
}

#[test]
fn variables_that_name_sockets_outside_are_removed() {
    for world in worlds() {
        let names = [
            "SSH_AUTH_SOCK",
            "TMUX",
            "DBUS_SESSION_BUS_ADDRESS",
            "VSCODE_IPC_HOOK_CLI",
        ];
        let set = names
            .map(|name| format!("{name}=/nowhere/socket"))
            .join(" ");
        let outcome = world
            .outside(&format!("env {set} PLAIN=1 $EXEC -- env"))
            .succeeded();
        assert!(outcome.shows("PLAIN=1"), "{outcome:#?}");
        assert!(!outcome.stdout.contains("/nowhere"), "{outcome:#?}");
        world.write("agent", "");
        let shared = world.path("agent");
        let outcome = world.outside(&format!(
            "SSH_AUTH_SOCK={0} $EXEC --share {0} -- printenv SSH_AUTH_SOCK",
            shared.display()
        ));
        outcome.succeeded().showed(&shared.display().to_string());
    }
}

/// Makes a kernel in which one system call is missing, for a program and all that it starts.
const WITHOUT: &str = "
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
number = {'x86_64': 444, 'aarch64': 444}[os.uname().machine]
def step(code, jt, jf, k):
    return struct.pack('HBBI', code, jt, jf, k)
code = [step(0x20, 0, 0, 0), step(0x15, 0, 1, number), step(6, 0, 0, 0x50000 | 38),
        step(6, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b''.join(code))
class Program(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(len(code), ctypes.cast(text, ctypes.c_void_p))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn a_promise_that_the_kernel_cannot_give_is_named() {
    for world in worlds() {
        world.write("web/without.py", WITHOUT);
        let landlock = "python3 without.py";
        // In a user namespace of the test's own, where no PID namespace may be made.
        let processes = |options: &str| {
            format!(
                "unshare -r bash -c 'echo 0 >/proc/sys/user/max_pid_namespaces || exit 99; \
                 $EXEC {options} -- touch ran'"
            )
        };
        for (name, without, with) in [
            (
                "writes",
                format!("{landlock} $EXEC -- touch ran"),
                format!(
                    "{landlock} $EXEC --allow-missing=writes --allow-missing=signals -- touch ran"
                ),
            ),
            (
                "processes",
                processes(""),
                processes("--allow-missing=processes"),
            ),
        ] {
            let outcome = world.outside(&without);
            if outcome.code == Some(99) {
                eprintln!("NOT TESTED HERE: {name}: {}", outcome.stderr);
                continue;
            }
            assert_eq!(outcome.code, Some(3), "{name}: {outcome:#?}");
            outcome.showed(&format!("--allow-missing={name}"));
            assert!(!world.path("web/ran").exists(), "{name}: it ran");
            let outcome = world.outside(&with).succeeded();
            let first = format!("tidegate: missing: {name}");
            assert!(outcome.stderr.contains(&first), "{outcome:#?}");
            let line = format!("{:?}", world.jail_started());
            assert!(line.contains(name), "{line}");
            std::fs::remove_file(world.path("web/ran")).expect("it ran");
        }
        let outcome = world.outside("$EXEC --allow-missing=network -- true");
        assert_eq!(outcome.code, Some(2), "{outcome:#?}");
        outcome.showed("without `network` there is no jail");
    }
}

/// System calls that reach what no namespace holds: 1 is EPERM.
const CALLS: &str = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == 'x86_64'
calls = {'keyctl': (250, 219), 'add_key': (248, 217), 'request_key': (249, 218), 'bpf': (321, 280),
         'mount': (165, 40), 'setns': (308, 268), 'open_tree': (428, 428), 'fsopen': (430, 430),
         'open_by_handle_at': (304, 265), 'perf_event_open': (298, 241)}
for name, (first, second) in calls.items():
    libc.syscall(first if x86 else second, 0, 0, 0, 0, 0)
    print(name, ctypes.get_errno())
";

#[test]
fn system_calls_that_no_namespace_holds_are_refused() {
    for world in worlds() {
        world.write("web/calls.py", CALLS);
        let outcome = world.with(&[], "python3 calls.py").succeeded();
        assert_eq!(outcome.stdout.lines().count(), 10, "{outcome:#?}");
        let refused = outcome.stdout.lines().all(|line| line.ends_with(" 1"));
        assert!(refused, "{outcome:#?}");
        let control = world.outside("python3 calls.py").succeeded();
        assert!(!control.stdout.contains("keyctl 1\n"), "{control:#?}");
    }
}

#[test]
fn shared_memory_outside_is_not_reachable() {
    for world in worlds() {
        let make = "ipcmk -M 4096 -p 666 | sed 's/.*: //'";
        let id = world.outside(make).succeeded().stdout;
        let look = format!("ipcs -m -i {}", id.trim());
        world.outside(&look).succeeded();
        let inside = world.with(&[], &look);
        assert!(!inside.stdout.contains("bytes="), "{inside:#?}");
        world
            .outside(&format!("ipcrm -m {}", id.trim()))
            .succeeded();
    }
}

#[test]
fn secrets_in_etc_and_settings_with_credentials_are_left_out() {
    for world in worlds() {
        world.write(".npmrc", "//npm.example.com/:_authToken=hush\n");
        world.write(".gitconfig", "[user]\n\tname = Ana\n");
        let outcome = world.with(
            &[],
            "cat ~/.npmrc ~/.gitconfig /etc/shadow /etc/hostname; true",
        );
        assert!(!outcome.shows("hush"), "{outcome:#?}");
        assert!(!outcome.stdout.contains("root:"), "{outcome:#?}");
        outcome.showed("name = Ana");
    }
}

#[test]
fn a_limit_of_file_sizes_does_not_end_the_gate() {
    for world in worlds() {
        world.write("decisions.jsonl", &"{}\n".repeat(2_000));
        let outcome = world.outside("ulimit -f 1; $EXEC -- true; test $? -lt 128 && echo lives");
        assert_eq!(outcome.stdout, "lives\n", "{outcome:#?}");
    }
}

#[test]
fn every_promise_names_its_test_in_the_manual() {
    let manual = include_str!("../../docs/jail.md");
    let tests = [
        include_str!("walls.rs"),
        include_str!("jail.rs"),
        include_str!("contained.rs"),
    ]
    .concat();
    for promise in tidegate::jail::Promise::ALL {
        let row = manual
            .lines()
            .find(|line| line.contains(&format!("| `{promise}` |")))
            .unwrap_or_else(|| panic!("`{promise}` has no row"));
        assert!(row.contains(promise.mechanism()), "{row}");
        assert!(row.contains(promise.requirement()), "{row}");
        let test = row.rsplit('`').nth(1).expect("a test");
        let test = test.rsplit("::").next().expect("a name");
        assert!(tests.contains(&format!("fn {test}()")), "{row}");
    }
}
