//! What `waxseal init` has to know: from flags, else asked for, else the default. Which login a provider wants is read from
//! its preset. Reads standard input for a password, and nothing else; writes nothing.

use super::InitArgs;
use super::applications::{self, Application};
use super::interview::{AskedFor, Interview};
use crate::config::flags;
use crate::dkim::Selector;
use crate::observe::Secret;
use crate::relay::provider::{self, Host, Login, Preset};
use crate::smtp::Domain;
use anyhow::{Context as _, bail};
use ipnet::IpNet;
use std::io::BufRead as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};

const PORT: u16 = 2525;
const PASSWORD_FLAGS: &str = "--password-file FILE (or --password-env VARIABLE)";

#[derive(Debug)]
pub struct Answers {
    pub upstream: UpstreamAnswers,
    /// Each once; at least one.
    pub domains: Vec<Domain>,
    pub selector: Selector,
    pub hostname: String,
    pub listen: Vec<SocketAddr>,
    /// Empty: this machine alone.
    pub allow: Vec<IpNet>,
    pub application: &'static Application,
    /// As `config.toml` has it; `None`: the default.
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug)]
pub struct UpstreamAnswers {
    pub preset: &'static Preset,
    pub region: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    pub ca: Option<PathBuf>,
    pub username: Option<String>,
    pub password: Option<SecretAnswer>,
    pub secret_key: Option<SecretAnswer>,
}

/// Paths are as `config.toml` has them.
#[derive(Debug)]
pub enum SecretAnswer {
    Variable(String),
    File(PathBuf),
    /// To be kept in a file of its own.
    Typed(Secret),
}

impl Answers {
    /// `folder`: that of the configuration file.
    pub fn of(args: InitArgs, folder: &Path, mut interview: Interview<'_>) -> anyhow::Result<Self> {
        let upstream = UpstreamAnswers::of(&args, folder, &mut interview)?;
        let domains = domains(&args, &mut interview)?;
        let hostname = hostname(&args, domains.as_deref(), &mut interview)?;
        let application = application(&args, &mut interview)?;
        let (listen, allow) = listeners(&args, application.map_or("the application", |it| it.title), &mut interview)?;
        let is_below_etc = std::path::absolute(folder).is_ok_and(|folder| folder.starts_with("/etc"));
        let data_dir = match &args.data_dir {
            Some(path) => Some(as_configured(path, folder)?),
            None => is_below_etc.then(|| PathBuf::from("/var/lib/waxseal")),
        };
        interview.end()?;
        let (Some(upstream), Some(domains), Some(hostname), Some(application)) =
            (upstream, domains, hostname, application)
        else {
            bail!("an answer is missing");
        };
        Ok(Self { upstream, domains, selector: args.selector, hostname, listen, allow, application, data_dir })
    }
}

/// The configuration's relative paths start at its own folder, those of arguments at the current one.
pub fn as_configured(path: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).with_context(|| format!("{} is not a path", path.display()));
    let (path, folder) = (absolute(path)?, absolute(folder)?);
    // "../x" below the folder is not in it.
    let inside = |rest: &&Path| rest.components().all(|part| matches!(part, Component::Normal(_)));
    Ok(path.strip_prefix(&folder).ok().filter(inside).unwrap_or(&path).to_owned())
}

impl UpstreamAnswers {
    fn of(args: &InitArgs, folder: &Path, interview: &mut Interview<'_>) -> anyhow::Result<Option<Self>> {
        let names = provider::ALL.map(|preset| preset.name).join(", ");
        let asked = AskedFor {
            flag: "--provider NAME",
            explanation: &format!(
                "Which provider sends your mail? One of: {names}.\n\
                 \"smtp\" is any other server; \"sandbox\" keeps the mail and sends nothing, to try things out."
            ),
            prompt: "Provider",
            default: None,
        };
        let given = args.provider.as_deref().and_then(provider::named);
        let Some(preset) = given.map_or_else(|| interview.ask(&asked, flags::provider), |preset| Ok(Some(preset)))?
        else {
            return Ok(None);
        };
        let (host, port) = host(args, preset, interview)?;
        let mut answers = Self {
            preset,
            region: region(args, preset, interview)?,
            host,
            port,
            ca: args.ca.as_deref().map(|path| as_configured(path, folder)).transpose()?,
            username: args.username.clone(),
            password: given_secret(args.password_file.as_deref(), args.password_env.as_deref(), folder)?,
            secret_key: given_secret(args.secret_key_file.as_deref(), args.secret_key_env.as_deref(), folder)?,
        };
        answers.complete_login(interview)?;
        Ok(Some(answers))
    }

