//! `waxseal queue hold` and `release`: accepted mail waits, or is delivered again. A lane is held as a whole; messages are
//! held one by one when they are stored (`[storm]`).

use super::client::{QueueClient, unexpected};
use super::selection::{MessageSelection, Selection};
use super::{change, print, print_json, text};
use crate::cli::PROBLEM_FOUND;
use crate::cli::complain;
use crate::config::{self, ConfigFile, Environment};
use crate::control::{ControlRequest, ControlResponse, Overview};
use crate::delivery::{UNROUTED, lane_of_upstream};
use crate::message::MailId;
use crate::observe::log::Clean;
use crate::queue::RecipientState;
use crate::text::any_of;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct HoldArgs {
    #[command(flatten)]
    which: LaneSelection,
}

#[derive(Debug, clap::Args)]
pub struct ReleaseArgs {
    /// The lane that is held, as for `hold`; or the IDs of messages that were stored on hold
    #[arg(value_name = "LANE|ID", required_unless_present = "all", conflicts_with = "all")]
    what: Vec<String>,

    /// All lanes; with filters, all messages that were stored on hold and match them
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    selection: Selection,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

/// What is released.
enum Released {
    Lane(Option<String>),
    Messages(MessageSelection),
}

impl ReleaseArgs {
    pub fn wrong_use(&self) -> Option<&'static str> {
        let is_id = |word: &String| word.parse::<MailId>().is_ok();
        if !self.all && self.selection.is_given() {
            return Some(
                "the filters choose among --all; `waxseal queue list` takes the same filters and shows the messages",
            );
        }
        if self.what.len() > 1 && !self.what.iter().all(is_id) {
            return Some("name one lane, or messages by their IDs");
        }
        let state = self.selection.state.is_some_and(|state| state != RecipientState::Held);
        state.then_some(
            "only messages in the state \"held\" can be released; others go by themselves, or with `queue retry`",
        )
    }

    fn released(&self) -> Released {
        let ids: Vec<MailId> = self.what.iter().filter_map(|word| word.parse().ok()).collect();
        if self.all && self.selection.is_given() {
            let selection = Selection { state: Some(RecipientState::Held), ..self.selection.clone() };
            return Released::Messages(MessageSelection { ids: Vec::new(), all: true, selection });
        }
        match self.what.first() {
            Some(_) if !ids.is_empty() => {
                Released::Messages(MessageSelection { ids, all: false, selection: Selection::default() })
            }
            lane => Released::Lane(lane.cloned()),
        }
    }
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

pub async fn release(args: &ReleaseArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    match args.released() {
        Released::Lane(lane) => release_lane(lane.as_deref(), args.json, client).await,
        Released::Messages(which) => change::release(&which, args.json, client).await,
    }
}

async fn release_lane(lane: Option<&str>, json: bool, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let before = client.overview().await?;
    let was_held = lane.map_or(!before.held.is_empty(), |lane| text::is_held(&before.held, lane));
    if !was_held {
        let what = lane.map_or("no lane".to_owned(), |lane| format!("lane \"{}\"", lane.escape_debug()));
        let verb = if lane.is_some() { "is not held" } else { "is held" };
        complain(format_args!("{what} {verb}"));
        if json {
            show(&before, true)?;
        }
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let overview = set(client, lane, false).await?;
    if !json {
        print(match lane {
            Some(lane) => format!("Lane {} is released.\n", Clean(lane)),
            None => "All lanes are released.\n".to_owned(),
        })?;
    }
    show(&overview, json)?;
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
