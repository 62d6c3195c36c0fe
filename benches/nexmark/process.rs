//! CPU time and memory of processes, as Linux counts them.

use crate::AnyError;

/// The kernel's unit of CPU time in `/proc`; 100 on every platform that Linux has now.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of a process so far, all its threads and the children it has waited for.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64, AnyError> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may hold blanks and parentheses; fields are counted from behind it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let mut ticks = 0.0;
    for at in 11..15 {
        ticks += fields.get(at).ok_or("short stat")?.parse::<f64>()?;
    }
    Ok(ticks / TICKS_PER_SECOND)
}

/// Largest resident memory since the start, or since [`reset_peak`], in megabytes.
pub(crate) fn peak_mb(pid: u32) -> Result<f64, AnyError> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kb: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kb / 1024.0)
}

/// Forgets the peak so far.
pub(crate) fn reset_peak(pid: u32) -> Result<(), AnyError> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

/// What a run took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mb: f64,
    /// From the start of the process, or the submission of the job, until it reads.
    pub(crate) start_seconds: f64,
}
