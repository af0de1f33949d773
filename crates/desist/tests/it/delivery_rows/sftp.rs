//! Files on a server of OpenSSH.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use super::*;
use crate::support::until;

pub(super) const SERVER: &str = "exec /usr/lib/openssh/sftp-server";

/// A server of OpenSSH of the test's own; it ends when dropped.
pub(super) struct Ssh {
    directory: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
    has_password: bool,
}

fn ran(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

impl Ssh {
    /// With a program that serves files; `ssh.path("in")` is where they go.
    pub(super) fn start(server: &str) -> Self {
        Self::start_with(server, None)
    }

    /// With a password of this user for this server alone, which takes root's rights.
    fn start_with(server: &str, password: Option<&str>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut ssh = Self { directory, port: free_port(), child: None, has_password: password.is_some() };
        for name in ["host", "other", "user"] {
            ran(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(ssh.path(name)));
        }
        ran(Command::new("ssh-keygen").args(["-q", "-t", "ecdsa", "-N", "", "-f"]).arg(ssh.path("host-ecdsa")));
        std::fs::create_dir(ssh.path("in")).expect("a directory");
        std::fs::write(ssh.path("server"), format!("#!/bin/sh\n{server}\n")).expect("a file");
        ran(Command::new("chmod").arg("755").arg(ssh.path("server")));
        // What it drops its rights into, where it is started by root.
        let _ = std::fs::create_dir("/run/sshd");
        let at = |name: &str| ssh.path(name).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
             PermitRootLogin yes\nKbdInteractiveAuthentication no\nSubsystem sftp {}\n",
            ssh.port,
            at("host"),
            at("host-ecdsa"),
            at("user.pub"),
            at("server")
        );
        std::fs::write(ssh.path("sshd_config"), config).expect("a file");
        if let Some(password) = password {
            let hash = ran(Command::new("openssl").args(["passwd", "-6", password]));
            std::fs::write(ssh.path("shadow"), format!("root:{hash}:19000:0:99999:7:::\n")).expect("a file");
            ran(Command::new("chmod").arg("600").arg(ssh.path("shadow")));
        }
        ssh.up();
        ssh
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    pub(super) fn up(&mut self) {
        let mut command = Command::new(if self.has_password { "unshare" } else { "/usr/sbin/sshd" });
        if self.has_password {
            // It sees another file of passwords than the rest of the machine.
            let script = "mount --bind \"$0\" /etc/shadow && exec /usr/sbin/sshd \"$@\"";
            command.args(["-m", "sh", "-c", script]).arg(self.path("shadow"));
        }
        command.args(["-D", "-e", "-f"]).arg(self.path("sshd_config")).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("sshd is missing; run scripts/test"));
        until("sshd listens", || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok());
    }

    /// Ends the server, and the sessions that it has.
    pub(super) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            let children = Command::new("pgrep").args(["-P", &child.id().to_string()]).output().expect("pgrep runs").stdout;
            let _ = child.kill();
            let _ = child.wait();
            for session in String::from_utf8_lossy(&children).lines() {
                let _ = Command::new("kill").args(["-KILL", session]).status();
            }
        }
    }

    /// How many connections it has.
    fn sessions(&self) -> usize {
        let listener = self.child.as_ref().expect("it runs").id().to_string();
        let output = Command::new("pgrep").args(["-P", &listener]).output().expect("pgrep runs").stdout;
        String::from_utf8_lossy(&output).lines().count()
    }

    pub(super) fn settings(&self, more: &Value) -> Value {
        let mut settings = json!({
            "host": "localhost",
            "port": self.port,
            "host_key": self.read("host.pub").trim(),
            "username": ran(Command::new("id").arg("-un")),
            "private_key": { "secret": self.read("user") },
            "directory": self.path("in").to_string_lossy(),
        });
        settings.as_object_mut().expect("a table").extend(more.as_object().expect("a table").clone());
        settings.as_object_mut().expect("a table").retain(|_, value| !value.is_null());
        settings
    }

    fn open(&self, more: &Value, options: Options) -> Rows {
        Rows::open(instance("sftp-drop", &self.settings(more)), options).expect("it opens")
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        self.down();
    }
}

#[test]
fn files_arrive_by_sftp_through_restarts() {
    let mut ssh = Ssh::start(SERVER);
    let rows = ssh.open(&json!({}), options(true));
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    let many: Vec<_> = (1..=3000).map(|number| opt_out(number, number, &format!("p{number}@example.org"))).collect();
    assert_eq!(reports(&send(&rows, &many)), reached(Level::Accepted, 1..=3000), "{:?}", rows.problem());
    assert_eq!(state(&ssh.path("in")).len(), 3000);
    ssh.down();
    assert_failed(&send(&rows, &rosa), Failure::Connect, rows.problem(), "connection");
    ssh.up();
    assert_eq!(reports(&send(&rows, &rosa)), reached(Level::Accepted, [1]));
    let rows = ssh.open(&json!({ "host_key": ssh.read("host-ecdsa.pub").trim() }), options(true));
    assert_eq!(reports(&send(&rows, &rosa)), reached(Level::Accepted, [1]), "{:?}", rows.problem());
    assert_eq!(start(&*rows.transport(), Errand::Probe, WITHIN).outcome, Outcome::Ok(Level::Accepted), "{:?}", rows.problem());
    let received = received(&ssh.path("in"));
    assert_eq!(received.len(), 3);
    assert_eq!(state(&ssh.path("in"))[&hex("rosa@example.org")], (10, "opt_out".to_owned()));
    assert_eq!(std::fs::read_dir(ssh.path("in")).expect("a directory").count(), 6, "nothing else is left");
}

