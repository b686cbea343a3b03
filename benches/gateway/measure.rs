//! What processes and threads have used, as /proc tells it: CPU, memory, and which threads used it.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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

/// The processes that descend from one, itself included.
#[derive(Debug, Clone)]
pub struct ProcessTree {
    root: u32,
}

/// CPU that a process tree has used so far.
#[derive(Debug, Clone, Default)]
pub struct Cpu {
    pub total: Duration,
    /// By thread: its name and its time.
    threads: HashMap<u32, (String, Duration)>,
}

impl ProcessTree {
    pub fn of(root: u32) -> Self {
        Self { root }
    }

    pub fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").unwrap().flatten();
        let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for process in numbers {
            if let Some(parent) = stat(process).and_then(|fields| fields[1].parse().ok()) {
                children.entry(parent).or_default().push(process);
            }
        }
        let mut found = vec![self.root];
        let mut at = 0;
        while at < found.len() {
            found.extend(children.remove(&found[at]).unwrap_or_default());
            at += 1;
        }
        found
    }

    /// Each process, and the children that it has waited for.
    pub fn cpu(&self) -> Cpu {
        let mut cpu = Cpu::default();
        for process in self.processes() {
            let Some(fields) = stat(process) else { continue };
            // utime, stime, cutime, cstime: fields 14 to 17, here counted from the state on.
            let ticks: f64 = fields[11..15].iter().filter_map(|field| field.parse::<f64>().ok()).sum();
            cpu.total += Duration::from_secs_f64(ticks / TICKS_PER_SECOND);
            for thread in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
                let Some(number) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                let read = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
                let used = Duration::from_nanos(nanoseconds(&read("schedstat")));
                cpu.threads.insert(number, (read("comm").trim().to_owned(), used));
            }
        }
        cpu
    }

    /// Resident memory in MiB, each shared page divided among those that share it.
    pub fn memory(&self) -> f64 {
        let of = |process: u32| {
            let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.trim().trim_end_matches(" kB").parse::<f64>().ok()
        };
        self.processes().into_iter().filter_map(of).sum::<f64>() / 1024.0
    }
}

impl Cpu {
    /// Since `before`.
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

/// Of several trees together.
pub fn cpu_of(trees: &[ProcessTree]) -> Cpu {
    let mut all = Cpu::default();
    for tree in trees {
        let cpu = tree.cpu();
        all.total += cpu.total;
        all.threads.extend(cpu.threads);
    }
    all
}

/// The fields of /proc/PID/stat behind the name, which may itself hold spaces and brackets.
fn stat(process: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let fields = line.rsplit_once(") ")?.1;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// The highest memory of a process tree while something runs, looked at five times a second.
pub struct PeakMemory {
    ended: Arc<AtomicBool>,
    looker: std::thread::JoinHandle<f64>,
}

impl PeakMemory {
    pub fn follow(trees: Vec<ProcessTree>) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let looker = std::thread::spawn({
            let ended = ended.clone();
            move || {
                let look = || trees.iter().map(ProcessTree::memory).sum::<f64>();
                let mut peak: f64 = 0.0;
                while !ended.load(Ordering::Relaxed) {
                    peak = peak.max(look());
                    std::thread::park_timeout(Duration::from_millis(200));
                }
                peak.max(look())
            }
        });
        Self { ended, looker }
    }

    pub fn mebibytes(self) -> f64 {
        self.ended.store(true, Ordering::Relaxed);
        self.looker.thread().unpark();
        self.looker.join().unwrap()
    }
}
