//! How long the scheduler lets a thread of ours run on when another wants its core. Nothing but the system call.

/// A thread that was woken waits no longer than this for one that gives way, where the kernel can be told (Linux 6.12), ns.
/// It is the least that it takes.
const TURN_NS: u64 = 100_000;

/// Makes the thread that calls so nice, with turns that are short: without them one that is as nice as can be still keeps a
/// core for a turn of some milliseconds while a query waits. Kernels that know nothing of turns take the niceness alone.
///
/// Errors: it may not, or the kernel does not know the call.
pub fn give_way(nice: i32) -> std::io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: TURN_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says from a structure that lives until it returns, and writes none.
    let outcome = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if outcome == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_becomes_nice_and_its_turns_short() {
        std::thread::spawn(|| {
            give_way(7).expect("less than before is always allowed");
            // SAFETY: a structure without pointers or invariants, which the kernel fills as far as it knows it.
            let mut told: libc::sched_attr = unsafe { std::mem::zeroed() };
            let size = size_of::<libc::sched_attr>() as u32;
            // SAFETY: the kernel writes no more than `size` bytes to a structure of that size.
            let outcome = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut told, size, 0) };
            assert_eq!((outcome, told.sched_nice), (0, 7));
            // Kernels that know nothing of turns say 0.
            assert!([0, TURN_NS].contains(&told.sched_runtime), "{}", told.sched_runtime);
        })
        .join()
        .expect("it only asks");
    }
}
