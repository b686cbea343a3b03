//! Mistakes and their messages. Single ones are in mistakes.txt: what is typed, then `=> line:column: ...`.

use super::*;

/// A fragment that begins with a table follows this; lines are counted from the fragment.
fn whole(fragment: &str) -> (String, usize) {
    if fragment.starts_with('[') {
        (format!("{SMALLEST}{fragment}"), SMALLEST.lines().count())
    } else {
        let upstream = SMALLEST.find("[[").expect("an upstream");
        (format!("{fragment}{}", &SMALLEST[upstream..]), 0)
    }
}

fn counted_from(first_line: usize, problem: &str) -> String {
    let place = problem.strip_prefix("config.toml:").and_then(|rest| rest.split_once(':'));
    let (line, rest) = place.unwrap_or_else(|| panic!("no place: {problem}"));
    format!("{}:{rest}", line.parse::<usize>().expect("a line") - first_line)
}

#[test]
fn each_mistake_is_named_with_its_place_and_a_way_out() {
    for block in include_str!("mistakes.txt").split("\n\n").filter(|block| !block.trim().is_empty()) {
        let (expected, typed): (Vec<_>, Vec<_>) = block.lines().partition(|line| line.starts_with("=> "));
        let (text, first_line) = whole(&(typed.join("\n") + "\n"));
        let found: Vec<_> = mistakes(&text).iter().map(|problem| counted_from(first_line, problem)).collect();
        let expected: Vec<_> = expected.iter().filter_map(|line| line.strip_prefix("=> ")).collect();
        assert_eq!(found, expected, "{}", typed.join("\n"));
    }
}

#[test]
fn ten_mistakes_are_ten_problems() {
    let found = mistakes(include_str!("ten_mistakes.toml"));
    let places: Vec<_> = found.iter().map(|line| line.split_once(": ").expect("a place").0).collect();
    assert_eq!(
        places,
        [
            "config.toml:1:1",
            "config.toml:2:14",
            "config.toml:3:9",
            "config.toml:5:11",
            "config.toml:6:8",
            "config.toml:7:18",
            "config.toml:11:15",
            "config.toml:16:12",
            "config.toml:19:13",
            "config.toml:20:2",
        ],
        "{found:#?}"
    );
}

#[test]
fn a_terminal_is_shown_the_lines_but_no_secret() {
    let folder = Folder::new();
    let text = "[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\nusername = \"u\"\n\
                password = \"hunter2\"\nport = \"587\"\npasswort = \"hunter3\"\n[[user]]\nname = \"a\"\npassword = \"hunter4\"\n";
    let shown = format!("{:#}", folder.load(text, &nothing()).expect_err("problems"));
    assert!(shown.contains("port = \"587\"") && shown.contains("write 587 without quotes"), "{shown}");
    assert!(shown.contains("password = *********") && !shown.contains("hunter"), "{shown}");
    // Nor if the file cannot be parsed.
    let shown = format!("{:#}", folder.load(&format!("{text}x = \"\n"), &nothing()).expect_err("problems"));
    assert!(shown.contains("this is not TOML") && !shown.contains("hunter"), "{shown}");
}

/// However it was mistyped.
#[test]
fn no_misplaced_secret_is_shown() {
    let folder = Folder::new();
    let upstream = "[[upstream]]\nname = \"p\"\nprovider = \"smtp\"\nhost = \"a.example\"\nusername = \"u\"\n";
    for line in [
        "password = hunter2",
        "password = \"hunter2",
        "password = 'hunter2' 'x'",
        "password = \"hunter2\", port = 587",
        "password = [\"hunter2\"]",
        "password = { value = \"hunter2\" }",
        "password = { text = [\"hunter2\"], env = \"A\" }",
        "password.literal = \"hunter2\"",
        "pasword = { text = \"hunter2\" }",
        "api_token = { text = [\"hunter2\"] }",
        "[[user]]\nhash = \"hunter2\"",
        "[[upstrem]]\npassword = \"hunter2\"",
        "[[dkim]]\nprivate_key = \"\"\"-----BEGIN PRIVATE KEY-----\nhunter2\"\"\"",
        "server_name = \"smtp://u:hunter2@h\"",
        "password: \"hunter2\"",
        "password hunter2",
        "password = \"\"\"\nhunter2\n\"\"\" x",
        "# password = \"hunter2\"\nnosuch = 1",
        "nosuch = 1 # the password was hunter2",
        "credentials = \"hunter2\"",
        "credentials = { \"a.example\" = { username = \"u\", password = \"hunter2\" } }",
        "[[upstream.credentials]]\npassword = [\"hunter2\"]",
        "[[upstream.credentials]]\npassword = \"hunter2\"",
        "[upstream.credentials.\"a.example\"]\npassword = \"hunter2\"",
        "private_key = \"-----BEGIN PRIVATE KEY-----\nhunter2==\n-----END PRIVATE KEY-----\"",
        "private_key = hunter2",
        "hunter2 = =",
        "login = \"hunter2\"\nx = \"",
        "# the private_key: hunter2\nx = \"",
        "password = { env = \"SG.hunter2\" }",
        "password = { env = \"hunter2\" }",
        "[more]\nuser = [{ name = \"a\", password = \"hunter2\" }",
    ] {
        let problems = folder.load(&format!("{upstream}{line}\n"), &nothing()).expect_err(line);
        let shown = format!("{problems} {problems:#}");
        assert!(!shown.contains("hunter2"), "{line}: {shown}");
    }
}

