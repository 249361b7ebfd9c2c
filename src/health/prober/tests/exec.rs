//! Real programs: what their end means, and that nothing is left of them.

use std::fs;
use std::path::Path;

use super::*;
use crate::config::settings::ExecCheck;

/// A check by a script of the shell, with time enough for a busy machine.
fn script(text: &str) -> Target {
    program("/bin/sh", &["-c", text])
}

fn program(program: &str, arguments: &[&str]) -> Target {
    let exec = ExecCheck {
        program: program.into(),
        arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        host: Some("live.stream.example.".into()),
    };
    let unhurried = |check: &mut Check| (check.every, check.timeout, check.fall) = (PLENTY, PLENTY / 2, 1);
    with(target("127.0.0.1:8081".parse().unwrap(), CheckKind::Exec(exec)), unhurried)
}

fn hasty(target: Target) -> Target {
    with(target, |check| (check.every, check.timeout, check.fall) = (PLENTY * 10, ms(200), 2))
}

/// State and parent of a process (proc_pid_stat(5)).
fn process(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// The children of this process, zombies too.
fn children() -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes.filter(|&id| process(id).is_some_and(|(_, parent)| parent == std::process::id())).count()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let enough = Instant::now() + PLENTY;
    while !done() {
        assert!(Instant::now() < enough, "never: {what}");
        sleep(ms(10)).await;
    }
}

/// The process whose number a script wrote to `file` runs no more. Who reaps it is not ours to say.
async fn ended(file: &Path) {
    until("the script wrote its number", || fs::read_to_string(file).is_ok_and(|text| text.ends_with('\n'))).await;
    let id: u32 = fs::read_to_string(file).unwrap().trim().parse().unwrap();
    until("the process ended", || process(id).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))).await;
}

#[tokio::test]
async fn exit_code_0_is_up_and_no_connection_is_made() {
    let mut watched = Watched::up(with(script("echo ignored; exit 0"), |check| check.every = ms(50))).await;
    watched.quiet_until(Kind::Success, 3).await;
    assert_eq!(watched.stats().connects(), 0);
}

#[tokio::test]
async fn another_end_is_down_with_the_first_line_as_the_cause() {
    for (text, cause) in [
        ("exit 1", "exit 1"),
        ("echo; echo 'CRITICAL - no picture'; echo more; exit 2", "exit 2: CRITICAL - no picture"),
        ("echo 'to the other' >&2; exit 3", "exit 3: to the other"),
        ("echo first >&2; echo second; exit 3", "exit 3: second"),
        ("printf '\\033[31mred\\007'; exit 4", "exit 4: [31mred"),
        ("kill -9 $$", "killed by signal 9"),
    ] {
        assert_eq!(first_verdict(script(text)).await, down(cause), "{text}");
    }
}

#[tokio::test]
async fn the_environment_is_the_path_and_what_is_asked_about() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to keep from the program");
    let told =
        r#"echo "$MERIDIAN_ADDRESS $MERIDIAN_PORT $MERIDIAN_HOST ${CARGO_MANIFEST_DIR-none} ${PATH:+path}"; exit 1"#;
    let all = down("exit 1: 127.0.0.1 8081 live.stream.example none path");
    assert_eq!(first_verdict(script(told)).await, all);
    let mut bare = script("echo ${MERIDIAN_PORT-none} ${MERIDIAN_HOST-none}; exit 1");
    bare.address = "[2001:db8::1]:0".parse().unwrap();
    let CheckKind::Exec(exec) = &mut Arc::make_mut(&mut bare.check).kind else { unreachable!() };
    exec.host = None;
    assert_eq!(first_verdict(bare).await, down("exit 1: none none"));
}

#[tokio::test]
async fn arguments_are_taken_as_they_are_written() {
    let target = program("/bin/sh", &["-c", "echo \"$0|$1|$#\"; exit 1", "$HOME; *", "a b"]);
    assert_eq!(first_verdict(target).await, down("exit 1: $HOME; *|a b|1"));
}

#[tokio::test]
async fn nothing_comes_from_standard_input() {
    assert_eq!(first_verdict(script("read line; echo \"got $?\"; exit 1")).await, down("exit 1: got 1"));
}

