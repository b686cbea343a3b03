//! `waxseal health`: whether the gateway that uses this configuration is alive, for a container's health check. Sends no
//! mail and connects to no provider.

use super::queue::{print, print_json};
use super::{PROBLEM_FOUND, complain, queue_location, small_runtime};
use crate::admin::{AdminOptions, HealthReport};
use crate::config::{self, ConfigFile, Environment};
use crate::control::{self, ControlRequest, ControlResponse, GatewayStatus};
use clap::Args;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::time::timeout;

/// Docker's default for a health check is thirty seconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of an answer that are read.
const LONGEST_ANSWER: u64 = 64 * 1024;

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Also ask whether mail can come in and go out: the storage, the listeners, the upstreams
    #[arg(long)]
    ready: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
In a Dockerfile: HEALTHCHECK CMD [\"waxseal\", \"health\"]

Without --ready a provider that is away does not count: a restart of the gateway would not bring it back.

Exit status: 0 healthy, 1 not healthy, or no gateway runs, 2 wrong usage or configuration.";

pub fn run(config: &ConfigFile<'_>, args: &HealthArgs) -> anyhow::Result<ExitCode> {
    let location = match queue_location(config) {
        Ok(location) => location,
        Err(status) => return Ok(status),
    };
    let runtime = small_runtime()?;
    let status = match runtime.block_on(ask_socket(&location.data_dir)) {
        Ok(status) => status,
        // Some file systems have no sockets.
        Err(unreachable) => return ask_address(config, args, &unreachable),
    };
    let report = if args.ready { HealthReport::ready(&status) } else { HealthReport::alive(&status) };
    if args.json {
        print_json(&report)?;
    } else {
        print(format!("{report}\n"))?;
    }
    Ok(if report.ok { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

async fn ask_socket(data_dir: &Path) -> io::Result<GatewayStatus> {
    let asked = timeout(PATIENCE, control::ask(data_dir, &ControlRequest::Status)).await;
    match asked.map_err(|_late| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))?? {
        Ok(ControlResponse::Status(status)) => Ok(*status),
        Ok(ControlResponse::Refused(refusal)) | Err(refusal) => Err(io::Error::other(refusal)),
        Ok(_) => Err(io::Error::other("the answer is not one to the question")),
    }
}

/// /healthz or /readyz, if `[admin]` is on.
fn ask_address(config: &ConfigFile<'_>, args: &HealthArgs, unreachable: &io::Error) -> anyhow::Result<ExitCode> {
    let admin = config::load(config, &Environment::of_process()).ok().and_then(|settings| settings.admin);
    let answer = match admin {
        Some(admin) => request(&admin.options, if args.ready { "/readyz" } else { "/healthz" }),
        None => Err(io::Error::other("[admin] is off")),
    };
    match answer {
        Ok((code, body)) => {
            print(format!("{}\n", body.trim_end()))?;
            Ok(if code == 200 { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
        }
        Err(error) => {
            complain(format_args!(
                "no gateway answers: its control socket: {unreachable}; its [admin] address: {error}"
            ));
            Ok(ExitCode::from(PROBLEM_FOUND))
        }
    }
}

/// The status code and the body.
fn request(options: &AdminOptions, path: &str) -> io::Result<(u16, String)> {
    let address = reachable(options.address);
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let token = options.token.as_ref();
    let token = token.map(|token| format!("Authorization: Bearer {}\r\n", token.reveal())).unwrap_or_default();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}Connection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(LONGEST_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))?;
    Ok((code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

/// A wildcard address is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}
