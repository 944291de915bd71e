//! A real Squid on loopback that asks for a password.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{need, until};

/// A running Squid; it ends with the test.
#[derive(Debug)]
pub(crate) struct Squid {
    folder: TempDir,
    address: SocketAddr,
    child: Child,
}

impl Squid {
    /// Who may use it, and with what.
    pub(crate) const USER: &'static str = "ana:hunter2";

    /// Starts one that knows these names as loopback.
    pub(crate) fn start(names: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = free.local_addr().expect("an address");
        drop(free);
        let path = folder.path();
        // It gives up root, where it has it, and writes its logs as another user.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("a mode");
        let hosts: Vec<_> = names.iter().map(|it| format!("127.0.0.1 {it}\n")).collect();
        std::fs::write(path.join("hosts"), hosts.concat()).expect("a file");
        std::fs::write(path.join("passwd"), hashed(path)).expect("a file");
        std::fs::write(path.join("squid.conf"), config(path, address)).expect("a file");
        let child = Command::new(need("squid"))
            .args(["-N", "-f"])
            .arg(path.join("squid.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("squid");
        let squid = Self {
            folder,
            address,
            child,
        };
        until("squid", || TcpStream::connect(address).is_ok());
        squid
    }

    /// As a parent is written.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it says that it did.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("access.log")).unwrap_or_default()
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn hashed(folder: &Path) -> String {
    let (user, password) = Squid::USER.split_once(':').expect("both");
    let hash = super::Program::new("openssl", folder)
        .args(["passwd", "-apr1", "-salt", "saltsalt", password])
        .run()
        .succeeded();
    format!("{user}:{}\n", hash.stdout.trim())
}

fn config(folder: &Path, address: SocketAddr) -> String {
    let at = folder.display();
    let helper = ["/usr/lib/squid", "/usr/lib64/squid", "/usr/libexec/squid"]
        .iter()
        .map(|folder| format!("{folder}/basic_ncsa_auth"))
        .find(|path| Path::new(path).is_file())
        .expect("basic_ncsa_auth, which comes with squid");
    format!(
        "http_port {address}
visible_hostname squid.example
auth_param basic program {helper} {at}/passwd
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
hosts_file {at}/hosts
dns_nameservers 127.0.0.1
cache deny all
cache_mem 8 MB
access_log stdio:{at}/access.log
cache_log {at}/cache.log
coredump_dir {at}
pid_filename none
netdb_filename none
pinger_enable off
max_filedescriptors 1024
shutdown_lifetime 0 seconds
"
    )
}