    /// Asks for the parts of the login that the provider wants and that are not there.
    fn complete_login(&mut self, interview: &mut Interview<'_>) -> anyhow::Result<()> {
        let title = self.preset.title;
        let (user, password) = match self.preset.login {
            Login::Optional if self.preset.is_embedded() => return Ok(()),
            Login::Optional => return self.complete_optional_login(interview),
            Login::UserAndPassword { user, password } => (Some(user), password),
            Login::FixedUser { password, .. } | Login::AnyUser { password, .. } => (None, password),
            Login::TokenAsBoth { token } => (None, token),
            Login::Derived { user, .. } => (Some(user), "the SMTP password that the console made"),
        };
        if let (Some(user), None) = (user, &self.username) {
            let explanation = format!("The login at {title}: {user}.");
            self.username = interview.ask(&username(&explanation, None), |text| Ok(text.to_owned()))?;
        }
        if self.password.is_some() || self.secret_key.is_some() {
            return Ok(());
        }
        if let Login::Derived { .. } = self.preset.login {
            let asked = AskedFor {
                flag: "",
                explanation: "The secret access key of that IAM user. Leave it empty to type an SMTP password instead.",
                prompt: "Secret access key",
                default: None,
            };
            self.secret_key = interview.ask_secret(&asked, true)?.map(SecretAnswer::Typed);
            if self.secret_key.is_some() {
                return Ok(());
            }
            if !interview.asks() {
                interview.lacks("--secret-key-file FILE (or --secret-key-env, --password-file, --password-env)");
                return Ok(());
            }
        }
        self.ask_password(&format!("What {title} takes as the password: {password}."), interview)
    }

    fn complete_optional_login(&mut self, interview: &mut Interview<'_>) -> anyhow::Result<()> {
        if self.username.is_none() && self.password.is_none() {
            let asked = username("The login. Leave it empty if the server asks for none.", Some(String::new()));
            self.username = interview.ask(&asked, |text| Ok(text.to_owned()))?.filter(|name| !name.is_empty());
        }
        match (&self.username, &self.password) {
            (Some(_), None) => self.ask_password("", interview),
            (None, Some(_)) => {
                self.username = interview.ask(&username("", None), |text| Ok(text.to_owned()))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn ask_password(&mut self, explanation: &str, interview: &mut Interview<'_>) -> anyhow::Result<()> {
        let asked = AskedFor { flag: PASSWORD_FLAGS, explanation, prompt: "Password or token", default: None };
        self.password = interview.ask_secret(&asked, false)?.map(SecretAnswer::Typed);
        Ok(())
    }
}

fn username(explanation: &str, default: Option<String>) -> AskedFor<'_> {
    AskedFor { flag: "--username NAME", explanation, prompt: "User name", default }
}

fn given_secret(file: Option<&Path>, variable: Option<&str>, folder: &Path) -> anyhow::Result<Option<SecretAnswer>> {
    if let Some(name) = variable {
        if !flags::is_variable(name) {
            bail!(
                "--password-env and --secret-key-env take the name of a variable, such as RELAY_PASSWORD, not the secret itself"
            );
        }
        return Ok(Some(SecretAnswer::Variable(name.to_owned())));
    }
    match file {
        Some(path) if path == Path::new("-") => {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).context("no password could be read from standard input")?;
            let secret = line.strip_suffix('\n').unwrap_or(&line);
            let secret = Secret::new(secret.strip_suffix('\r').unwrap_or(secret));
            if secret.is_empty() {
                bail!("the password on standard input is empty");
            }
            Ok(Some(SecretAnswer::Typed(secret)))
        }
        Some(path) => as_configured(path, folder).map(|path| Some(SecretAnswer::File(path))),
        None => Ok(None),
    }
}

/// Host and port of a server that is not a known provider; what was given for a known one is kept.
fn host(
    args: &InitArgs,
    preset: &Preset,
    interview: &mut Interview<'_>,
) -> anyhow::Result<(Option<String>, Option<u16>)> {
    if args.host.is_some() || preset.host != Host::Configured {
        return Ok((args.host.clone(), args.port));
    }
    let asked = AskedFor {
        flag: "--host NAME",
        explanation: "The server's name, as in smtp.example.com; its certificate must have this name.",
        prompt: "Server",
        default: None,
    };
    let host = interview.ask(&asked, |text| Ok(text.to_owned()))?;
    let asked = AskedFor {
        flag: "--port PORT",
        explanation: "Its port: 587 means STARTTLS, 465 means TLS from the first byte. TLS is always used.",
        prompt: "Port",
        default: Some("587".to_owned()),
    };
    let parse = |text: &str| text.parse().map_err(|_| format!("\"{text}\" is not a port"));
    let port = match args.port {
        Some(port) => Some(port),
        None => interview.ask(&asked, parse)?,
    };
    Ok((host, port))
}

fn region(args: &InitArgs, preset: &Preset, interview: &mut Interview<'_>) -> anyhow::Result<Option<String>> {
    let (Some(regions), None) = (preset.regions(), &args.region) else { return Ok(args.region.clone()) };
    let default = match preset.host {
        Host::Regions(regions) => regions.first().map(|(name, _)| (*name).to_owned()),
        _ => None,
    };
    let explanation = format!("The region of the account, {regions}.");
    let asked = AskedFor { flag: "--region NAME", explanation: &explanation, prompt: "Region", default };
    interview.ask(&asked, |text| match preset.host_in(Some(text)) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("{} has no region \"{text}\"", preset.title)),
    })
}

