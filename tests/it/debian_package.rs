//! The Debian package: what is in it, and its life from the installation to the purge. It is installed into a copy of this
//! machine's file system that is gone afterwards, in a network of its own; systemd does not run there, so the unit's commands are
//! started as its user by hand.

use crate::support::peers;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

/// Builds the package of this very program under a version; `None` after saying what is missing.
fn built(folder: &Path, names: &[(&str, &str)]) -> Option<()> {
    let tools = root().join("target/peers/bin");
    let path =
        std::env::join_paths([tools].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH")?))).ok()?;
    let mut asked = Command::new(env!("CARGO"));
    if !asked.args(["deb", "--version"]).env("PATH", &path).output().is_ok_and(|output| output.status.success()) {
        peers::skip("peer cargo-deb missing, run make test");
        return None;
    }
    if peers::find("dpkg-deb").is_none() {
        peers::skip("dpkg is missing");
        return None;
    }
    let program = PathBuf::from(env!("CARGO_BIN_EXE_waxseal"));
    run(Command::new(root().join("deploy/debian/prepare")).arg(&program));
    let profile = program.parent().and_then(Path::file_name).expect("target/PROFILE/waxseal");
    let profile = if profile == "debug" { "dev".as_ref() } else { profile };
    for (name, version) in names {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "deb",
            "--locked",
            "--offline",
            "--no-build",
            "--no-strip",
            "--fast",
            "--quiet",
            "--deb-version",
            version,
        ]);
        command.arg("--profile").arg(profile).arg("--output").arg(folder.join(name));
        run(command.current_dir(root()).env("PATH", &path));
    }
    Some(())
}

/// One test, because both would write target/package.
#[test]
fn the_debian_package_is_installed_sends_mail_is_upgraded_and_goes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    if built(folder.path(), &[("first.deb", "0.0.1-1"), ("second.deb", "0.0.2-1")]).is_none() {
        return;
    }
    everything_is_in_it(&folder.path().join("first.deb"));
    if !peers::is_root() {
        return peers::skip("packages are installed by root");
    }
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(folder.path().join("steps"), include_str!("debian_package.sh")).unwrap();
    // The upper layer is in memory, and all of it ends with the namespaces.
    let script = "set -e; cd \"$1\"; mount -t tmpfs tmpfs work; mkdir work/upper work/scratch work/merged; \
        mount -t overlay overlay -o lowerdir=/,upperdir=work/upper,workdir=work/scratch work/merged; \
        mkdir -p work/merged/package work/merged/proc; cp first.deb second.deb steps work/merged/package; \
        mount -t proc proc work/merged/proc; mount --rbind /dev work/merged/dev; \
        python3 -c 'import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh14x\", b\"lo\", 0x41))'; \
        exec chroot work/merged bash /package/steps /package";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--net", "--fork", "--kill-child", "bash", "-c", script, "bash"])
        .arg(folder.path());
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C");
    let said = run(&mut command);
    assert!(said.ends_with("ALL WELL\n"), "{said}");
}

fn everything_is_in_it(package: &Path) {
    let listed = run(Command::new("dpkg-deb").arg("--contents").arg(package));
    let files: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().nth(5)).collect();
    for file in [
        "./usr/bin/waxseal",
        "./usr/lib/systemd/system/waxseal.service",
        "./usr/share/doc/waxseal/examples/waxseal.socket",
        "./etc/waxseal/config.toml",
        "./usr/share/man/man1/waxseal.1.gz",
        "./usr/share/man/man1/waxseal-queue-salvage.1.gz",
        "./usr/share/bash-completion/completions/waxseal",
        "./usr/share/zsh/vendor-completions/_waxseal",
        "./usr/share/fish/vendor_completions.d/waxseal.fish",
        "./usr/share/doc/waxseal/README.md",
        "./usr/share/doc/waxseal/docs/getting-started.md",
        "./usr/share/doc/waxseal/copyright",
    ] {
        assert!(files.contains(&file), "{file} is missing in {files:#?}");
    }
    let unexpected = files.iter().filter(|file| file.contains("local") || file.contains("target"));
    assert_eq!(unexpected.collect::<Vec<_>>(), Vec::<&&str>::new());
    let fields = run(Command::new("dpkg-deb").args(["--field"]).arg(package));
    for field in
        ["Package: waxseal", "Section: mail", "Maintainer: ", "Depends: ", "adduser", "ca-certificates", "libc6"]
    {
        assert!(fields.contains(field), "{field}\n{fields}");
    }
    // A running gateway goes on with the new program.
    let scripts = package.with_extension("control");
    run(Command::new("dpkg-deb").arg("--control").arg(package).arg(&scripts));
    let after = std::fs::read_to_string(scripts.join("postinst")).unwrap();
    assert!(after.contains("try-restart waxseal.service >"), "and the socket stays open: {after}");
    for script in ["postinst", "postrm"] {
        run(Command::new("sh").arg("-n").arg(scripts.join(script)));
    }
}
