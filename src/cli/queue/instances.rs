//! `waxseal queue instances` and `forget`: the gateways that share a queue in Redis.

use super::change::asked;
use super::client::{QueueClient, unexpected};
use super::list::terminal_width;
use super::table::{Column, TextTable};
use super::{print, print_json, text};
use crate::cli::{PROBLEM_FOUND, WRONG, complain};
use crate::config::{self, ConfigFile, Environment};
use crate::control::{ControlRequest, ControlResponse};
use crate::gateway::upstreams_by_account;
use crate::observe::log::Clean;
use crate::queue::{Forgotten, InstanceRow};
use crate::text::counted;
use anyhow::bail;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct InstancesArgs {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// Its name or its ID, as `queue instances` shows them
    instance: String,

    /// Do not ask for confirmation; required without a terminal
    #[arg(long, short)]
    yes: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

const INSTANCES: [Column; 6] =
    [("NAME", 40), ("ID", 24), ("STATE", 24), ("STARTED", 14), ("SENDING", 10), ("CONNECTIONS", 80)];
const NOT_SHARED: &str = "the queue is a database in `data_dir`: no other gateway shares it";

/// The upstreams of each account.
type Upstreams = BTreeMap<String, Vec<String>>;

pub async fn list(args: &InstancesArgs, file: &ConfigFile<'_>, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let Some(rows) = instances(client).await? else {
        complain(NOT_SHARED);
        return Ok(ExitCode::from(WRONG));
    };
    // Without access to a secret, the accounts have no better names than their own.
    let settings = config::load(file, &Environment::of_process()).ok();
    let upstreams = settings.map(|settings| upstreams_by_account(&settings)).unwrap_or_default();
    if args.json {
        let rows: Vec<Value> = rows.iter().map(|row| object(row, &upstreams)).collect();
        print_json(&json!({ "instances": rows }))?;
    } else {
        let now = Timestamp::now();
        let cells: Vec<_> = rows.iter().map(|row| cells(row, &upstreams, now)).collect();
        print(TextTable::fitting(INSTANCES, terminal_width()).page(&cells))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn instances(client: &QueueClient) -> anyhow::Result<Option<Vec<InstanceRow>>> {
    match client.ask(ControlRequest::Instances).await? {
        ControlResponse::Instances(rows) => Ok(rows),
        other => Err(unexpected(&other)),
    }
}

fn upstreams_of(account: &str, upstreams: &Upstreams) -> String {
    // Of two tables with one login, the second one counts for itself, under its own name.
    let (login, table) = account.split_once('/').unwrap_or((account, ""));
    match upstreams.get(login) {
        Some(_) if !table.is_empty() => table.to_owned(),
        Some(names) => names.join("+"),
        None => account.to_owned(),
    }
}

fn cells(row: &InstanceRow, upstreams: &Upstreams, now: Timestamp) -> [String; INSTANCES.len()] {
    let own = if row.is_own { " (this one)" } else { "" };
    let state = if row.is_alive { "runs".to_owned() } else { format!("last seen {}", text::ago(now, row.seen)) };
    let connections = row.permits.iter().map(|held| {
        let upstreams = upstreams_of(&held.account, upstreams);
        format!("{upstreams}: {}", held.permits)
    });
    [
        format!("{}{own}", row.name),
        row.id.clone(),
        state,
        row.started.map_or_else(String::new, |started| text::ago(now, started)),
        row.leases.to_string(),
        connections.collect::<Vec<_>>().join(", "),
    ]
}

fn object(row: &InstanceRow, upstreams: &Upstreams) -> Value {
    let mut value = json!(row);
    for (at, held) in row.permits.iter().enumerate() {
        value["permits"][at]["upstreams"] = json!(upstreams.get(&held.account).cloned().unwrap_or_default());
    }
    value
}

pub async fn forget(args: &ForgetArgs, client: &QueueClient) -> anyhow::Result<ExitCode> {
    let Some(rows) = instances(client).await? else {
        complain(NOT_SHARED);
        return Ok(ExitCode::from(WRONG));
    };
    let row = match chosen(&rows, &args.instance) {
        Ok(row) => row,
        Err(why) => {
            complain(why);
            return Ok(ExitCode::from(PROBLEM_FOUND));
        }
    };
    if row.is_alive {
        complain(is_alive(row));
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    if !args.yes && !confirmed(row)? {
        eprintln!("Nothing was changed.");
        return Ok(ExitCode::from(PROBLEM_FOUND));
    }
    let forgotten = match client.ask(ControlRequest::Forget { instance: row.id.clone() }).await? {
        ControlResponse::Forgotten(forgotten) => forgotten,
        other => return Err(unexpected(&other)),
    };
    report(row, &forgotten, args.json)
}

/// By its id, or by its name if only one has it.
fn chosen<'a>(rows: &'a [InstanceRow], wanted: &str) -> Result<&'a InstanceRow, String> {
    if let Some(row) = rows.iter().find(|row| row.id == wanted) {
        return Ok(row);
    }
    match rows.iter().filter(|row| row.name == wanted).collect::<Vec<_>>()[..] {
        [row] => Ok(row),
        [] => Err(format!(
            "no instance has the name or the ID \"{}\"; `waxseal queue instances` lists them",
            wanted.escape_debug()
        )),
        ref several => {
            let ids: Vec<&str> = several.iter().map(|row| row.id.as_str()).collect();
            Err(format!("{} instances have this name; choose one by its ID: {}", ids.len(), ids.join(", ")))
        }
    }
}

fn is_alive(row: &InstanceRow) -> String {
    format!(
        "{} ({}) runs; stop it first: its connections are free and its mail waits again as soon as it has stopped",
        Clean(&row.name),
        row.id
    )
}

fn confirmed(row: &InstanceRow) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        bail!("there is no terminal to ask on; nothing was changed: add --yes to confirm");
    }
    let (sending, connections) = (counted(row.leases, "message"), counted(row.connections(), "connection"));
    asked(&format!(
        "{} was last seen {}. It was sending {sending} and could have {connections}. If it is only cut off or frozen, those \
         messages may arrive twice, and there may be more connections than the limit. Is it gone for good?",
        Clean(&row.name),
        text::ago(Timestamp::now(), row.seen)
    ))
}

