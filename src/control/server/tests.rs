use super::*;
use crate::control::{Blame, Change, LaneStatus, LiveStatus, Overview, Which, connect};
use crate::delivery::{HoldCause, LaneObstacle, LaneState};
use crate::queue::testing::{MemoryQueue, row};
use crate::queue::{Filter, RecipientState};
use std::os::unix::fs::FileTypeExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::task::JoinHandle;

struct Running {
    folder: tempfile::TempDir,
    data_dir: PathBuf,
    wakes: Arc<AtomicUsize>,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
}

fn lanes() -> Vec<LaneState> {
    let obstacle = LaneObstacle {
        cause: HoldCause::Breaker,
        upstream: Some("company".into()),
        text: "connect: connection refused".into(),
        until: None,
    };
    vec![LaneState { lane: "default".into(), obstacle: Some(obstacle), waiting: 0, later: 0, held: 0, delayed: 0 }]
}

#[tokio::test]
async fn an_overview_tells_what_holds_each_lane_and_how_much_waits_there() {
    let running = start();
    let responses = exchange(&running, &ControlRequest::Overview.to_line(), 1).await;
    let [ControlResponse::Overview(Overview { lanes: Some(told), .. })] = responses.as_slice() else {
        panic!("{responses:?}")
    };
    assert_eq!(*told, [LaneState { waiting: 1, ..lanes().remove(0) }]);
}

fn live() -> LiveStatus {
    let lane = |state| LaneStatus { state, upstreams: Vec::new() };
    LiveStatus { lanes: lanes().into_iter().map(lane).collect(), ..LiveStatus::default() }
}

fn start_in(folder: tempfile::TempDir, data_dir: PathBuf) -> Running {
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = wakes.clone();
    let wake = Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let hooks = GatewayHooks { wake, live: LiveWatch::new(live), ..GatewayHooks::default() };
    let queue = Arc::new(MemoryQueue::of([row(1, RecipientState::Failed), row(2, RecipientState::Waiting)]));
    let server = ControlServer::bind(&data_dir, queue, hooks, Clock::System).unwrap();
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(server.serve(shutdown.clone()));
    Running { folder, data_dir, wakes, shutdown, server }
}

fn start() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().to_owned();
    start_in(folder, data_dir)
}

/// Sends octets; returns the lines that come back until the server closes the connection or `lines` have arrived.
async fn exchange(running: &Running, octets: &[u8], lines: usize) -> Vec<ControlResponse> {
    let mut stream = connect(&running.data_dir).await.unwrap();
    let (input, mut output) = stream.split();
    let mut input = BufReader::new(input);
    let _the_server_may_close_early = output.write_all(octets).await;
    let mut responses = Vec::new();
    while responses.len() < lines {
        let mut line = Vec::new();
        match timeout(CLIENT_TIMEOUT, input.read_until(b'\n', &mut line)).await.expect("an answer") {
            Ok(0) | Err(_) => break,
            Ok(_) => responses.push(ControlResponse::from_line(&line).unwrap()),
        }
    }
    responses
}

fn blame(response: &ControlResponse) -> Blame {
    match response {
        ControlResponse::Refused(refusal) => refusal.blame,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_ours_is_for_the_owner_and_removed_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(SOCKET);
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let data_dir = folder.path().to_owned();
    let running = start_in(folder, data_dir);
    let metadata = std::fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_eq!(exchange(&running, &ControlRequest::Overview.to_line(), 1).await.len(), 1);
    running.shutdown.cancel();
    running.server.await.unwrap();
    assert!(!path.exists());
    assert!(connect(&running.data_dir).await.is_err());
    drop(running.folder);
}

#[tokio::test]
async fn a_folder_with_a_long_name_serves_too() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("long/".repeat(40));
    std::fs::create_dir_all(&data_dir).unwrap();
    let running = start_in(folder, data_dir);
    assert_eq!(exchange(&running, &ControlRequest::Overview.to_line(), 1).await.len(), 1);
}

#[tokio::test]
async fn several_requests_of_several_clients_are_answered_in_order() {
    let running = start();
    let id = row(1, RecipientState::Failed).id.parse().unwrap();
    let three =
        [ControlRequest::Overview.to_line(), ControlRequest::Show { id }.to_line(), ControlRequest::Overview.to_line()]
            .concat();
    for responses in [exchange(&running, &three, 3).await, exchange(&running, &three, 3).await] {
        assert!(
            matches!(
                responses.as_slice(),
                [ControlResponse::Overview(Overview { counts, .. }), ControlResponse::Shown(Some(shown)), ControlResponse::Overview(_)]
                    if counts.failed == 1 && shown.row.subject == "Report 1"
            ),
            "{responses:?}"
        );
    }
}

#[tokio::test]
async fn idle_clients_keep_nobody_out_but_the_thirty_third() {
    let running = start();
    let mut idle = Vec::new();
    for _ in 0..MAX_CLIENTS - 1 {
        idle.push(connect(&running.data_dir).await.unwrap());
    }
    assert_eq!(exchange(&running, &ControlRequest::Overview.to_line(), 1).await.len(), 1);
    idle.push(connect(&running.data_dir).await.unwrap());
    drop(idle);
    assert_eq!(exchange(&running, &ControlRequest::Overview.to_line(), 1).await.len(), 1);
}

#[tokio::test]
async fn a_broken_request_is_answered_and_ends_the_conversation() {
    let running = start();
    let endless = vec![b'x'; MAX_REQUEST + 10];
    for (octets, expected) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], Blame::Request),
        (&endless, Blame::Request),
        (b"{\"protocol\":7,\"program\":\"3.0.0\",\"request\":\"anything\"}\n", Blame::Protocol),
    ] {
        let responses = exchange(&running, octets, 2).await;
        assert_eq!(responses.iter().map(blame).collect::<Vec<_>>(), [expected]);
    }
    assert_eq!(
        exchange(&running, &ControlRequest::Overview.to_line(), 1).await.len(),
        1,
        "others are served all the same"
    );
}

#[tokio::test]
async fn the_dispatcher_is_woken_once_by_what_makes_mail_due() {
    let running = start();
    let retry = |which| ControlRequest::Change { what: Change::Retry { to: None }, which };
    let id = row(1, RecipientState::Failed).id.parse().unwrap();
    for (request, wakes) in [
        (ControlRequest::Hold { lane: None, held: true }, 0),
        (ControlRequest::Show { id }, 0),
        (retry(Which::Named(vec![id])), 1),
        (ControlRequest::Hold { lane: None, held: false }, 2),
        (retry(Which::Matching { filter: Filter::default(), after: None, limit: 1 }), 2),
        (retry(Which::Matching { filter: Filter::default(), after: None, limit: 2 }), 3),
    ] {
        exchange(&running, &request.to_line(), 1).await;
        assert_eq!(running.wakes.load(Ordering::Relaxed), wakes, "{request:?}");
    }
}

#[tokio::test]
async fn content_follows_its_line_as_it_is() {
    let running = start();
    let id = row(1, RecipientState::Failed).id.parse().unwrap();
    let mut stream = connect(&running.data_dir).await.unwrap();
    stream.write_all(&ControlRequest::Content { id }.to_line()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    let end = all.iter().position(|&octet| octet == b'\n').unwrap() + 1;
    let Ok(ControlResponse::Content(Some(content))) = ControlResponse::from_line(&all[..end]) else {
        panic!("content")
    };
    assert_eq!((content.octets, &all[end..]), (14, &b"A: 1\r\n\r\nbody\r\n"[..]));
}
