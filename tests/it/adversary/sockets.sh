# Runs the server outside, then the control, then the jailed command. Where it is root, with a /run
# and a /tmp of its own. Its arguments: the user, the world's folder, the jailed command's words.
set -e
user=$1 root=$2
shift 2
as() { "$@"; }
if [ "$(id -u)" = 0 ]; then
    exec 9<"$root"
    mount --make-rprivate /
    mount -t tmpfs none /run
    mount -t tmpfs none /tmp
    chmod 1777 /tmp
    chmod 777 /run
    mkdir -p "$root" "/run/user/$user"
    mount --no-canonicalize --bind /proc/self/fd/9 "$root"
    exec 9<&-
    chown "$user" "/run/user/$user"
    as() { setpriv --reuid "$user" --regid "$user" --clear-groups "$@"; }
fi
cd "$root/home/web"
mkfifo "$root/end"
as python3 "$root/serve.py" "$root/outside.json" "$root/home/listens" <"$root/end" &
server=$!
exec 8>"$root/end"
until [ -e "$root/home/listens" ]; do kill -0 "$server"; sleep 0.05; done
for mode in control jailed; do
    rm -f link.sock hard.sock
    echo "== $mode"
    if [ $mode = control ]; then
        as python3 try.py control.json 8>&-
    else
        # What the control has renamed is in its place again.
        mv renamed.sock "$root/home/to-rename.sock" || true
        as "$@" 8>&-
    fi
done
exec 8>&-
wait "$server"