fn report(row: &InstanceRow, forgotten: &Forgotten, json: bool) -> anyhow::Result<ExitCode> {
    match forgotten {
        Forgotten::Done { leases, permits } if json => {
            print_json(&json!({ "id": row.id, "name": row.name, "messages": leases, "connections": permits }))?;
        }
        Forgotten::Done { leases, permits } => print(format!(
            "{} is forgotten: {} tried again, as possible duplicates; {} free.\n",
            Clean(&row.name),
            match leases {
                1 => "1 message is".to_owned(),
                leases => format!("{leases} messages are"),
            },
            match permits {
                1 => "1 connection is".to_owned(),
                permits => format!("{permits} connections are"),
            },
        ))?,
        Forgotten::Alive => {
            complain(is_alive(row));
            return Ok(ExitCode::from(PROBLEM_FOUND));
        }
        Forgotten::Unknown => {
            complain("somebody else has forgotten it already");
            return Ok(ExitCode::from(PROBLEM_FOUND));
        }
        Forgotten::NotShared => {
            complain(NOT_SHARED);
            return Ok(ExitCode::from(WRONG));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::AccountPermits;

    fn row(id: &str, name: &str) -> InstanceRow {
        InstanceRow {
            id: id.into(),
            name: name.into(),
            is_own: id == "a1",
            is_alive: id == "a1",
            started: None,
            seen: Timestamp::UNIX_EPOCH,
            leases: 2,
            permits: vec![AccountPermits { account: "account:x".into(), permits: 3 }],
        }
    }

    #[test]
    fn an_instance_is_chosen_by_its_id_or_by_a_name_that_only_one_has() {
        let rows = [row("a1", "mail"), row("b2", "mail"), row("c3", "other"), row("d4", "a1")];
        assert_eq!(chosen(&rows, "other").unwrap().id, "c3");
        assert_eq!(chosen(&rows, "a1").unwrap().id, "a1", "an id goes before a name");
        let several = chosen(&rows, "mail").unwrap_err();
        assert!(several.contains("a1, b2"), "{several}");
        assert!(chosen(&rows, "ma\u{1b}").unwrap_err().contains("\"ma\\u{1b}\""));
    }

    #[test]
    fn an_account_is_named_by_its_upstreams_where_they_are_known() {
        let known = Upstreams::from([("account:x".to_owned(), vec!["company".to_owned(), "reports".to_owned()])]);
        let cells_of = |upstreams| cells(&row("a1", "mail"), upstreams, Timestamp::UNIX_EPOCH);
        assert_eq!(cells_of(&known)[5], "company+reports: 3");
        let unknown = Upstreams::new();
        assert_eq!(cells_of(&unknown)[5], "account:x: 3");
        assert_eq!((&*cells_of(&known)[0], &*cells_of(&known)[2]), ("mail (this one)", "runs"));
        let value = object(&row("b2", "mail"), &known);
        assert_eq!(
            value["permits"][0],
            json!({ "account": "account:x", "permits": 3, "upstreams": ["company", "reports"] })
        );
        assert_eq!((&value["is_alive"], &value["leases"]), (&json!(false), &json!(2)));
    }
}