fn domains(args: &InitArgs, interview: &mut Interview<'_>) -> anyhow::Result<Option<Vec<Domain>>> {
    let asked = AskedFor {
        flag: "--domain DOMAIN",
        explanation: "The domain after the @ in your From addresses, as in example.com. Several: with spaces between them.",
        prompt: "Domain",
        default: None,
    };
    let parse = |text: &str| text.split([' ', ',']).filter(|word| !word.is_empty()).map(flags::mail_domain).collect();
    let given: Option<Vec<Domain>> = match args.domain.as_slice() {
        [] => interview.ask(&asked, parse)?,
        given => Some(given.to_vec()),
    };
    let once = |mut kept: Vec<Domain>, domain| {
        if !kept.contains(&domain) {
            kept.push(domain);
        }
        kept
    };
    Ok(given.map(|domains| domains.into_iter().fold(Vec::new(), once)))
}

fn hostname(
    args: &InitArgs,
    domains: Option<&[Domain]>,
    interview: &mut Interview<'_>,
) -> anyhow::Result<Option<String>> {
    if args.hostname.is_some() {
        return Ok(args.hostname.clone());
    }
    let of_domain =
        || domains?.iter().find(|domain| domain.as_str().is_ascii()).map(|domain| format!("gateway.{domain}"));
    let default = flags::own_full_name().or_else(of_domain);
    let asked = AskedFor {
        flag: "--hostname NAME",
        explanation: "The gateway's full name, with which it introduces itself. Any name of yours will do.",
        prompt: "Name",
        default,
    };
    // Without a domain, that is what is missing.
    if domains.is_none() { Ok(None) } else { interview.ask(&asked, flags::full_name) }
}

fn application(args: &InitArgs, interview: &mut Interview<'_>) -> anyhow::Result<Option<&'static Application>> {
    let parse = |text: &str| {
        let names = applications::names().join(", ");
        applications::named(text).ok_or_else(|| format!("\"{text}\" is not one of: {names}"))
    };
    if let Some(name) = &args.application {
        return parse(name).map(Some).map_err(anyhow::Error::msg);
    }
    let explanation = format!(
        "Which application will send through the gateway? One of: {}.\nIts settings are shown at the end.",
        applications::names().join(", ")
    );
    let asked = AskedFor {
        flag: "--application NAME",
        explanation: &explanation,
        prompt: "Application",
        default: Some(applications::PLAUSIBLE.to_owned()),
    };
    interview.ask(&asked, parse)
}

/// Loopback, unless the application is elsewhere; an address that others can reach needs to know who may send.
fn listeners(
    args: &InitArgs,
    application: &str,
    interview: &mut Interview<'_>,
) -> anyhow::Result<(Vec<SocketAddr>, Vec<IpNet>)> {
    let on_this_machine = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let on_this_machine = on_this_machine.map(|ip| SocketAddr::new(ip, PORT)).to_vec();
    let listen = if !args.listen.is_empty() {
        args.listen.clone()
    } else if is_elsewhere(args, application, interview)? {
        let asked = AskedFor {
            flag: "--listen ADDRESS",
            explanation: "The address and port to listen on, which the application must be able to reach.",
            prompt: "Listen on",
            default: Some(format!("0.0.0.0:{PORT}")),
        };
        interview.ask(&asked, flags::listen_address)?.into_iter().collect()
    } else {
        on_this_machine
    };
    let is_closed = listen.iter().all(|address| address.ip().to_canonical().is_loopback());
    if is_closed || !args.allow.is_empty() {
        return Ok((listen, args.allow.clone()));
    }
    let networks: Vec<String> = flags::local_networks().iter().map(|(name, net)| format!("{net} ({name})")).collect();
    let known =
        if networks.is_empty() { String::new() } else { format!("\nThis machine is in {}.", networks.join(", ")) };
    let explanation =
        format!("The network that may send without a login: that of {application}, as in 172.18.0.0/16.{known}");
    let asked = AskedFor { flag: "--allow NETWORK", explanation: &explanation, prompt: "Network", default: None };
    Ok((listen, interview.ask(&asked, flags::network)?.into_iter().collect()))
}

fn is_elsewhere(args: &InitArgs, application: &str, interview: &mut Interview<'_>) -> anyhow::Result<bool> {
    if !args.allow.is_empty() && !interview.asks() {
        interview.lacks("--listen ADDRESS (--allow is for an address that others can reach)");
        return Ok(false);
    }
    let explanation = format!("Does {application} run in a container, or on another machine than the gateway?");
    let asked = AskedFor {
        flag: "--listen ADDRESS",
        explanation: &explanation,
        prompt: "yes or no",
        default: Some("no".to_owned()),
    };
    let parse = |text: &str| match text.to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "n" | "no" => Ok(false),
        _ => Err("Write yes or no.".to_owned()),
    };
    Ok(interview.ask(&asked, parse)?.unwrap_or(false))
}