#[tokio::test]
async fn a_program_that_hangs_is_silence_and_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let hang = format!("trap '' TERM; sleep 600 & echo $! > {}; wait", file.display());
    let verdict = first_verdict(hasty(script(&hang))).await;
    assert_eq!(verdict, down("no answer in 200ms"));
    ended(&file).await;
    until("no child is left, nor a zombie", || children() == 0).await;
}

#[tokio::test]
async fn a_target_that_is_dropped_takes_its_program_along() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let mut watched = Watched::new(&[script(&format!("sleep 600 & echo $! > {}; wait", file.display()))]);
    until("it runs", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))).await;
    watched.prober.retarget(&[]);
    ended(&file).await;
    until("no child is left, nor a zombie", || children() == 0).await;
}

#[tokio::test]
async fn what_a_program_leaves_in_the_background_neither_holds_it_up_nor_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("child");
    let start = Instant::now();
    let _watched = Watched::up(script(&format!("sleep 600 & echo $! > {}; exit 0", file.display()))).await;
    println!("up after {:?}", start.elapsed());
    assert!(start.elapsed() < PLENTY / 2, "not only when its time is up");
    ended(&file).await;
}

#[tokio::test]
async fn a_daemon_that_leaves_the_group_does_not_hold_up_the_program_that_started_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon");
    let daemon = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 600' & while [ ! -s {0} ]; do sleep 0.01; done; echo said; exit 1",
        file.display()
    );
    let start = Instant::now();
    assert_eq!(first_verdict(script(&daemon)).await, down("exit 1: said"));
    assert!(start.elapsed() < PLENTY / 4, "{:?}", start.elapsed());
    until("the daemon wrote its number", || fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))).await;
    let id: i32 = fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn endless_output_from_the_background_does_not_hide_the_end() {
    assert_eq!(first_verdict(script("yes & echo said >&2; sleep 0.1; exit 6")).await, down("exit 6: y"));
}

#[tokio::test]
async fn a_program_that_closes_its_output_is_waited_for() {
    assert_eq!(first_verdict(script("exec >&- 2>&-; sleep 0.1; exit 5")).await, down("exit 5"));
}

#[tokio::test]
async fn a_flood_of_output_is_read_away() {
    let flood = "head -c 20000000 /dev/zero | tr '\\0' x; head -c 5000000 /dev/zero >&2; exit 4";
    assert_eq!(first_verdict(script(flood)).await, down(&format!("exit 4: {}…", "x".repeat(200))));
}

#[tokio::test]
async fn endless_output_ends_with_the_time_out() {
    assert_eq!(first_verdict(hasty(script("while :; do echo flood; done"))).await, down("no answer in 200ms"));
    until("no child is left", || children() == 0).await;
}

#[tokio::test]
async fn a_program_that_can_not_be_started_is_our_trouble_and_the_verdict_stays() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    fs::write(&text, "not a program\n").unwrap();
    for path in [Path::new("/nonexistent/check"), &text, dir.path()] {
        let check = with(program(path.to_str().unwrap(), &[]), |check| check.every = ms(50));
        let mut watched = Watched::new(&[check]);
        watched.quiet_until(Kind::Local, 3).await;
        let stats = watched.stats();
        assert_eq!((stats.verdict(), stats.results(Kind::Hard)), (Verdict::Unknown, 0));
        let cause = stats.last_cause().unwrap();
        assert!(cause.starts_with(&format!("can't start {}: ", path.display())), "{cause}");
    }
}

#[tokio::test]
async fn so_many_programs_run_at_one_time_and_no_more() {
    let targets: Vec<Target> = (0..100)
        .map(|port| with(program("/bin/sleep", &["0.5"]), |check| check.port = port))
        .map(|mut target| {
            target.address.set_port(target.check.port);
            target
        })
        .collect();
    let mut watched = Watched::new(&targets);
    let mut most = 0;
    let mut up = 0;
    while up < targets.len() {
        most = most.max(children());
        while let Ok(event) = watched.events.try_recv() {
            assert_eq!(event.verdict, Verdict::Up, "{}", event.cause);
            up += 1;
        }
        sleep(ms(20)).await;
    }
    println!("{most} at one time");
    assert!((2..=MAX_PROCESSES).contains(&most), "{most} at one time");
}
