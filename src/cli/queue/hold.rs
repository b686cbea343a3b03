//! `waxseal queue hold` and `release`: accepted mail waits, or is delivered again.

use super::client::{QueueClient, unexpected};
use super::{print, print_json, text};
use crate::cli::PROBLEM_FOUND;
use crate::cli::complain;
use crate::config::{self, ConfigFile, Environment};
use crate::control::{ControlRequest, ControlResponse, Overview};
use crate::delivery::{UNROUTED, lane_of_upstream};
use crate::observe::log::Clean;
use crate::text::any_of;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    #[command(flatten)]
    which: LaneSelection,
}

#[derive(Debug, clap::Args)]
struct LaneSelection {
    /// The lane: the name of a route, "default" for mail that no route matches, or "upstream:NAME" for mail whose
    /// upstream a rule chose
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    lane: Option<String>,

    /// All lanes, including those of routes added later
    #[arg(long)]
    all: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub async fn hold(args: &HoldArgs, file: &ConfigFile<'_>, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let lane = args.which.lane.as_deref();
    if let Some((lane, lanes)) = lane.zip(lanes(file)).filter(|(lane, lanes)| !lanes.iter().any(|name| name == lane)) {
        let lanes = any_of(lanes.iter().map(String::as_str));
        complain(format_args!("there is no lane \"{}\" in the configuration: {lanes}", lane.escape_debug()));
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let overview = set(client, lane, true).await?;
    show(&overview, args.which.json)?;
    Ok(ExitCode::SUCCESS)
}

pub async fn release(args: &HoldArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let lane = args.which.lane.as_deref();
    let before = client.overview().await?;
    let was_held = lane.map_or(!before.held.is_empty(), |lane| text::is_held(&before.held, lane));
    if !was_held {
        let what = lane.map_or("no lane".to_owned(), |lane| format!("lane \"{}\"", lane.escape_debug()));
        let verb = if lane.is_some() { "is not held" } else { "is held" };
        complain(format_args!("{what} {verb}"));
        if args.which.json {
            show(&before, true)?;
        }
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let overview = set(client, lane, false).await?;
    if !args.which.json {
        print(match lane {
            Some(lane) => format!("Lane {} is released.\n", Clean(lane)),
            None => "All lanes are released.\n".to_owned(),
        })?;
    }
    show(&overview, args.which.json)?;
    Ok(ExitCode::SUCCESS)
}

async fn set(client: &QueueClient, lane: Option<&str>, held: bool) -> anyhow::Result<Overview> {
    match client.ask(ControlRequest::Hold { lane: lane.map(str::to_owned), held }).await? {
        ControlResponse::Overview(overview) => Ok(overview),
        other => Err(unexpected(&other)),
    }
}

/// Prints what is held now.
fn show(overview: &Overview, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&serde_json::json!({ "held": overview.held, "counts": overview.counts }));
    }
    let lines: String = text::holds(&overview.held).iter().map(|line| format!("{line}\n")).collect();
    print(lines)
}

/// `None` if the configuration cannot be resolved here, for example without access to a secret.
fn lanes(file: &ConfigFile<'_>) -> Option<Vec<String>> {
    let settings = config::load(file, &Environment::of_process()).ok()?;
    let mut lanes: Vec<String> = settings.routes.iter().map(|route| route.name.to_string()).collect();
    if !lanes.iter().any(|lane| lane == UNROUTED) {
        lanes.push(UNROUTED.to_owned());
    }
    lanes.extend(settings.upstreams.iter().map(|upstream| lane_of_upstream(&upstream.name)));
    Some(lanes)
}