#[test]
fn a_server_that_is_another_or_refuses_is_told_nothing() {
    let ssh = Ssh::start(SERVER);
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    let other = ssh.open(&json!({ "host_key": ssh.read("other.pub").trim() }), options(true));
    assert_failed(&send(&other, &rosa), Failure::Connect, other.problem(), "another key");
    let stranger = ssh.open(&json!({ "private_key": { "secret": ssh.read("other") } }), options(true));
    assert_failed(&send(&stranger, &rosa), Failure::Credentials, stranger.problem(), "does not accept");
    let password = ssh.open(&json!({ "private_key": null, "password": { "secret": "wrong" } }), options(true));
    assert_failed(&send(&password, &rosa), Failure::Credentials, password.problem(), "does not accept");
    let missing = ssh.open(&json!({ "directory": ssh.path("missing").to_string_lossy() }), options(true));
    assert_failed(&send(&missing, &rosa), Failure::Server, missing.problem(), "not there");
    let both = ssh.settings(&json!({ "password": { "secret": "wrong" } }));
    assert!(Rows::open(instance("sftp-drop", &both), options(true)).is_err());
    // The twin of the first that may not call this machine.
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("it can");
    let port = socket.local_addr().expect("an address").port();
    for host in ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        let private = ssh.open(&json!({ "host": host, "port": port }), options(false));
        assert_failed(&send(&private, &rosa), Failure::Connect, private.problem(), "private");
        assert!(socket.accept().is_err(), "{host}: nobody called");
    }
    let metadata = ssh.open(&json!({ "host": "169.254.169.254" }), options(true));
    assert_failed(&send(&metadata, &rosa), Failure::Connect, metadata.problem(), "private");
    let loopback = ssh.open(&json!({ "port": port }), options(true));
    start(&*loopback.transport(), Errand::Probe, Duration::from_secs(1));
    assert!(socket.accept().is_ok(), "who may, does");
    assert!(!has_half_a_file(&ssh.path("in")));
}

#[test]
fn a_password_is_taken_by_the_server_that_knows_it() {
    let id = ran(Command::new("id").arg("-u"));
    if id != "0" {
        eprintln!("not root: no server can be given a password, so only a wrong one is tried, in the test above");
        return;
    }
    let ssh = Ssh::start_with(SERVER, Some("s3cret pass"));
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    let open = |password: &str| ssh.open(&json!({ "private_key": null, "password": { "secret": password } }), options(true));
    let right = open("s3cret pass");
    assert_eq!(reports(&send(&right, &rosa)), reached(Level::Accepted, [1]), "{:?}", right.problem());
    let wrong = open("s3cret pas");
    assert_failed(&send(&wrong, &rosa), Failure::Credentials, wrong.problem(), "does not accept");
    assert!(!wrong.problem().expect("a problem").contains("s3cret"), "no secret is said");
    assert_eq!(received(&ssh.path("in")).len(), 1);
}

#[test]
fn no_connection_is_left_behind() {
    let ssh = Ssh::start(SERVER);
    let rosa = [opt_out(1, 10, "rosa@example.org")];
    let rows = ssh.open(&json!({}), options(true));
    let missing = ssh.open(&json!({ "directory": ssh.path("missing").to_string_lossy() }), options(true));
    for _ in 0..3 {
        assert_eq!(reports(&send(&rows, &rosa)), reached(Level::Accepted, [1]), "{:?}", rows.problem());
        assert_failed(&send(&missing, &rosa), Failure::Server, missing.problem(), "not there");
    }
    until("what failed is closed", || ssh.sessions() == 1);
    drop(rows);
    until("what is not needed is closed", || ssh.sessions() == 0);
}

#[test]
fn a_server_that_dies_while_it_writes_shows_no_half_file() {
    let many: Vec<_> = (1..=1000).map(|number| opt_out(number, number, &format!("p{number}@example.org"))).collect();
    // It ends in the middle of the file; or it goes on, and its disk takes no more.
    let ends = "stdbuf -o0 head -c 40000 | /usr/lib/openssh/sftp-server";
    let full = format!("trap '' XFSZ; ulimit -f 64; {SERVER}");
    for (server, failure, says, left_behind) in
        [(ends, Failure::Connect, "connection was lost", 1), (&full, Failure::Server, "failed to write", 0)]
    {
        let ssh = Ssh::start(server);
        let rows = ssh.open(&json!({}), options(true));
        assert_failed(&send(&rows, &many), failure, rows.problem(), says);
        assert!(!has_half_a_file(&ssh.path("in")));
        assert_eq!(std::fs::read_dir(ssh.path("in")).expect("a directory").count(), left_behind, "what was begun");
        assert_eq!(reports(&send(&rows, &[opt_out(1, 1, "rosa@example.org")])), reached(Level::Accepted, [1]));
        assert_eq!(received(&ssh.path("in")).len(), 1);
    }
}
