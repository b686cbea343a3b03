//! `waxseal status`: the gateway on one screen: queue, lanes, upstreams with what holds them, quotas, oldest mail, and
//! what is wrong. Changes nothing.

use super::queue::{QueueClient, ago, print, print_json, size, unexpected};
use super::{PROBLEM_FOUND, queue_location, small_runtime};
use crate::config::ConfigFile;
use crate::control::{
    Blame, ControlRefusal, ControlRequest, ControlResponse, GatewayStatus, LaneStatus, LiveStatus, StatusProblem,
    WaitReason,
};
use crate::delivery::{UpstreamState, UpstreamStatus};
use crate::intake::ExpectedStatus;
use crate::observe::log::Clean;
use crate::text::briefly;
use clap::Args;
use jiff::Timestamp;
use std::fmt::Write as _;
use std::process::ExitCode;

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) const AFTER_HELP: &str = "\
Works beside a running gateway, and says so if none runs.

Exit status: 0 nothing is wrong, 1 something is (the last lines say what), 2 wrong usage, or no way to the gateway.";

pub fn run(config: &ConfigFile<'_>, args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let location = match queue_location(config) {
        Ok(location) => location,
        Err(status) => return Ok(status),
    };
    let runtime = small_runtime()?;
    let status = runtime.block_on(async {
        let client = QueueClient::open(&location).await?;
        let answer = client.ask(ControlRequest::Status).await;
        client.close().await;
        match answer {
            Ok(ControlResponse::Status(status)) => Ok(Ok(*status)),
            Ok(other) => Err(unexpected(&other)),
            // The gateway runs and says that its queue cannot be read.
            Err(error) => match error.downcast::<ControlRefusal>()? {
                refusal if refusal.blame == Blame::Queue => Ok(Err(refusal)),
                refusal => Err(refusal.into()),
            },
        }
    })?;
    let now = Timestamp::now();
    let status = match status {
        Ok(status) => status,
        Err(refusal) => return refused(&refusal, args.json),
    };
    let problems = status.problems(now);
    if args.json {
        let mut json = serde_json::to_value(&status)?;
        json["problems"] = serde_json::to_value(&problems)?;
        print_json(&json)?;
    } else {
        print(screen(&status, &problems, now))?;
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

fn refused(refusal: &ControlRefusal, json: bool) -> anyhow::Result<ExitCode> {
    let problem = StatusProblem { id: "storage", text: format!("the queue cannot be read: {refusal}") };
    if json {
        print_json(&serde_json::json!({ "problems": [problem] }))?;
    } else {
        print(format!("What is wrong:\n  {}\n", Clean(&problem.text)))?;
    }
    Ok(ExitCode::from(PROBLEM_FOUND))
}

fn screen(status: &GatewayStatus, problems: &[StatusProblem], now: Timestamp) -> String {
    let mut text = String::new();
    let mut line = |words: &str| {
        let _writing_to_memory = writeln!(text, "{words}");
    };
    match &status.live {
        Some(live) => {
            let addresses = if live.listeners.is_empty() { "nothing".to_owned() } else { live.listeners.join(", ") };
            line(&format!(
                "waxseal {}, started {}, listening on {addresses}",
                status.version,
                ago(now, live.started_at)
            ));
        }
        None => line("the gateway is not running"),
    }
    line("");
    of_queue(status, now).iter().for_each(|words| line(words));
    if let Some(live) = &status.live {
        line("");
        live.upstreams.iter().for_each(|upstream| line(&of_upstream(upstream, now)));
        line("");
        of_surroundings(live, now).iter().for_each(|words| line(words));
    }
    line("");
    match problems {
        [] => line("Nothing is wrong."),
        problems => {
            line("What is wrong:");
            problems.iter().for_each(|problem| line(&format!("  {}", Clean(&problem.text))));
        }
    }
    text
}

fn of_queue(status: &GatewayStatus, now: Timestamp) -> Vec<String> {
    let counts = &status.counts;
    let mut lines = vec![format!(
        "Queue: {} waiting, {} being sent, {} failed, {} damaged recipients; {}",
        counts.waiting,
        counts.leased,
        counts.failed,
        counts.damaged,
        size(status.figures.octets)
    )];
    let oldest = status.figures.lanes.iter().filter_map(|lane| Some((lane.oldest?, &lane.lane))).min();
    if let Some((oldest, lane)) = oldest {
        lines.push(format!("  oldest mail: {} on lane {}", ago(now, oldest), Clean(lane)));
    }
    for lane in status.live.iter().flat_map(|live| &live.lanes) {
        let waiting = status.waiting(lane).into_iter().filter(|(_, number)| *number > 0);
        lines.extend(waiting.map(|(why, number)| {
            format!("  {number} on lane {}: {}", Clean(&lane.state.lane), what_for(why, lane, now))
        }));
    }
    lines
}

/// What recipients of a lane wait for, in words.
fn what_for(why: WaitReason, lane: &LaneStatus, now: Timestamp) -> String {
    match why {
        WaitReason::Hold => "held; `waxseal queue release` ends it".to_owned(),
        WaitReason::SubmissionRate => "waiting for the rate of their user or listener".to_owned(),
        WaitReason::Backoff => "waiting for the next try".to_owned(),
        WaitReason::Turn => "about to be sent".to_owned(),
        WaitReason::Lane(_) => {
            let Some(obstacle) = &lane.state.obstacle else { return "waiting".to_owned() };
            let upstream = obstacle.upstream.as_ref().map(|name| format!("{}: ", Clean(name))).unwrap_or_default();
            let again = obstacle.until.map(|until| format!("; next try in {}", left(now, until))).unwrap_or_default();
            format!("waiting for {upstream}{}{again}", Clean(&obstacle.text))
        }
    }
}

fn left(now: Timestamp, until: Timestamp) -> String {
    briefly((until.as_second() - now.as_second()).max(1).unsigned_abs())
}

fn of_upstream(upstream: &UpstreamStatus, now: Timestamp) -> String {
    let state = match upstream.state {
        UpstreamState::Available => "available",
        UpstreamState::Recovering => "recovering",
        UpstreamState::Unavailable => "unavailable",
        UpstreamState::QuotaReached => "quota reached",
    };
    let mut words = format!(
        "Upstream {}: {state}, {} of {} connections",
        Clean(&upstream.name),
        upstream.connections,
        upstream.connections_allowed
    );
    for quota in &upstream.quotas {
        let _writing_to_memory = write!(words, ", {} of {} per {} used", quota.used, quota.limit, quota.window);
    }
    if let Some(until) = upstream.until {
        let _writing_to_memory = write!(words, "; next try in {}", left(now, until));
    }
    if upstream.is_sandbox {
        words.push_str("; mail is kept here and NOT sent");
    }
    words
}

fn of_surroundings(live: &LiveStatus, now: Timestamp) -> Vec<String> {
    let free = live.disk_free.map_or("unknown".to_owned(), size);
    let mut lines = vec![
        format!("Disk: {free} free, new mail is accepted above {}", size(live.disk_floor)),
        format!("Memory: {} of {} in use for messages", size(live.memory_used), size(live.memory_total)),
    ];
    for key in &live.dkim {
        let published = match key.is_published {
            Some(true) => "its record is in the DNS",
            Some(false) => "its record is NOT in the DNS",
            None => "its record was not looked up",
        };
        lines.push(format!("DKIM key {}._domainkey.{}: {published}", key.selector, key.domain));
    }
    for certificate in &live.certificates {
        let left = certificate.expires.as_second() - now.as_second();
        let ends =
            if left > 0 { format!("ends in {}", briefly(left.unsigned_abs())) } else { "has expired".to_owned() };
        lines.push(format!("Certificate of {} {}: {ends}", certificate.usage, Clean(&certificate.name)));
    }
    lines.extend(live.expected.iter().map(of_expected));
    lines
}

fn of_expected(expected: &ExpectedStatus) -> String {
    let ExpectedStatus { name, every_seconds, quiet_seconds, has_come, is_silent, .. } = expected;
    let (every, quiet) = (briefly(*every_seconds), briefly(*quiet_seconds));
    let last = if *has_come { format!("the last one came {quiet} ago") } else { format!("none has come in {quiet}") };
    let late = if *is_silent { "; it is LATE" } else { "" };
    format!("Expected mail {}, every {every}: {last}{late}", Clean(name))
}
