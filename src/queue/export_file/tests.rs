//! What is written is read as it was, and no file is read that anything was done to.

use super::*;
use crate::queue::Attempted;
use crate::queue::portable::{PortableJob, PortableRecipient};
use proptest::prelude::*;

fn mail(number: u32, body: &[u8]) -> PortableMail {
    let lane = "default".to_owned();
    let at = jiff::Timestamp::from_second(1_795_000_000).unwrap();
    let recipient = |position, address: &str, failed| PortableRecipient {
        position,
        address: address.to_owned(),
        lane: lane.clone(),
        failed,
        attempts: 2,
        upstream: Some("company".to_owned()),
        reason: Some("450 4.2.1 später\nund mehr".to_owned()),
        in_doubt: false,
    };
    let due = PortableJob { due: at, possible_duplicate: number.is_multiple_of(2), set_aside: false };
    PortableMail {
        id: crate::message::MailId::new(at, number),
        received_at: at,
        sender: (!number.is_multiple_of(3)).then(|| "a@example.com".to_owned()),
        eight_bit: true,
        smtputf8: false,
        subject: "Grüße\n".to_owned(),
        listener: None,
        user: Some("plausible".to_owned()),
        marks: Default::default(),
        age: 4_000_000,
        accepted: 5_000_000,
        recipients: vec![recipient(0, "b@example.net", None), recipient(3, "c@example.net", Some(77))],
        jobs: [(lane.clone(), due)].into(),
        attempts: vec![Attempted { at, upstream: None, text: "450".into(), possible_duplicate: true }],
        content: PortableContent {
            header: Bytes::from_static(b"Subject: x\r\n"),
            body: Bytes::copy_from_slice(body),
            original: (!number.is_multiple_of(2)).then(|| Bytes::copy_from_slice(&body[..body.len() / 2])),
        },
    }
}

fn items() -> Vec<ExportItem> {
    let id = mail(1, b"").id;
    let key = PortableKey { key: "0f".repeat(32), id, left: 9 };
    let row = PortableHistory {
        id,
        received_at: jiff::Timestamp::UNIX_EPOCH,
        sender: None,
        recipients: vec!["b@example.net".into()],
        subject: String::new(),
        size: 7,
        message_id: Some("<x@y>".into()),
        delivery: crate::queue::Delivered {
            at: jiff::Timestamp::UNIX_EPOCH,
            upstream: "company".into(),
            reply: "250 2.0.0 Ok".into(),
            milliseconds: 3,
        },
        ago: 5,
    };
    let held = HeldLane { lane: None, except: vec!["reports".into()] };
    let mut items = vec![ExportItem::Holds(vec![held]), ExportItem::History(row), ExportItem::Key(key)];
    let bodies: [&[u8]; 4] = [b"", b"\r\n", b"end 3 0 x\n{}\n", &[0xff; 5000]];
    items.extend((0..).zip(bodies).map(|(number, body)| ExportItem::Mail(Box::new(mail(number, body)))));
    items
}

fn written(items: &[ExportItem]) -> Vec<u8> {
    let mut writer = ExportWriter::begin(Vec::new()).unwrap();
    items.iter().for_each(|item| writer.write(item).unwrap());
    writer.end().unwrap().0
}

fn read(file: &[u8]) -> Result<Vec<ExportItem>, ExportFileError> {
    let mut reader = ExportReader::begin(file)?;
    let mut items = Vec::new();
    while let Some(item) = reader.next()? {
        items.push(item);
    }
    Ok(items)
}

#[test]
fn what_is_written_is_read_as_it_was() {
    assert_eq!(read(&written(&items())).unwrap(), items());
    assert_eq!(read(&written(&[])).unwrap(), []);
    let left_out = [ExportItem::Ended, ExportItem::Damaged { id: "x".into(), reason: "y".into() }];
    assert_eq!(read(&written(&left_out)).unwrap(), []);
}

#[test]
fn a_file_that_is_cut_anywhere_is_not_whole() {
    let file = written(&items());
    for length in 0..file.len() {
        let error = read(&file[..length]).expect_err("cut");
        let is_told = matches!(error, ExportFileError::Cut { .. } | ExportFileError::Foreign);
        assert!(is_told, "{length}: {error}");
    }
    let mut longer = file.clone();
    longer.extend_from_slice(b"x");
    assert!(matches!(read(&longer), Err(ExportFileError::Damaged { .. })));
}

