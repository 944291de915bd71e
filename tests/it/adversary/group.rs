//! The process group: a signal or a priority for it reaches each of its processes, in whatever
//! namespace they are.

use crate::kit::{Outcome, until};

use super::scene::{Scene, User};

/// The nice value of a process.
fn nice(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).ok()?;
    let fields = stat.rsplit_once(')')?.1;
    fields.split_ascii_whitespace().nth(16).map(str::to_owned)
}

/// Runs a Python program, jailed or not, that says `tried` and waits; then reads the gate's nice value.
fn nice_after(scene: &Scene, options: &[&str], program: &str) -> Option<String> {
    let wait = "open('tried', 'w').close()\nwhile not os.path.exists('seen'): time.sleep(0.05)";
    let program = format!("import ctypes, os, signal, time\n{program}\n{wait}");
    let words = scene.exec(options, &["python3", "-c", &program]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let command = scene.program(&words);
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| command.run());
        until("the try", || {
            scene.web("tried").exists() || ran.is_finished()
        });
        let pid = std::fs::read_to_string(scene.web("gate.pid")).unwrap_or_default();
        let found = nice(&pid);
        std::fs::write(scene.web("seen"), "").expect("a file");
        ran.join().expect("a command");
        found
    })
}

#[test]
fn a_jailed_command_does_not_lower_the_priority_of_the_gate_by_its_group() {
    let way = "try: os.setpriority(os.PRIO_PGRP, 0, 19)\nexcept OSError: pass";
    for user in User::all() {
        let (control, tried) = (Scene::new(user), Scene::new(user));
        if !control.can() {
            continue;
        }
        let outside = nice_after(&control, &[], way);
        assert_eq!(outside.as_deref(), Some("19"), "{user:?}: the control");
        let inside = nice_after(&tried, &["--jail"], way);
        assert_eq!(inside, nice("self"), "{user:?}: the gate is slower");
    }
}

/// Runs a program that sends a signal to its group; whether the gate came to its own end.
fn survives(scene: &Scene, options: &[&str], signal: &str) -> (bool, Outcome) {
    let program = format!("import os, signal\nos.kill(0, signal.{signal})");
    // Asks for something first, so that the gate has a summary to print.
    let url = format!("http://{}:{}/", super::scene::REFUSED, scene.origin.port());
    let script = format!("curl -s -m 20 -o /dev/null {url}; python3 -c '{program}'; exit 5");
    let words = scene.exec(options, &["sh", "-c", &script]);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = scene.program(&words).run();
    (outcome.stderr.contains("tidegate: records in "), outcome)
}

#[test]
fn a_jailed_command_does_not_end_the_gate_by_its_group() {
    for user in User::all() {
        for signal in ["SIGKILL", "SIGXFSZ", "SIGALRM"] {
            let (control, tried) = (Scene::new(user), Scene::new(user));
            if !control.can() {
                continue;
            }
            if signal == "SIGKILL" {
                let (survived, outcome) = survives(&control, &[], signal);
                assert!(!survived, "{user:?}: the control of {signal}: {outcome:#?}");
            }
            let (survived, outcome) = survives(&tried, &["--jail"], signal);
            assert!(survived, "{user:?}: {signal} ended the gate: {outcome:#?}");
        }
    }
}
