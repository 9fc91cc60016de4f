//! Finding a host, as every other program of this machine finds it.

use std::fs;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::process::{Command, Stdio};

/// The addresses of a host name, or the address itself. It blocks.
///
/// A static binary must not let glibc load its look-up modules (`myhostname`, `resolve`,
/// `mdns4_minimal`: on every Ubuntu), or it crashes
/// (<https://sourceware.org/glibc/wiki/FAQ>, "Even statically linked programs need some shared
/// libraries"). Where this machine is set up to use more than the two that are built in, its own
/// `getent` is asked.
/// Errors: in the system's words.
pub fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let mut found: Vec<IpAddr> = if cfg!(target_feature = "crt-static") && needs_modules() {
        getent(host)?
    } else {
        (host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()
    };
    found.dedup();
    if found.is_empty() { Err(io::Error::other("the name is not known")) } else { Ok(found) }
}

/// Whether a URL's host is this one: what goes there meets no network.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Whether `/etc/nsswitch.conf` asks for more than `files` and `dns` (nsswitch.conf(5)).
fn needs_modules() -> bool {
    let file = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let hosts = file.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    let hosts = hosts.unwrap_or_default().split('#').next().unwrap_or_default();
    // Text in brackets is an action, not a module.
    let modules = hosts.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest));
    modules.flat_map(str::split_whitespace).any(|module| module != "files" && module != "dns")
}

fn getent(host: &str) -> io::Result<Vec<IpAddr>> {
    let mut getent = Command::new("/usr/bin/getent");
    getent.args(["ahosts", host]).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let output = getent.output().map_err(|error| {
        io::Error::other(format!(
            "/etc/nsswitch.conf asks for more than files and dns, which this static binary looks \
             up by /usr/bin/getent: {error}; install getent (Debian: libc-bin), or use DB_HOST's \
             address"
        ))
    })?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect())
}
