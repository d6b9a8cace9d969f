//! Programs that a test starts, and that end with it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
};

/// A child process that ends with its owner.
pub(crate) struct Process {
    child: Child,
    // Kept open: a program that writes to a closed pipe is killed.
    _stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts a program and reads what it prints until `find` finds something there.
    pub(crate) fn start(
        command: &mut Command,
        find: impl Fn(&str) -> Option<String>,
    ) -> (Self, String) {
        let name = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {name:?}: {error}"));
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut this = Self {
            child,
            _stdout: stdout,
        };
        loop {
            let mut line = String::new();
            if this._stdout.read_line(&mut line).unwrap() == 0 {
                panic!("{name:?} ended before it was ready: start it by hand to see why");
            }
            if let Some(found) = find(line.trim_end()) {
                return (this, found);
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
