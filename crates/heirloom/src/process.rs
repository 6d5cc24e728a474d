//! What the system says of this process.
//!
//! In: nothing. Out: memory and page faults, all threads together; `None` where the system does not
//! say. Never: anything that a run's numbers depend on.

use heirloom_base::Bytes;

/// The most memory that was ever resident, files that are mapped included.
pub fn peak_memory() -> Option<Bytes> {
    status("VmHWM:")
}

/// Memory that is resident now.
pub fn resident_memory() -> Option<Bytes> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<Bytes> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Bytes(1024 * kibibytes))
}

/// Page faults so far that needed no disk: pages touched for the first time, as a rule.
pub fn minor_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets that may hold spaces; `minflt` is the tenth.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_that_is_touched_is_counted_as_faults_and_in_the_peak() {
        const MEBIBYTES: usize = 32;
        let (faults, peak) = (minor_faults().unwrap(), peak_memory().unwrap());
        let touched = std::hint::black_box(vec![1_u8; MEBIBYTES << 20]);
        // A page has two mebibytes at most.
        assert!(minor_faults().unwrap() >= faults + (MEBIBYTES / 2) as u64);
        assert!(peak_memory().unwrap() >= peak && peak_memory().unwrap().0 >= touched.len() as u64);
    }
}
