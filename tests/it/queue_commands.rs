//! `waxseal queue …` as an operator types it: the same with and without a process that uses the data folder.

use crate::support::gateway::Setup;
use crate::support::peers;
use crate::support::stored::{self, Holder, deferred, delivered, failed, put};
use serde_json::{Value, json};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::Ordering;
use waxseal::message::MailId;
use waxseal::queue::Queue as _;

/// A secret of the gateway that the operator's shell does not have.
const CONFIG: &str = "hostname = \"gateway.example.com\"\nunsigned = \"send\"\n[[upstream]]\nname = \"company\"\n\
    provider = \"smtp\"\nhost = \"192.0.2.1\"\nusername = \"relay\"\npassword = { env = \"NOT_IN_THIS_SHELL\" }\n";

struct Desk {
    setup: Setup,
    holder: Option<Holder>,
    /// Waiting, failed, half delivered, delivered.
    ids: [MailId; 4],
}

impl Desk {
    /// With four messages; with a holder if `beside` says so.
    async fn new(beside: bool) -> Self {
        let setup = Setup::new(Some(CONFIG));
        let data_dir = data_dir(&setup);
        std::fs::create_dir(&data_dir).unwrap();
        let queue = stored::open(&data_dir);
        let ids = [
            put(&queue, 30, "Waiting \u{202e}\u{1b}[2J 日本語", &[("anna@example.net", deferred())]).await,
            put(&queue, 20, "Failed", &[("gone@example.org", failed())]).await,
            put(&queue, 3, "Half", &[("anna@example.net", delivered()), ("full@example.net", deferred())]).await,
            put(&queue, 2, "Delivered", &[("anna@example.net", delivered())]).await,
        ];
        queue.close().await;
        drop(queue);
        let holder = beside.then(|| Holder::start(data_dir));
        Self { setup, holder, ids }
    }

    async fn both() -> [Self; 2] {
        [Self::new(true).await, Self::new(false).await]
    }

    fn id(&self, at: usize) -> &str {
        self.ids[at].as_str()
    }

    /// Its exit status, its output, and its complaints.
    async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.setup.command(&[&["queue"], arguments].concat());
        let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |octets| String::from_utf8(octets).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    async fn json(&self, arguments: &[&str]) -> (i32, Value) {
        let (status, text, complaints) = self.run(&[arguments, &["--json"]].concat()).await;
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaints}")))
    }

    async fn listed(&self, arguments: &[&str]) -> Vec<String> {
        let (status, value) = self.json(&[&["list"], arguments].concat()).await;
        assert_eq!(status, 0);
        let rows = value["messages"].as_array().unwrap();
        rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
    }
}

fn data_dir(setup: &Setup) -> PathBuf {
    setup.folder().join("data")
}