#[test]
fn a_record_that_was_taken_out_or_moved_or_repeated_is_noticed() {
    let whole = items();
    // The records of one kind have counts of their own, so the last record alone would not notice.
    let other = written(&whole[..whole.len() - 1]);
    let file = written(&whole);
    let common = file.iter().zip(&other).take_while(|(one, two)| one == two).count();
    let end_of = |file: &[u8]| file.windows(5).rposition(|text| text == b"\nend ").unwrap() + 1;
    let mut spliced = other[..end_of(&other)].to_vec();
    spliced.extend_from_slice(&file[end_of(&file)..]);
    assert!(common > 0 && read(&spliced).is_err());
    let mut repeated = file[..end_of(&file)].to_vec();
    let first = b"waxseal queue export 1\n".len();
    repeated.extend_from_slice(&file[first..]);
    assert!(read(&repeated).is_err());
}

#[test]
fn a_file_of_another_program_or_version_says_so() {
    for text in ["", "hello\n", "waxseal queue export", "SQLite format 3\0"] {
        assert!(matches!(read(text.as_bytes()), Err(ExportFileError::Foreign)), "{text:?}");
    }
    let newer = String::from_utf8_lossy(&written(&[])).replacen("export 1", "export 2", 1);
    let error = read(newer.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("version 2") && error.contains("version 1"), "{error}");
    let endless = vec![b'x'; 1 << 20];
    assert!(matches!(read(&endless), Err(ExportFileError::Foreign)));
}

#[test]
fn a_length_that_no_record_has_takes_no_memory() {
    for head in
        ["message 99999999999 0 x", "message 2 9999999999999 x", "message 18446744073709551615 0 x", "message -1 0 x"]
    {
        let file = format!("waxseal queue export 1\n{head}\n{{}}\n\n");
        assert!(matches!(read(file.as_bytes()), Err(ExportFileError::Damaged { record: 1, .. })), "{head}");
    }
}

/// With a digest that fits, which anyone who can write a file can compute.
#[test]
fn a_message_that_no_queue_could_have_written_is_refused() {
    let refused = |spoil: &dyn Fn(&mut PortableMail)| {
        let mut spoilt = mail(1, b"x");
        spoil(&mut spoilt);
        read(&written(&[ExportItem::Mail(Box::new(spoilt))])).expect_err("refused")
    };
    let spoils: [&dyn Fn(&mut PortableMail); 9] = [
        &|mail| mail.recipients.clear(),
        &|mail| mail.recipients[1].position = 0,
        &|mail| mail.recipients[0].address = "nobody".into(),
        &|mail| mail.recipients[0].address = "a@b\r\nRCPT TO:<c@d>".into(),
        &|mail| mail.sender = Some("not an address".into()),
        &|mail| mail.jobs.clear(),
        &|mail| mail.recipients[0].lane = "held:".into(),
        &|mail| mail.user = Some("x".repeat(MAX_JSON as usize / 1000)),
        &|mail| mail.attempts = vec![mail.attempts[0].clone(); 101],
    ];
    for spoil in spoils {
        let error = refused(spoil);
        assert!(matches!(error, ExportFileError::Damaged { record: 1, .. }), "{error}");
    }
    // A name that leads out of the folder of bodies is not an id.
    let file = String::from_utf8(written(&[ExportItem::Mail(Box::new(mail(1, b"x")))])).unwrap();
    let id = mail(1, b"x").id.to_string();
    let json = file.lines().nth(2).unwrap().replace(&id, "../../../etc/pas");
    assert!(serde_json::from_str::<MailRecord>(&json).is_err(), "{json}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn an_octet_that_was_changed_anywhere_is_noticed(at in any::<prop::sample::Index>(), change in 1_u8..=255) {
        let mut file = written(&items());
        let at = at.index(file.len());
        file[at] ^= change;
        prop_assert!(read(&file).is_err(), "octet {at}");
    }

    #[test]
    fn no_octets_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut file = b"waxseal queue export 1\n".to_vec();
        file.extend_from_slice(&tail);
        prop_assert!(read(&file).is_err());
    }
}
