//! The adversary: a process that runs as the user who started the gate, inside the jail and beside it.
//!
//! Each class is a Python script of named ways. The script runs twice as the same user: without a jail
//! (the control: every way succeeds, so a broken probe is noticed) and in `exec --jail` (none does).

mod descriptors;
mod doctor;
mod group;
mod identity;
mod kernel;
mod keys;
mod killed;
mod policy;
mod process;
mod records;
mod rows;
mod scene;
mod sockets;
mod tampered;