#[test]
fn a_file_that_is_not_a_configuration_is_one_problem() {
    let folder = Folder::new();
    let one = |result: Result<Settings, Problems>| match folder.shorten(&result.expect_err("problems")).as_slice() {
        [one] => one.clone(),
        several => panic!("{several:?}"),
    };
    assert!(one(folder.load("", &nothing())).starts_with("config.toml: there is no [[upstream]]"));
    assert!(one(folder.load("[[upstreams]]\nname = \"p\"\n", &nothing())).contains("did you mean [[upstream]]?"));
    assert!(one(folder.load_file("other.toml", true, &nothing())).starts_with("other.toml: there is no such file"));
    let without = one(folder.load_file("none.toml", false, &nothing()));
    assert!(without.starts_with("environment: there is no config.toml here, and no SMTP_HOST_ADDR"), "{without}");
    assert!(without.contains("[[upstream]]"), "{without}");
    std::fs::write(folder.path().join("latin1.toml"), b"hostname = \"\xe4\"").unwrap();
    assert!(one(folder.load_file("latin1.toml", true, &nothing())).contains("save it as UTF-8"));
}

#[test]
fn a_secret_is_not_a_users_name_and_is_not_shown_as_one() {
    const TOKEN: &str = "pm-canary-token";
    let folder = Folder::new();
    folder.write("token", &format!("{TOKEN}\n"));
    let upstream = |login: &str| format!("[[upstream]]\nname = \"p\"\n{login}\n");
    let user = |name: &str| {
        format!(
            "[[user]]\nname = \"{name}\"\npassword = {{ file = \"rsa.pem\" }}\n[[route]]\nname = \"r\"\nuser = \"{TOKEN}\"\nupstreams = [\"q\"]\n"
        )
    };
    for login in [
        format!("provider = \"postmark\"\npassword = \"{TOKEN}\""),
        "provider = \"postmark\"\npassword = { file = \"token\" }".to_owned(),
        "provider = \"postmark\"\npassword = { env = \"TOKEN\" }".to_owned(),
        format!("provider = \"ses\"\nregion = \"eu-central-1\"\nusername = \"u\"\nsecret_key = \"{TOKEN}\""),
        format!("provider = \"postmark\"\n[[upstream.credentials]]\ndomain = \"example.com\"\npassword = \"{TOKEN}\""),
        format!("provider = \"sandbox\"\n[[user]]\nname = \"b\"\npassword = \"{TOKEN}\""),
    ] {
        let environment = Environment::of([("TOKEN", TOKEN)]);
        for name in [TOKEN, "pm-canary\\u002dtoken"] {
            let text = upstream(&login) + &user(name);
            let problems = folder.load(&text, &environment).expect_err("a secret as a name");
            let found = folder.shorten(&problems);
            let is_it = |line: &String| line.contains("`name`: it is a password or token of this configuration");
            assert!(found.len() == 1 && found.iter().all(is_it), "{login}: {found:#?}");
            let shown = format!("{problems:#} {problems:?}");
            assert!(!shown.contains(TOKEN) && !shown.contains(name), "{shown}");
        }
        let other = folder.load(&(upstream(&login) + &user("plausible")), &environment).map(drop);
        assert!(other.is_err_and(|problems| !problems.to_string().contains("`name`")), "{login}");
    }
    let environment = Environment::of([
        ("SMTP_HOST_ADDR", "smtp.postmarkapp.com"),
        ("SMTP_USER_NAME", TOKEN),
        ("SMTP_USER_PWD", TOKEN),
        ("WAXSEAL_USER", TOKEN),
        ("WAXSEAL_PASSWORD", "canary of another"),
    ]);
    let found = folder.load_file("none.toml", false, &environment).expect_err("a secret as a name").to_string();
    assert!(found.contains("WAXSEAL_USER") && !found.contains(TOKEN), "{found}");
}
