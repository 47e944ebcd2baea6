//! Socket activation: listeners that whoever started the process has opened for it.

use crate::sys;
use std::env;
use std::io;
use std::ops::Range;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The listening sockets that were handed to this process at its start, by systemd's protocol: `LISTEN_PID` is this
/// process, `LISTEN_FDS` says how many, and the first has the number 3. None, if nothing was handed over.
///
/// They are made close-on-exec; [`Listen::descriptor`](lodger::Listen::descriptor) takes each. What is no listening
/// socket is left alone. The sockets are given out once per process, so a second call finds none; no other library of
/// the process may take them too.
///
/// ```no_run
/// # use lodger::{Context, Decision, Io, Listen, Request, Site};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mut context: Context = Context::new();
/// # let accept = |_: &Request<'_>, _: &mut (), _: &mut Io| Decision::Later;
/// # let site = Site::new().protocol("", accept);
/// let site = context.io().add_site(site)?;
/// for listener in lodger_poll::inherited_listeners()? {
///     context.io().listen(Listen::descriptor(listener), site)?;
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// What the system answers to making one close-on-exec.
pub fn inherited_listeners() -> io::Result<Vec<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let numbers = announced(
        env::var("LISTEN_PID").ok().as_deref(),
        env::var("LISTEN_FDS").ok().as_deref(),
        std::process::id(),
    );
    if numbers.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    numbers.filter_map(sys::take_listener).collect()
}

/// The numbers that the two variables announce to the process `own`.
fn announced(pid: Option<&str>, count: Option<&str>, own: u32) -> Range<RawFd> {
    let is_for_us = pid.and_then(|pid| pid.parse().ok()) == Some(own);
    let count = count.and_then(|count| count.parse().ok()).filter(|count| is_for_us && *count > 0);
    FIRST..FIRST.saturating_add(count.unwrap_or(0))
}

/// The first number after the standard ones.
const FIRST: RawFd = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::process::{Command, Stdio};

    #[test]
    fn only_the_process_that_is_named_gets_them() {
        assert_eq!(announced(Some("7"), Some("2"), 7), 3..5);
        for (pid, count) in [
            (Some("8"), Some("2")),
            (None, Some("2")),
            (Some("7"), None),
            (Some("7"), Some("-2")),
            (Some("7"), Some("0")),
            (Some("7"), Some("many")),
            (Some(""), Some("1")),
        ] {
            assert!(announced(pid, count, 7).is_empty(), "{pid:?}, {count:?}");
        }
        assert!(inherited_listeners().unwrap().is_empty());
    }

    /// Runs in the process that the next test starts.
    #[test]
    #[ignore = "needs to be started with a listener as descriptor 3"]
    fn started_with_a_listener() {
        let taken = inherited_listeners().unwrap();
        let [listener] = &taken[..] else { panic!("{taken:?}") };
        assert_eq!(listener.as_raw_fd(), 3);
        assert!(inherited_listeners().unwrap().is_empty());
        TcpListener::from(taken.into_iter().next().unwrap()).accept().unwrap();
    }

    #[test]
    fn listener_is_taken_over_and_other_descriptors_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _queued = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // Descriptor 3 is the listener and 4 is not one.
        let script = "LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" --ignored --exact inherited::tests::started_with_a_listener 3<&0 4<&1";
        let status = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(env::current_exe().unwrap())
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}
