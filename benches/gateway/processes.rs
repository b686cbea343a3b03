//! The processes of a server under test, for as long as it runs: what all of them have used, those included that have
//! ended and that nobody has waited for.
//!
//! They get a control group of their own where the kernel lets us (cgroup v2), since that misses nothing. Without one, the
//! process tree is added up.

use super::measure::{self, Cpu};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What is run in the shell to become the program: arguments are the group's list of processes, the program, its arguments.
const ENTER: &str = "echo $$ > \"$1\" && shift && exec \"$@\"";

/// For a stop.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub struct Processes {
    /// Folder of the control group.
    group: Option<PathBuf>,
    children: Vec<Child>,
}

impl Processes {
    pub fn new() -> Self {
        Self { group: own_group(), children: Vec::new() }
    }

    /// Whether nothing that they use is missed.
    pub fn are_grouped(&self) -> bool {
        self.group.is_some()
    }

    /// Starts it among these. The command's program, arguments, environment, folder and output are kept.
    pub fn spawn(&mut self, command: &Command, output: &Path) -> &mut Child {
        let mut inside = match &self.group {
            Some(group) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", ENTER, "sh"]).arg(group.join("cgroup.procs")).arg(command.get_program());
                shell
            }
            None => Command::new(command.get_program()),
        };
        inside.args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        let output = fs::File::options().create(true).append(true).open(output).unwrap();
        inside.stdin(std::process::Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        self.children.push(inside.spawn().unwrap());
        self.children.last_mut().unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.children.iter_mut().any(|child| child.try_wait().is_ok_and(|ended| ended.is_some()))
    }

    pub fn list(&self) -> Vec<u32> {
        match &self.group {
            Some(group) => {
                let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                list.lines().filter_map(|line| line.parse().ok()).collect()
            }
            None => self.children.iter().flat_map(|child| measure::descendants(child.id())).collect(),
        }
    }

    pub fn cpu(&self) -> Cpu {
        let group = self.group.as_ref().map(|group| usage(group));
        Cpu::of(&self.list(), group)
    }

    /// SIGKILL to all of them.
    pub fn kill(&mut self) {
        for process in self.list() {
            signal(process, rustix::process::Signal::KILL);
        }
        for child in &mut self.children {
            let _reap = child.wait();
        }
    }
}

/// SIGTERM in the opposite order, then SIGKILL to what is left.
impl Drop for Processes {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            signal(child.id(), rustix::process::Signal::TERM);
            let asked = Instant::now();
            while asked.elapsed() < PATIENCE && child.try_wait().is_ok_and(|ended| ended.is_none()) {
                std::thread::park_timeout(Duration::from_millis(5));
            }
        }
        self.kill();
        let Some(group) = &self.group else { return };
        // Busy until the last one is gone.
        for _ in 0..1000 {
            if fs::remove_dir(group).is_ok() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

fn signal(process: u32, signal: rustix::process::Signal) {
    if let Some(process) = rustix::process::Pid::from_raw(process as i32) {
        let _it_may_have_ended = rustix::process::kill_process(process, signal);
    }
}

/// A new group below our own; `None` where that is not allowed.
fn own_group() -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mounts = fs::read_to_string("/proc/mounts").ok()?;
    let mounted =
        mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount[2] == "cgroup2")?[1];
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let name = format!("waxseal-bench-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let group = Path::new(mounted).join(own).join(name);
    fs::create_dir(&group).ok()?;
    Some(group)
}

fn usage(group: &Path) -> Duration {
    let text = fs::read_to_string(group.join("cpu.stat")).unwrap();
    let used = text.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap();
    Duration::from_micros(used.parse().unwrap())
}
