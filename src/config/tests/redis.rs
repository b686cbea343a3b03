//! `[queue.redis]`: what is typed and what it resolves to. Mistakes are in mistakes.txt.

use super::settings::warnings;
use super::*;
use crate::config::BackendSettings;
use crate::queue::redis::options::{CLUSTER_SHARDS, Fallback, RedisOptions, RedisPlace, ServerAddress};
use std::time::Duration;

fn options_of(settings: Settings) -> RedisOptions {
    match settings.queue.backend {
        BackendSettings::Redis(options) => *options,
        BackendSettings::Sqlite => panic!("not in Redis"),
    }
}

fn redis(lines: &str) -> RedisOptions {
    options_of(settings(&format!("{SMALLEST}[queue]\nbackend = \"redis\"\n[queue.redis]\n{lines}\n")))
}

fn tcp(host: &str, port: u16) -> ServerAddress {
    ServerAddress::Tcp { host: host.to_owned(), port }
}

#[test]
fn a_url_is_enough() {
    let options = redis("url = \"redis://127.0.0.1\"");
    assert_eq!(options.place, RedisPlace::Single(tcp("127.0.0.1", 6379)));
    assert!(options.login.is_none() && options.tls.is_none() && options.instance.is_none());
    assert_eq!((options.prefix.as_str(), options.database, options.timeout), ("wax", 0, Duration::from_secs(5)));
    assert!(!options.accept_data_loss && options.fallback == Fallback::Off);
    let options = redis("url = \"rediss://wax:pass%40word@redis.example.com:7000/2\"");
    let login = options.login.expect("a login");
    assert_eq!((login.user.as_deref(), login.password.reveal()), (Some("wax"), "pass@word"));
    assert!(options.tls.is_some() && options.database == 2);
    let options = redis("url = \"unix:///run/redis.sock\"\nfallback = \"off\"\naccept_data_loss = true");
    assert_eq!(options.place, RedisPlace::Single(ServerAddress::Unix("/run/redis.sock".into())));
    assert!(options.accept_data_loss && options.fallback == Fallback::Off);
}

#[test]
fn sentinels_and_a_cluster_are_named_by_several_addresses() {
    let options = redis(
        "sentinel = { master = \"wax\", addresses = [\"rediss://a.example\", \"rediss://b.example:1\"] }\n\
         password = \"p\"\nsentinel_password = \"q\"",
    );
    assert!(options.tls.is_some());
    assert_eq!(options.login.expect("at the master").password.reveal(), "p");
    let RedisPlace::Sentinel { master, addresses, login } = options.place else { panic!("Sentinels") };
    assert_eq!((master.as_str(), addresses), ("wax", vec![tcp("a.example", 26379), tcp("b.example", 1)]));
    assert_eq!(login.expect("at the Sentinels").password.reveal(), "q");
    let options = redis("url = \"redis://127.0.0.1:1,127.0.0.1:2\"\ncluster = true");
    let addresses = vec![tcp("127.0.0.1", 1), tcp("127.0.0.1", 2)];
    assert_eq!(options.place, RedisPlace::Cluster { addresses, shards: CLUSTER_SHARDS });
}

#[test]
fn the_environment_alone_can_choose_redis() {
    let folder = Folder::new();
    folder.write("password", "from a file\n");
    let base = [("WAXSEAL_PROVIDER", "sandbox"), ("WAXSEAL_BACKEND", "redis")];
    let load = |more: &[(&str, &str)]| {
        let environment = Environment::of(base.iter().chain(more).copied());
        folder.load_file("none.toml", false, &environment)
    };
    let more =
        [("WAXSEAL_REDIS_URL", "redis://127.0.0.1"), ("WAXSEAL_REDIS_PASSWORD", "p"), ("WAXSEAL_INSTANCE", "one")];
    let options = options_of(load(&more).unwrap_or_else(|problems| panic!("{problems}")));
    assert_eq!(options.login.expect("a login").password.reveal(), "p");
    assert_eq!(options.instance.as_deref(), Some("one"));
    let missing = load(&[]).expect_err("no URL").to_string();
    assert!(missing.contains("WAXSEAL_REDIS_URL"), "{missing}");
    let environment = Environment::of([("URL", "redis://u:hunter2@127.0.0.1")]);
    let text = format!("{SMALLEST}[queue]\nbackend = \"redis\"\n[queue.redis]\nurl = {{ env = \"URL\" }}\n");
    let settings = folder.load(&text, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!format!("{settings:?}").contains("hunter2"));
    assert_eq!(options_of(settings).login.expect("a login").password.reveal(), "hunter2");
    let text = text.replace("{ env = \"URL\" }", "\"redis://127.0.0.1\"\npassword = { file = \"password\" }");
    let settings = folder.load(&text, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(options_of(settings).login.expect("a login").password.reveal(), "from a file");
}

#[test]
fn the_queue_is_found_with_the_secrets_of_redis_alone() {
    let folder = Folder::new();
    folder.write(
        "config.toml",
        "[[upstream]]\nname = \"p\"\nprovider = \"postmark\"\npassword = { env = \"NOT_IN_THIS_SHELL\" }\n\
         [queue]\nbackend = \"redis\"\n[queue.redis]\nurl = { env = \"URL\" }\n",
    );
    let path = folder.path().join("config.toml");
    let file = ConfigFile { path: &path, explicit: true };
    let environment = Environment::of([("URL", "redis://127.0.0.1")]);
    let found = crate::config::queue_location(&file, &environment).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(matches!(found.backend, BackendSettings::Redis(_)));
    let problems = crate::config::queue_location(&file, &nothing()).expect_err("no URL here").to_string();
    assert!(problems.contains("URL is not set"), "{problems}");
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let with = |lines: &str| warnings(&format!("{SMALLEST}{lines}"));
    assert_eq!(
        with("[queue.redis]\nurl = \"redis://127.0.0.1\"\n"),
        [
            "config.toml:6:1: [queue.redis] has no effect with backend = \"sqlite\" (help: set backend = \"redis\" in [queue], \
          or take the table out)"
        ]
    );
    let lines =
        "[queue]\nbackend = \"redis\"\n[queue.redis]\nurl = \"redis://127.0.0.1\"\nshards = 4\nsentinel_user = \"u\"\n";
    let found = with(lines);
    assert!(found.len() == 2 && found[0].contains("`shards`") && found[1].contains("`sentinel_user`"), "{found:#?}");
}
