//! Which CPUs threads run on, where the operator says so.
//!
//! A worker that is bound to a CPU which nothing else of the process uses is never held up by a reload, and keeps its
//! caches. But it cannot flee from what other processes do there, so without the operator's word the system places all
//! threads.

use std::{fs, io, thread};

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Binds the thread that calls.
pub fn bind_to(cpu: u16) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(usize::from(cpu));
    Ok(sched_setaffinity(None, &set)?)
}

/// The first of `cpus` that threads cannot be bound to: the machine does not have it, or this process may not use it.
pub fn first_unusable(cpus: &[u16]) -> Option<u16> {
    let cpus = cpus.to_vec();
    // On a thread that is not needed afterwards.
    let tried = thread::spawn(move || cpus.into_iter().find(|cpu| bind_to(*cpu).is_err()));
    tried.join().expect("binding does not panic")
}

/// Keeps all threads that there are now, and those that they will start, off `cpus`, unless no other CPU is left.
///
/// Where a thread cannot be moved it stays: that costs speed and nothing else.
pub fn keep_off(cpus: &[u16]) {
    let Ok(mut others) = sched_getaffinity(None) else { return };
    cpus.iter().for_each(|cpu| others.unset(usize::from(*cpu)));
    if others.count() == 0 {
        return;
    }
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
    for id in ids.filter_map(Pid::from_raw) {
        let _ = sched_setaffinity(Some(id), &others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> Vec<u16> {
        let set = sched_getaffinity(None).expect("it can be asked");
        (0..1024).filter(|cpu| set.is_set(usize::from(*cpu))).collect()
    }

    #[test]
    fn a_thread_is_bound_to_one_cpu() {
        let last = *usable().last().expect("this runs somewhere");
        let bound = thread::spawn(move || {
            bind_to(last).unwrap();
            usable()
        });
        assert_eq!(bound.join().unwrap(), [last]);
        assert!(usable().contains(&last) && first_unusable(&usable()).is_none());
    }

    #[test]
    fn a_cpu_that_the_machine_lacks_is_told() {
        let first = usable()[0];
        assert_eq!(first_unusable(&[first, 1023, 1022]), Some(1023));
    }
}
