//! Servers of a test's own, which it may break, and which end with it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test binaries; each uses a part of it"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio, id},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

pub fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli")
        .args(["-h", "127.0.0.1", "-p", &port.to_string()])
        .args(args)
        .output()
        .expect("redis-cli runs");
    // What DUMP answers is no text.
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub fn temp_dir() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("session-manager-{}-{number}", id()));
    fs::create_dir_all(&dir).unwrap();
    dir
}

pub fn signal(pid: u32, signal: &str) {
    assert!(try_signal(pid, signal), "kill -{signal} {pid}");
}

fn try_signal(pid: u32, signal: &str) -> bool {
    let mut kill = Command::new("kill");
    let kill = kill.args([&format!("-{signal}"), &pid.to_string()]);
    kill.stderr(Stdio::null()).status().unwrap().success()
}

/// The kernel's own list of them leaves some out while others end.
fn children(parent: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let (_, behind_name) = stat.rsplit_once(") ").unwrap_or_default();
        behind_name.split(' ').nth(1) == Some(&parent.to_string())
    };
    pids.filter(is_child).collect()
}

pub struct Redis {
    process: Child,
    pub port: u16,
    dir: PathBuf,
    options: Vec<String>,
}

impl Redis {
    pub fn start(options: &[&str]) -> Self {
        let (port, dir) = (free_port(), temp_dir());
        let options: Vec<_> = options.iter().map(|&option| option.into()).collect();
        let process = Self::spawn(port, &dir, &options);
        let server = Self {
            process,
            port,
            dir,
            options,
        };
        server.wait();
        server
    }

