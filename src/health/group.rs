//! A program in a process group of its own, of which nothing stays: what it starts ends when it ends, or is given up.
//!
//! Used by the check `exec` and by the commands of the agent.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

/// For reading what is in the pipes once a program has ended.
const GRACE: Duration = Duration::from_millis(50);

/// A program and the process group that it leads. Dropping it kills the group.
pub(crate) struct Group {
    child: Child,
    /// Of the group. `None` once it has been killed: its number may then be another's.
    id: Option<Pid>,
}

impl Group {
    /// Starts the program with an empty standard input. Where its output goes is the command's to say.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Group> {
        // A child that is dropped is killed, and reaped by the runtime.
        let child = command.stdin(Stdio::null()).process_group(0).kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        Ok(Group { child, id })
    }

    /// The outputs that are pipes, once.
    pub(crate) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits until the program has ended, while `reading` reads its outputs; that is given up shortly after the end.
    pub(crate) async fn wait(&mut self, reading: impl Future) -> io::Result<ExitStatus> {
        let mut reading = pin!(reading);
        tokio::select! {
            biased;
            ended = self.child.wait() => {
                // What it left running in the background holds the pipes. It is ended, and so are they; only what has
                // left the group, too, may hold them on, and is not waited for.
                self.kill();
                let _ = timeout(GRACE, reading).await;
                ended
            }
            _ = &mut reading => self.child.wait().await,
        }
    }

    fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            // An error says that nobody of the group is left. The program itself may have been waited for, which frees
            // its number when it was the last; but that was in the same breath, and numbers are given out in turn.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}
