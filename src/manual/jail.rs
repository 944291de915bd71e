//! # The jail
//!
//! A command in a jail has one way out, the gate, whether it heeds proxy variables or not.
//! Linux, no root, no container, no packet filter.
//!
//! - It has a user, a network and a mount namespace of its own, with a loopback interface in which
//!   every address is local. What it connects to is accepted by the gate, which knows the address
//!   that was meant, and judges it like a CONNECT (`network.protocol.name` is `captured`). On port
//!   80 it is judged like a plain request, and `Host` must be where the connection was meant to go.
//!   Ports 22, 80, 443 and those that rules name are captured; any other refuses at once.
//! - Its name server resolves nothing, and is whichever one a program asks, over UDP or TCP, IPv4 or
//!   IPv6. A name that the policy could allow gets an address that stands for it (`198.18.0.0/15`,
//!   `100::/64`); any other does not exist, and leaves one record with `network.protocol.name`
//!   `dns`, which names the process that asked first.
//! - A refused client over TLS is sent an alert, over port 80 the usual answer; others are reset.
//! - It has no capability and cannot gain any, no socket but Unix, IPv4, IPv6 and netlink, no
//!   `io_uring`, and cannot type into the terminal. Programs of another architecture are ended.
//! - A refused name or connection is told to the client like any other, and is on record.
//! - It sees neither the records nor the control and admin sockets that the configuration names. The
//!   gate itself is closed to all other processes of its user: no ptrace, memory, variables,
//!   descriptors.
//!
//! It does not contain Unix sockets that lead out (docker, ssh-agent, D-Bus, X11), files that
//! processes outside read, and, when root runs it, what files of root can do outside: run agents as
//! an ordinary user. Processes outside are seen in `/proc` and can be signalled by the same user,
//! but not looked into: that a user namespace keeps. There is no process namespace: tools and
//! records would disagree about process numbers, and nothing gets out by them.
//!
//! Where user namespaces are forbidden there is no jail, and the command is not run: exit code 3.