    fn spawn(port: u16, dir: &Path, options: &[String]) -> Child {
        Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &port.to_string(),
                "--save",
                "",
            ])
            .arg("--dir")
            .arg(dir)
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts")
    }

    /// Until it answers, be it with an error.
    fn wait(&self) {
        let since = Instant::now();
        while !["PONG", "NOAUTH Authentication required."].contains(&&*cli(self.port, &["ping"])) {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "redis-server answers"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as an operator does.
    pub fn stop(&mut self) {
        self.signal("TERM");
        self.process.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.process = Self::spawn(self.port, &self.dir, &self.options);
        self.wait();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn port_of(url: &str) -> u16 {
    let port = url.rsplit(':').next().unwrap();
    port.split(['/', ',']).next().unwrap().parse().unwrap()
}

pub fn ports_of(url: &str) -> Vec<u16> {
    url.split("://")
        .nth(1)
        .unwrap()
        .split(',')
        .map(port_of)
        .collect()
}

/// Servers that `tests/services/redis.sh` starts for one test alone. They end when their standard
/// input does, however this process ends.
pub struct Servers {
    bash: Child,
    input: Option<ChildStdin>,
    dir: PathBuf,
    pub url: String,
}

impl Servers {
    fn start(function: &str, variable: &str) -> Self {
        let dir = temp_dir();
        let script = format!(
            "set -euo pipefail; source tests/services/redis.sh; service_pids=()
             trap 'kill -KILL \"${{service_pids[@]}}\" 2>/dev/null' EXIT
             {function} {0}; echo \"${variable}\"
             while read -r port options; do redis_server \"$port\" {0}/redis $options; done",
            dir.display()
        );
        let mut bash = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let mut output = BufReader::new(bash.stdout.take().unwrap());
        output.read_line(&mut url).unwrap();
        assert!(!url.is_empty(), "{function} starts");
        Self {
            input: bash.stdin.take(),
            bash,
            dir,
            url: url.trim().to_owned(),
        }
    }

    pub fn cluster() -> Self {
        Self::start("start_redis_cluster", "SESSION_TEST_REDIS_CLUSTER")
    }

    /// Servers that keep what they answered when they are killed, and that are not failed over by
    /// themselves: a replica may lack the last writes then.
    pub fn durable_cluster() -> Self {
        Self::start(
            "export REDIS_DURABLE=yes; start_redis_cluster",
            "SESSION_TEST_REDIS_CLUSTER",
        )
    }

    /// As [`durable_cluster`](Self::durable_cluster).
    pub fn durable_sentinel() -> Self {
        Self::start(
            "export REDIS_DURABLE=yes; start_redis_sentinel",
            "SESSION_TEST_REDIS_SENTINEL",
        )
    }

    /// The ports of all of them, Sentinels too.
    pub fn ports(&self) -> Vec<u16> {
        let dirs = fs::read_dir(self.dir.join("redis")).unwrap();
        let ports = dirs.filter_map(|dir| dir.unwrap().file_name().to_str()?.parse().ok());
        ports.collect()
    }

    /// How many connections to them this process has.
    pub fn connections(&self) -> usize {
        let own = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let own: Vec<_> = own
            .filter_map(|file| fs::read_link(file.path()).ok())
            .collect();
        let ports: Vec<_> = self
            .ports()
            .iter()
            .map(|port| format!(":{port:04X}"))
            .collect();
        let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
        let is_ours = |socket: &&str| {
            let columns: Vec<_> = socket.split_whitespace().collect();
            ports.iter().any(|port| columns[2].ends_with(port))
                && own.contains(&format!("socket:[{}]", columns[9]).into())
        };
        sockets.lines().skip(1).filter(is_ours).count()
    }

    /// The ports of the servers that are masters now.
    pub fn masters(&self) -> Vec<u16> {
        let first = ports_of(&self.url)[0];
        if self.url.contains("+sentinel") {
            let master = ["sentinel", "get-master-addr-by-name", "session"];
            let address = cli(first, &master);
            return vec![address.lines().nth(1).unwrap().parse().unwrap()];
        }
        let nodes = cli(first, &["cluster", "nodes"]);
        let masters = nodes.lines().filter(|node| node.contains("master"));
        let ports = masters.map(|node| {
            let address = node.split(' ').nth(1).unwrap();
            port_of(address.split('@').next().unwrap())
        });
        ports.collect()
    }

    /// Makes the replica of the master at `port` the master, without losing a write.
    pub fn fail_over(&self, port: u16) {
        let until = |what: &str, is_so: &dyn Fn() -> bool| {
            let since = Instant::now();
            while !is_so() {
                assert!(since.elapsed() < Duration::from_secs(20), "{port}: {what}");
                thread::sleep(Duration::from_millis(10));
            }
        };
        let replica = || -> Option<u16> {
            let info = cli(port, &["info", "replication"]);
            let (_, replica) = info.split_once("slave0:")?;
            let (port, rest) = replica.split_once("port=")?.1.split_once(',')?;
            rest.starts_with("state=online")
                .then(|| port.parse().unwrap())
        };
        until("a replica follows", &|| replica().is_some());
        let replica = replica().unwrap();
        if self.url.contains("+sentinel") {
            // Sentinels do not wait for the replica, so that writes wait until it has them all.
            cli(port, &["client", "pause", "20000", "write"]);
            assert_eq!(cli(port, &["wait", "1", "5000"]), "1");
            let sentinel = ports_of(&self.url)[0];
            let failover = || cli(sentinel, &["sentinel", "failover", "session"]) == "OK";
            until("a Sentinel finds the replica good", &failover);
            until("there is another", &|| self.masters() != [port]);
            // As the Sentinels do, some seconds later.
            cli(port, &["replicaof", "127.0.0.1", &replica.to_string()]);
            cli(port, &["client", "unpause"]);
        } else {
            assert_eq!(cli(replica, &["cluster", "failover"]), "OK");
            until("there is another", &|| !self.masters().contains(&port));
        }
        let follows = || cli(port, &["role"]).contains("\nconnected\n");
        until("it follows its replica", &follows);
    }

    /// Kills the master at `port`, and starts it again after `span` with the options it had.
    pub fn kill_for(&self, port: u16, span: Duration) {
        let pid = pid_of(port);
        // Read by the loop in `start`, whose arguments they are.
        let again = fs::read_to_string(self.dir.join(format!("redis/{port}/options"))).unwrap();
        // It may have been a replica when it began.
        let again = again
            .trim()
            .split(" --replicaof ")
            .next()
            .unwrap()
            .to_owned();
        signal(pid, "KILL");
        thread::sleep(span);
        let mut input = self.input.as_ref().unwrap();
        writeln!(input, "{again}").unwrap();
        let since = Instant::now();
        while cli(port, &["ping"]) != "PONG" {
            assert!(since.elapsed() < Duration::from_secs(20), "{port} is back");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn sentinel() -> Self {
        Self::start("start_redis_sentinel", "SESSION_TEST_REDIS_SENTINEL")
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.bash.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

pub fn pid_of(port: u16) -> u32 {
    let info = cli(port, &["info", "server"]);
    let line = info.lines().find(|line| line.starts_with("process_id:"));
    line.unwrap()["process_id:".len()..].trim().parse().unwrap()
}

/// Runs a command that knows the functions of `tests/services/sql.sh`; its first argument is the
/// folder of a server.
fn sql_bash(dir: &Path, command: &str) -> String {
    let command = format!(". tests/services/sql.sh; {command}");
    let mut bash = Command::new("bash");
    let output = bash
        .args(["-c", &command, "bash"])
        .arg(dir)
        .output()
        .unwrap();
    let (out, err) = (output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}: {err}");
    String::from_utf8(out).unwrap().trim().to_owned()
}

/// A PostgreSQL that `tests/services/sql.sh` starts.
pub struct Postgres {
    dir: PathBuf,
    pub url: String,
}

impl Postgres {
    pub fn start() -> Self {
        let mut server = Self {
            dir: temp_dir(),
            url: String::new(),
        };
        server.url = server.bash("start_postgres \"$1\" && echo \"$SESSION_TEST_POSTGRES\"");
        server
    }

    /// As it is delivered: what it has answered is on the disk.
    pub fn start_durable() -> Self {
        let server = Self::start();
        server.bash(
            "printf 'fsync = on\\nfull_page_writes = on\\n' >>\"$1/postgres/data/postgresql.conf\"
             restart_postgres \"$1\"",
        );
        server
    }

    pub fn bash(&self, command: &str) -> String {
        sql_bash(&self.dir, command)
    }

    pub fn restart(&self) {
        self.bash("restart_postgres \"$1\"");
    }

    pub fn stop(&self) {
        self.bash("stop_postgres \"$1\"");
    }

    /// Starts it where it was stopped or killed; what was killed may take a moment to be gone.
    pub fn begin(&self) {
        self.bash(
            "for _ in {1..50}; do control_postgres start \"$1\" && exit; sleep 0.1; done
             tail \"$1/postgres/log\" >&2; exit 1",
        );
    }

    /// Restarts it with TLS.
    pub fn start_tls(&self, certificates: &Certificates) {
        let (cert, key) = (certificates.path("cert"), certificates.path("key"));
        self.bash(&format!(
            "data=$1/postgres/data
             install -m 600 {cert} $data/server.crt && install -m 600 {key} $data/server.key
             chown --reference=$data $data/server.*
             echo 'ssl = on' >>$data/postgresql.conf && restart_postgres $1"
        ));
    }

    /// To the server and all of its children, of which each serves one connection.
    pub fn signal(&self, name: &str) {
        let pid = fs::read_to_string(self.dir.join("postgres/data/postmaster.pid")).unwrap();
        let pid: u32 = pid.lines().next().unwrap().parse().unwrap();
        // So that it starts no other meanwhile.
        signal(pid, "STOP");
        for child in children(pid) {
            // It may have ended by itself.
            try_signal(child, name);
        }
        signal(pid, name);
    }

    pub fn kill(&self) {
        self.signal("KILL");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.bash("stop_postgres \"$1\" || true");
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A MariaDB that `tests/services/sql.sh` starts.
pub struct MariaDb {
    dir: PathBuf,
    /// Of a user with all rights.
    pub url: String,
}

impl MariaDb {
    pub fn start() -> Self {
        let mut server = Self {
            dir: temp_dir(),
            url: String::new(),
        };
        server.url = server.bash("start_mariadb \"$1\" && echo \"$SESSION_TEST_MYSQL\"");
        server
    }

    /// The url of a user that may write sessions and nothing else.
    pub fn app_url(&self) -> String {
        self.url.replace("//test:", "//app:")
    }

    pub fn bash(&self, command: &str) -> String {
        sql_bash(&self.dir, command)
    }

    /// Runs statements as the user with all rights; returns what they select.
    pub fn query(&self, sql: &str) -> String {
        let script = format!(
            "mariadb --no-defaults --host=127.0.0.1 --port=\"$(cat \"$1/mariadb/port\")\" \
             --user=test --password=secret-of-the-tests --skip-column-names --batch \
             --execute='{sql}' sessions"
        );
        self.bash(&script)
    }

    fn pid(&self) -> u32 {
        let pid = fs::read_to_string(self.dir.join("mariadb/pid")).unwrap();
        pid.trim().parse().unwrap()
    }

    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Ends it as an operator does.
    pub fn stop(&self) {
        self.end("TERM");
    }

    pub fn kill(&self) {
        self.end("KILL");
    }

    pub fn restart(&self) {
        self.stop();
        self.begin();
    }

    /// Restarts it with TLS.
    pub fn start_tls(&self, certificates: &Certificates) {
        let (cert, key) = (certificates.path("cert"), certificates.path("key"));
        self.bash(&format!(
            "dir=$1/mariadb
             install -m 600 {cert} $dir/cert && install -m 600 {key} $dir/key
             chown --reference=$dir $dir/cert $dir/key
             printf '%s\\n' --ssl-cert=$dir/cert --ssl-key=$dir/key >$dir/options"
        ));
        self.restart();
    }

    fn end(&self, by: &str) {
        let pid = self.pid();
        signal(pid, by);
        let since = Instant::now();
        while fs::exists(format!("/proc/{pid}")).unwrap() && !is_zombie(pid) {
            assert!(since.elapsed() < Duration::from_secs(20), "MariaDB ends");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn begin(&self) {
        self.bash("begin_mariadb \"$1\"");
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.bash("kill -KILL \"$(cat \"$1/mariadb/pid\")\" || true");
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether a process has ended and its parent has not read how.
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains(") Z ")
}

/// A certificate authority of the test's own, and the certificate of a server at 127.0.0.1.
pub struct Certificates(PathBuf);

impl Certificates {
    pub fn make() -> Self {
        let dir = temp_dir();
        let made = Command::new("bash")
            .current_dir(&dir)
            .args(["-euc", "
                openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=$(basename $PWD)
                openssl req -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=server
                openssl x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert -days 2 \
                    -extfile <(echo subjectAltName=IP:127.0.0.1)"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{said}");
        Self(dir)
    }

    /// The path of `ca.pem`, `cert` or `key`.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How much memory this process has, in kB; 0 where the system has no `/proc`.
pub fn resident() -> u64 {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return 0;
    };
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let mut words = line.unwrap().split_whitespace();
    words.nth(1).unwrap().parse().unwrap()
}
