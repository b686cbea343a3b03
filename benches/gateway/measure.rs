//! What processes and threads have used, as /proc tells it: CPU, memory, and which threads used it.

use super::processes::Processes;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Of utime and stime in /proc/PID/stat; the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// A thread of this process.
#[derive(Debug, Clone)]
pub struct OwnThread(PathBuf);

impl OwnThread {
    pub fn current() -> Self {
        Self(PathBuf::from("/proc").join(fs::read_link("/proc/thread-self").unwrap()).join("schedstat"))
    }

    /// Since the thread began.
    pub fn cpu(&self) -> Duration {
        Duration::from_nanos(nanoseconds(&fs::read_to_string(&self.0).unwrap_or_default()))
    }
}

/// The first field of schedstat: time on a CPU.
fn nanoseconds(schedstat: &str) -> u64 {
    schedstat.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or_default()
}

/// CPU that several processes have used so far.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    total: Duration,
    /// By thread: its name and its time.
    threads: HashMap<u32, (String, Duration)>,
}

impl Cpu {
    /// `total`: what is known of all of them; else each process is asked, and its children that it has waited for.
    pub fn of(processes: &[u32], total: Option<Duration>) -> Self {
        let mut cpu = Self { total: total.unwrap_or_default(), threads: HashMap::new() };
        for process in processes {
            if total.is_none() {
                cpu.total += with_ended_children(*process);
            }
            for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let Some(number) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                let used = Duration::from_nanos(nanoseconds(&read("schedstat")));
                cpu.threads.insert(number, (read("comm").trim().to_owned(), used));
            }
        }
        cpu
    }

    pub fn since(&self, before: &Cpu) -> Duration {
        self.total.saturating_sub(before.total)
    }

    /// By name, the names' threads summed. Threads that ended in between are missing.
    pub fn threads_since(&self, before: &Cpu) -> BTreeMap<String, Duration> {
        let mut names: BTreeMap<String, Duration> = BTreeMap::new();
        for (number, (name, used)) in &self.threads {
            let earlier = before.threads.get(number).map(|(_, used)| *used).unwrap_or_default();
            *names.entry(name.clone()).or_default() += used.saturating_sub(earlier);
        }
        names
    }
}

fn with_ended_children(process: u32) -> Duration {
    // utime, stime, cutime, cstime: fields 14 to 17, here counted from the state on.
    let fields = stat(process).unwrap_or_default();
    let ticks: f64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// The fields of /proc/PID/stat after the name, which may itself hold spaces and brackets.
fn stat(process: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = line.rsplit_once(") ")?.1;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// A process and those that descend from it.
pub fn descendants(root: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in numbers {
        if let Some(parent) = stat(process).and_then(|fields| fields[1].parse().ok()) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        found.extend(children.remove(&found[at]).unwrap_or_default());
        at += 1;
    }
    found
}

/// Resident memory in MiB, each shared page divided among those that share it.
pub fn memory(processes: &Processes) -> f64 {
    let of = |process: u32| {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse::<f64>().ok()
    };
    processes.list().into_iter().filter_map(of).sum::<f64>() / 1024.0
}

/// The highest memory of the processes while `work` runs, looked at five times a second.
pub fn peak_memory<T>(processes: &Processes, work: impl FnOnce() -> T) -> (T, f64) {
    let (ended, told) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let looker = scope.spawn(move || {
            let mut peak = memory(processes);
            while told.recv_timeout(Duration::from_millis(200)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                peak = peak.max(memory(processes));
            }
            peak.max(memory(processes))
        });
        let done = work();
        drop(ended);
        (done, looker.join().unwrap())
    })
}
