//! CPU-seconds and memory of processes, from /proc.
//!
//! A postmaster reaps its children, so its `cutime` and `cstime` have all that those used which are gone; those that live
//! are read one by one, to the nanosecond (`schedstat`). So a sum over the tree misses no process, however short-lived.

use std::{fs, io};

/// Linux counts process times in hundredths of a second for user space, whatever the kernel's own clock is.
const TICKS: f64 = 100.0;

/// The times of /proc/PID/stat in seconds: its own, and that of its children that are gone.
fn times(pid: u32) -> io::Result<(f64, f64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name stands in parentheses, and may hold anything.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |i: usize| rest.split_whitespace().nth(i).and_then(|v| v.parse::<f64>().ok()).unwrap_or(0.0);
    Ok(((field(11) + field(12)) / TICKS, (field(13) + field(14)) / TICKS))
}

/// CPU-seconds of one process with all its threads, those that are gone included.
pub fn cpu(pid: u32) -> io::Result<f64> {
    times(pid).map(|(own, _)| own)
}

fn children(pid: u32) -> io::Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(list.split_whitespace().filter_map(|p| p.parse().ok()).collect())
}

/// Of a process with one thread.
fn precise(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
    text.split_whitespace().next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}

/// CPU-seconds of a postmaster and all its children, past and present.
pub fn tree_cpu(postmaster: u32) -> io::Result<f64> {
    let (own, gone) = times(postmaster)?;
    let own = precise(postmaster).unwrap_or(own);
    Ok(own + gone + children(postmaster)?.into_iter().filter_map(precise).sum::<f64>())
}

/// Proportional set size of one process without shared buffers (those are a setting), in bytes; 0 when it is gone.
pub fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()).and_then(|kb| kb.parse::<u64>().ok()).unwrap_or(0)
    };
    field("Pss:").saturating_sub(field("Pss_Shmem:")) * 1024
}

/// Proportional set size of a postmaster and its children, without shared buffers, in bytes.
pub fn tree_pss(postmaster: u32) -> io::Result<u64> {
    Ok(pss(postmaster) + children(postmaster)?.into_iter().map(pss).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_gone_still_counts() {
        let me = std::process::id();
        let before = tree_cpu(me).unwrap();
        let burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        std::process::Command::new("sh").args(["-c", burn]).status().unwrap();
        assert!(tree_cpu(me).unwrap() > before, "the shell's time");
        assert!(tree_pss(me).unwrap() > 0);
    }
}
