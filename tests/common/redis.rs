//! The commands that a Redis server received, and its connections. `servers` starts a server and sends raw
//! commands.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use super::servers::{cli, temp_dir};

/// Records what clients send to a server, without what its scripts do.
pub struct Monitor {
    port: u16,
    process: Child,
    log: PathBuf,
}

impl Monitor {
    const LAST: &str = "the last one";

    pub fn start(port: u16) -> Self {
        let log = temp_dir().join("monitor");
        let process = Command::new("redis-cli")
            .args(["-p", &port.to_string(), "monitor"])
            .stdout(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let monitor = Self { port, process, log };
        monitor.wait_for("OK");
        monitor
    }

    fn wait_for(&self, text: &str) -> String {
        let since = Instant::now();
        loop {
            let seen = fs::read_to_string(&self.log).unwrap();
            if seen.contains(text) {
                return seen;
            }
            assert!(
                since.elapsed() < Duration::from_secs(5),
                "MONITOR shows {text}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the commands, one a line; those of opening a connection are left out.
    pub fn stop(mut self) -> Vec<String> {
        cli(self.port, &["echo", Self::LAST]);
        let seen = self.wait_for(Self::LAST);
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let _ = fs::remove_dir_all(self.log.parent().unwrap());
        let left_out = [Self::LAST, "\"HELLO\"", "\"CLIENT\"", "\"COMMAND\""];
        seen.lines()
            .filter(|line| line.contains("] \"") && !line.contains(" lua] "))
            .filter(|line| !left_out.iter().any(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }
}

/// The ids of the connections to a server, without the one that asks.
pub fn connections(port: u16) -> Vec<String> {
    let list = cli(port, &["client", "list"]);
    let lines = list.lines().filter(|line| !line.contains("cmd=client"));
    lines
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}