#[tokio::test(flavor = "multi_thread")]
async fn list_is_a_table_of_whole_lines() {
    for desk in Desk::both().await {
        let (status, text, complaints) = desk.run(&["list"]).await;
        assert_eq!((status, complaints.as_str()), (0, ""));
        let mut lines: Vec<_> = text.lines().collect();
        let is_running = desk.holder.is_some();
        let (state, last) = if is_running { ("next try in ", "") } else { ("gateway stopped", "last attempt: ") };
        if !is_running {
            let above: Vec<_> = lines.drain(..2).collect();
            assert_eq!(above, ["The gateway is not running: 2 waiting for it.", ""]);
        }
        let subject = format!("Waiting ??[2J 日本語: {last}upstream \"company\", connect");
        let [heading, waiting, failed, half, "", total, counts] = lines.as_slice() else { panic!("{text}") };
        assert!(heading.starts_with("ID                RECEIVED  FROM                 TO"), "{heading}");
        for (line, at, words) in [
            (waiting, 0, &["30 h ago", "anna@example.net", state, &subject][..]),
            (failed, 1, &["20 h ago", "gone@example.org", "  failed  ", "RCPT TO: 550 5.1.1 no such user"]),
            (half, 2, &["3 h ago", "full@example.net", state]),
        ] {
            assert!(line.starts_with(desk.id(at)) && words.iter().all(|word| line.contains(word)), "{line}");
        }
        assert_eq!((*total, *counts), ("3 messages.", "Recipients in the queue: 2 waiting, 0 being sent, 1 failed."));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_and_pages_end() {
    for desk in Desk::both().await {
        let ids = |chosen: &[usize]| chosen.iter().map(|at| desk.id(*at).to_owned()).collect::<Vec<_>>();
        for (arguments, chosen) in [
            (&[][..], &[0, 1, 2][..]),
            (&["--state", "failed"], &[1]),
            (&["--state", "waiting"], &[0, 2]),
            (&["--state", "leased"], &[]),
            (&["--recipient", "example.NET"], &[0, 2]),
            (&["--upstream", "company"], &[0, 1, 2]),
            (&["--upstream", "backup"], &[]),
            (&["--older-than", "4h"], &[0, 1]),
            (&["--older-than", "1d", "--state", "failed"], &[]),
            (&["--limit", "2"], &[0, 1]),
            (&["--all"], &[0, 1, 2]),
        ] {
            assert_eq!(desk.listed(arguments).await, ids(chosen), "{arguments:?}");
        }
        let (_, value) = desk.json(&["list", "--limit", "2"]).await;
        assert_eq!(value["more"], true);
        assert_eq!(value["counts"], json!({ "waiting": 2, "leased": 0, "failed": 1, "damaged": 0 }));
        assert_eq!(value["held"], json!([]));
        let (status, text, _) = desk.run(&["list", "--state", "damaged"]).await;
        assert_eq!((status, text.lines().next()), (0, Some("No message matches.")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_newest_first() {
    for desk in Desk::both().await {
        let (status, value) = desk.json(&["list", "--history"]).await;
        let rows = value["delivered"].as_array().unwrap();
        assert_eq!((status, rows.len()), (0, 2));
        assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&json!(desk.id(3)), &json!(desk.id(2))));
        assert_eq!(rows[0]["reply"], "250 2.0.0 Ok: queued as 4711");
        assert_eq!((&rows[0]["subject"], &rows[0]["milliseconds"]), (&json!("Delivered"), &json!(231)));
        let (_, text, _) = desk.run(&["list", "--history", "--limit", "1"]).await;
        assert!(text.contains("250 2.0.0 Ok") && text.contains("The newest 1; see more"), "{text}");
        let (status, _, complaints) = desk.run(&["list", "--history", "--state", "failed"]).await;
        assert_eq!(status, 2, "{complaints}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn show_tells_all_of_one_message() {
    for desk in Desk::both().await {
        let (status, text, _) = desk.run(&["show", desk.id(0)]).await;
        assert_eq!(status, 0);
        let (state, last) = match desk.holder {
            Some(_) => ("anna@example.net: next try in ", ""),
            None => ("anna@example.net: gateway stopped", "last attempt: "),
        };
        for part in [
            &format!("Message    {}\n", desk.id(0)),
            state,
            "tried 1 time, lane default (next 20",
            &format!("    {last}upstream \"company\", connect: connection refused\n"),
            "\nHeader\n  From: reports@example.com\n  Subject: Waiting ??[2J 日本語\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let (_, value) = desk.json(&["show", desk.id(2)]).await;
        assert_eq!(value["recipients"][0]["address"], "full@example.net");
        assert_eq!(value["delivered"][0]["recipients"], json!(["anna@example.net"]));
        let (status, text, _) = desk.run(&["show", desk.id(3)]).await;
        assert!(status == 0 && text.contains("250 2.0.0 Ok") && !text.contains("Not delivered yet"), "{text}");
        let (status, _, complaints) = desk.run(&["show", "0000000000000000"]).await;
        assert!(status == 1 && complaints.contains("no message 0000000000000000"), "{complaints}");
        assert_eq!(desk.run(&["show", "../../etc/passwd"]).await.0, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_the_message_octet_by_octet() {
    for desk in Desk::both().await {
        let (status, text, _) = desk.run(&["show", desk.id(1), "--content"]).await;
        assert_eq!(status, 0);
        let id = format!("Message-ID: <{}@example.com>", desk.id(1));
        assert_eq!(text, format!("From: reports@example.com\r\nSubject: Failed\r\n{id}\r\n\r\nHello \x1b[31m.\r\n"));
        let (status, text, complaints) = desk.run(&["show", desk.id(3), "--content"]).await;
        assert_eq!((status, text.as_str()), (1, ""));
        assert!(complaints.contains("no content"), "{complaints}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_makes_due_and_corrects_an_address() {
    for desk in Desk::both().await {
        let (status, text, _) = desk.run(&["retry", desk.id(0), desk.id(0)]).await;
        assert_eq!((status, text.as_str()), (0, "Due now: 1 message for 1 recipient.\n"));
        let (status, value) = desk.json(&["retry", desk.id(1), "--to", "right@example.org"]).await;
        assert_eq!(status, 0);
        assert_eq!(value, json!({ "messages": 1, "recipients": 1, "missing": [], "unchanged": [] }));
        let (_, shown) = desk.json(&["show", desk.id(1)]).await;
        assert_eq!(shown["recipients"][0]["address"], "right@example.org");
        assert_eq!(shown["recipients"][0]["state"], "waiting");
        let (status, _, complaints) = desk.run(&["retry", desk.id(0), desk.id(3), "0000000000000000"]).await;
        assert_eq!(status, 1);
        assert!(
            complaints.contains("no message 0000000000000000") && complaints.contains("left as it is"),
            "{complaints}"
        );
        let (_, text, _) = desk.run(&["list"]).await;
        let (state, number) = if desk.holder.is_some() { ("about to be sent  ", 2) } else { ("gateway stopped", 3) };
        assert_eq!(text.matches(state).count(), number, "{text}");
        let (status, text, _) = desk.run(&["retry", "--all"]).await;
        assert_eq!((status, text.as_str()), (0, "Due now: 3 messages for 3 recipients.\n"));
        if let Some(holder) = &desk.holder {
            assert_eq!(holder.wakes.load(Ordering::Relaxed), 4, "the dispatcher hears of it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remove_removes_what_was_named_or_matches() {
    for desk in Desk::both().await {
        let (status, text, _) = desk.run(&["remove", "--all", "--state", "failed", "--yes"]).await;
        assert_eq!((status, text.as_str()), (0, "Removed: 1 message.\n"));
        let (status, text, complaints) = desk.run(&["remove", "--all", "--state", "failed", "--yes"]).await;
        assert_eq!((status, text.as_str()), (1, ""));
        assert!(complaints.contains("nothing in the queue matches"), "{complaints}");
        let (status, value) = desk.json(&["remove", desk.id(0), "0000000000000000"]).await;
        assert_eq!(status, 1);
        assert_eq!(value, json!({ "messages": 1, "recipients": 1, "missing": ["0000000000000000"], "unchanged": [] }));
        assert_eq!(desk.listed(&[]).await, [desk.id(2)]);
        // Without a terminal there is no question, so the answer must be given as an option.
        let (status, text, complaints) = desk.run(&["remove", "--all"]).await;
        assert!(status != 0 && text.is_empty() && complaints.contains("--yes"), "{status} {text} {complaints}");
        assert_eq!(desk.listed(&[]).await, [desk.id(2)]);
        assert_eq!(desk.run(&["remove", "--all", "--yes"]).await.0, 0);
        let (_, text, _) = desk.run(&["list"]).await;
        assert_eq!(text, "The queue is empty.\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_and_release_say_what_is_held() {
    for desk in Desk::both().await {
        let held = "Lane default is held; resume it with: waxseal queue release default\n";
        assert_eq!(desk.run(&["hold", "default"]).await, (0, held.to_owned(), String::new()));
        let (_, text, _) = desk.run(&["list"]).await;
        assert!(text.contains("  held  ") && text.ends_with(held), "{text}");
        let (_, text, _) = desk.run(&["retry", desk.id(0)]).await;
        assert!(text.ends_with(held), "who retries is told that nothing moves: {text}");
        let (_, value) = desk.json(&["list"]).await;
        assert_eq!(value["held"], json!([{ "lane": "default", "except": [] }]));
        assert_eq!(desk.run(&["release", "default"]).await, (0, "Lane default is released.\n".into(), String::new()));
        let (status, _, complaints) = desk.run(&["release", "default"]).await;
        assert_eq!((status, complaints.as_str()), (1, "waxseal: lane \"default\" is not held\n"));
        let (status, value) = desk.json(&["hold", "--all"]).await;
        assert_eq!((status, &value["held"]), (0, &json!([{ "lane": null, "except": [] }])));
        assert_eq!(desk.run(&["release", "--all"]).await, (0, "All lanes are released.\n".into(), String::new()));
        assert_eq!(desk.run(&["release", "--all"]).await.0, 1);
        assert_eq!(desk.run(&["hold"]).await.0, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_knows_the_lanes_of_a_configuration_that_can_be_read() {
    let mut desk = Desk::new(false).await;
    desk.setup = desk.setup.env("NOT_IN_THIS_SHELL", "but in this one");
    let (status, _, complaints) = desk.run(&["hold", "defualt"]).await;
    assert_eq!(status, 1);
    assert!(complaints.contains("no lane \"defualt\"") && complaints.contains("default"), "{complaints}");
    assert_eq!(desk.run(&["hold", "default"]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_two() {
    let desk = Desk::new(false).await;
    for arguments in [
        &["retry"][..],
        &["retry", "--state", "failed"],
        &["remove"],
        &["flush", "0000000000000000"],
        &["retry", "--all", "0000000000000000"],
        &["retry", "--state", "failed", "0000000000000000"],
        &["retry", "--all", "--to", "a@example.net"],
        &["retry", "0000000000000000", "0000000000000001", "--to", "a@example.net"],
        &["retry", "0000000000000000", "--to", "nobody"],
        &["remove", "--all", "--older-than", "yesterday"],
        &["list", "--limit", "0"],
        &["list", "--limit", "5", "--all"],
        &["list", "--state", "lost"],
        &["hold", "default", "--all"],
    ] {
        let (status, text, complaints) = desk.run(arguments).await;
        assert_eq!((status, text.as_str()), (2, ""), "{arguments:?}: {complaints}");
        assert!(!complaints.is_empty());
    }
    assert_eq!(desk.listed(&[]).await.len(), 3, "nothing was touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_without_all_say_so() {
    let desk = Desk::new(false).await;
    for command in ["retry", "remove"] {
        let (status, _, complaints) = desk.run(&[command, "--state", "failed"]).await;
        assert_eq!(status, 2);
        assert!(complaints.contains("add --all for all that match"), "{complaints}");
        let (status, _, complaints) = desk.run(&[command]).await;
        assert_eq!(status, 2);
        assert!(complaints.contains("give its ID") && complaints.contains("--all"), "{complaints}");
    }
    assert_eq!(desk.listed(&[]).await.len(), 3, "nothing was touched");
}

/// What the same thing is called elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn words_of_other_programs_do_what_they_say() {
    for desk in Desk::both().await {
        let (status, value) = desk.json(&["flush", "--recipient", "full@"]).await;
        assert_eq!((status, &value["messages"]), (0, &json!(1)));
        let (status, text, _) = desk.run(&["flush"]).await;
        assert!(status == 0 && text.starts_with("Due now: 3 messages"), "{text}");
        assert_eq!(desk.run(&["delete", desk.id(0)]).await.1, "Removed: 1 message.\n");
        assert_eq!(desk.run(&["rm", desk.id(1), "--yes"]).await.1, "Removed: 1 message.\n");
        assert_eq!(desk.listed(&[]).await, [desk.id(2)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_found_by_its_message_id_in_the_queue_and_in_the_history() {
    for desk in Desk::both().await {
        let [waiting, delivered] = [0, 3].map(|at| format!("{}@example.com", desk.id(at)));
        for form in [waiting.clone(), format!("<{waiting}>")] {
            assert_eq!(desk.listed(&["--message-id", &form]).await, [desk.id(0)]);
        }
        let (_, value) = desk.json(&["list", "--history", "--message-id", &delivered]).await;
        let [row] = &value["delivered"].as_array().unwrap()[..] else { panic!("{value}") };
        assert_eq!((&row["id"], &row["message_id"]), (&json!(desk.id(3)), &json!(format!("<{delivered}>"))));
        let (status, text, _) = desk.run(&["list", "--message-id", &delivered]).await;
        assert!(status == 0 && text.contains("queue list --history --message-id"), "{text}");
        let (status, _, complaints) = desk.run(&["remove", "--all", "--yes", "--message-id", "example.com"]).await;
        assert_eq!(status, 1, "{complaints}");
        let (status, text, _) = desk.run(&["remove", "--all", "--yes", "--message-id", &waiting]).await;
        assert_eq!((status, text.as_str()), (0, "Removed: 1 message.\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_way_to_the_queue_is_explained() {
    let desk = Desk::new(false).await;
    let lock = waxseal::gateway::lock::Lock::take(&data_dir(&desk.setup)).unwrap();
    let (status, _, complaints) = desk.run(&["list"]).await;
    assert_eq!(status, 2);
    for words in ["holds the lock of", "control socket does not answer", "try again"] {
        assert!(complaints.contains(words), "{complaints}");
    }
    drop(lock);
    let elsewhere = Setup::new(Some(CONFIG));
    let output = elsewhere.output(&["queue", "list"]);
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(complaints.contains("there is no queue in") && complaints.contains("--config"), "{complaints}");
    std::fs::create_dir(data_dir(&elsewhere)).unwrap();
    assert_eq!(elsewhere.output(&["queue", "list"]).status.code(), Some(2));
    assert_eq!(std::fs::read_dir(data_dir(&elsewhere)).unwrap().count(), 0, "a look makes nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_left_by_a_killed_gateway_is_in_nobodys_way() {
    let desk = Desk::new(false).await;
    let path = data_dir(&desk.setup).join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert_eq!(desk.listed(&[]).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_messages_go_in_pages() {
    for desk in Desk::both().await {
        let more = stored_in(&desk, 1_000).await;
        let (status, value) = desk.json(&["retry", "--all", "--recipient", "many@"]).await;
        assert_eq!((status, &value["messages"]), (0, &json!(more)));
        assert_eq!(desk.listed(&["--all"]).await.len(), more + 3);
        let (status, value) = desk.json(&["remove", "--all", "--yes"]).await;
        assert_eq!((status, &value["messages"]), (0, &json!(more + 3)));
        assert_eq!(desk.listed(&["--all"]).await, [""; 0]);
    }
}

/// Puts this many further messages; with a holder through its queue, since only the holder may.
async fn stored_in(desk: &Desk, number: usize) -> usize {
    let opened;
    let queue: &dyn waxseal::queue::Queue = match &desk.holder {
        Some(holder) => holder.queue(),
        None => {
            opened = stored::open(&data_dir(&desk.setup));
            &opened
        }
    };
    for at in 0..number {
        put(queue, 1, &format!("Many {at}"), &[("many@example.net", deferred())]).await;
    }
    if desk.holder.is_none() {
        queue.close().await;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn another_version_beside_it_is_named() {
    let mut desk = Desk::new(true).await;
    desk.holder.take().unwrap().stop().await;
    let data_dir = data_dir(&desk.setup);
    let _lock = waxseal::gateway::lock::Lock::take(&data_dir).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(data_dir.join("control.sock")).unwrap();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut line = String::new();
            let _a_probe = BufReader::new(&stream).read_line(&mut line);
            let _gone = stream.write_all(b"{\"protocol\":9,\"program\":\"7.0.0\",\"response\":{\"moved\":1}}\n");
        }
    });
    let (status, _, complaints) = desk.run(&["list"]).await;
    assert_eq!(status, 2);
    assert!(complaints.contains("waxseal 7.0.0 and speaks protocol 9"), "{complaints}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_look_leaves_behind_is_for_the_owner_only() {
    let desk = Desk::new(false).await;
    desk.listed(&[]).await;
    for entry in std::fs::read_dir(data_dir(&desk.setup)).unwrap().map(Result::unwrap) {
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
    }
}

/// Root looked at the queue of a stopped gateway, and the gateway could not open the files that SQLite had made for it.
#[tokio::test(flavor = "multi_thread")]
async fn another_user_than_the_gateways_is_refused_and_leaves_no_file_behind() {
    if !peers::is_root() {
        eprintln!("skipped: only root can be another user here");
        return;
    }
    let desk = Desk::new(false).await;
    let data_dir = data_dir(&desk.setup);
    let found = || {
        let entries = std::fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = entries.map(|path| (path.clone(), std::fs::metadata(path).unwrap().uid())).collect();
        found.sort();
        found
    };
    for by_lock in [false, true] {
        if by_lock {
            std::fs::write(data_dir.join("lock"), "").unwrap();
        }
        let owned = if by_lock { data_dir.join("lock") } else { data_dir.clone() };
        chown(&owned, Some(65_534), None).unwrap();
        let before = found();
        for arguments in
            [&["list"][..], &["show", desk.id(0)], &["retry", desk.id(0)], &["check"], &["salvage", "--yes"]]
        {
            let (status, _, complaints) = desk.run(arguments).await;
            assert_eq!(status, 2, "{arguments:?}: {complaints}");
            for words in ["belongs to the user with the number 65534", "sudo -u '#65534'"] {
                assert!(complaints.contains(words), "{arguments:?}: {complaints}");
            }
            assert_eq!(found(), before, "{arguments:?}");
        }
        chown(&owned, Some(0), None).unwrap();
    }
    assert_eq!(desk.listed(&[]).await.len(), 3, "its own user is let in");
}
